//! The command line as a user meets it: exit codes, messages, and the outputs of a replay.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
};

use assert_cmd::Command;
use tracer::{
    output::recording::{BYTE_ORDER, Header, Writer},
    stage::event::{Event, Identity, UserEvent},
};
use tracer_ebpf::{
    ABI_VERSION, DetailedRecord, ExchangeRecord, SocketRecord, exchange::Exchanges, flag, kind, role, tcp_state,
};
use zerocopy::FromZeros as _;

/// One second after boot, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

fn conntracer() -> Command {
    Command::cargo_bin("conntracer").unwrap()
}

/// Standard output, standard error, exit code.
fn outcome(command: &mut Command) -> (String, String, i32) {
    let output = command.output().unwrap();
    (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
        output.status.code().unwrap(),
    )
}

/// A file that is removed with its folder.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("conntracer-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, content: &[u8]) -> PathBuf {
        let path = self.0.join("file");
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn client_record(kind: u32, at: u64) -> SocketRecord {
    let mut record = SocketRecord::new_zeroed();
    record.kind = kind;
    record.at = at;
    record.id = 7;
    record.role = role::CLIENT;
    record.opened_at = SECOND;
    record.established_at = SECOND + 12_300_000;
    (record.tgid, record.tid, record.opener_tgid, record.netns) = (42, 42, 42, 1);
    record.process_started_at = 5 * SECOND;
    record.local_address = "::ffff:10.0.0.1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    record.remote_address = "::ffff:10.0.0.2".parse::<std::net::Ipv6Addr>().unwrap().octets();
    (record.local_port, record.remote_port) = (50_000, 443);
    record
}

/// A client's connection that idles for five seconds and is then closed by the client.
fn recording() -> Vec<u8> {
    recording_of(&[Event::Socket(client_record(kind::OPENED, SECOND + 12_300_000)), Event::Socket(ended())])
}

/// The same with one exchange, in detail `exchanges`.
fn recording_with_an_exchange() -> Vec<u8> {
    let asked_at = SECOND + 20_000_000;
    let exchanges = Exchanges {
        ready_at: SECOND + 12_300_000,
        asked_at,
        answered_at: asked_at + 30_000_000,
        last_at: asked_at + 31_000_000,
        sent: 100,
        received: 2000,
        count: 1,
        ..Exchanges::new_zeroed()
    };
    let detailed = |socket, exchanges| {
        Event::Detailed(Box::new(DetailedRecord { socket, exchanges, ..DetailedRecord::new_zeroed() }))
    };
    let answered = ExchangeRecord {
        kind: kind::ANSWERED,
        at: exchanges.answered_at,
        id: 7,
        asked_at,
        ready_at: exchanges.ready_at,
        ..ExchangeRecord::new_zeroed()
    };
    recording_of(&[
        detailed(client_record(kind::OPENED, SECOND + 12_300_000), Exchanges::new_zeroed()),
        Event::Exchange(answered),
        detailed(ended(), exchanges),
    ])
}

fn ended() -> SocketRecord {
    let mut ended = client_record(kind::ENDED, 7 * SECOND);
    ended.flags = flag::BYTES_KNOWN | flag::IDLE_KNOWN;
    (ended.end_sign_at, ended.released_at, ended.ended_at) = (6 * SECOND, 6 * SECOND, 7 * SECOND);
    (ended.state_before_end, ended.state_at_end) = (tcp_state::ESTABLISHED, tcp_state::FIN_WAIT1);
    (ended.bytes_sent, ended.bytes_received) = (100, 2000);
    (ended.sent_idle_ticks, ended.received_idle_ticks) = (1251, 1250);
    ended
}

fn recording_of(connection: &[Event]) -> Vec<u8> {
    let header = Header {
        tool_version: "0".into(),
        created_at: "1970-01-01T00:00:00Z".into(),
        began_at: SECOND / 2,
        kernel: "test".into(),
        host: "test".into(),
        boot_to_wall_ns: 0,
        tick_ns: 4_000_000,
        offsets: Default::default(),
        byte_order: BYTE_ORDER.into(),
    };
    let identity = Identity {
        pid: 42,
        host_pid: None,
        started_at: 5 * SECOND,
        comm: "client".into(),
        exe: Some("/usr/bin/client".into()),
        container: None,
        quota: None,
    };
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    let identity = Event::User(Box::new(UserEvent::Identity(identity)));
    let stop = Event::User(Box::new(UserEvent::Stop { at: 8 * SECOND }));
    for event in [identity].iter().chain(connection).chain([&stop]) {
        writer.push(event).unwrap();
        writer.flush().unwrap();
    }
    writer.into_inner()
}

fn replay(content: &[u8], name: &str, arguments: &[&str]) -> (String, String, i32) {
    let scratch = Scratch::new(name);
    let file = scratch.file(content);
    outcome(conntracer().arg("replay").arg(&file).args(arguments))
}

#[test]
fn a_replay_tells_the_life_in_plain_words() {
    let (stdout, stderr, code) = replay(&recording(), "text", &[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    insta::assert_snapshot!(stdout.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"), @r"
    00:00:01.000  client[42]              -> 10.0.0.2:443           open, connect 12.3 ms
    00:00:07.000  client[42]              -> 10.0.0.2:443           connect 12.3 ms  lived  6.00 s  sent   100 B  recv 2.00 kB  idle 5.00 s, then local closed (FIN)

    1 connection in 7.50 s, 0 still open
    process  destination      conns  open  failed  setup total   median   sent     recv  idle at close min  median     max  closed by
    client   -> 10.0.0.2:443      1     -       -      12.3 ms  12.3 ms  100 B  2.00 kB             5.00 s  5.00 s  5.00 s  local 1
    ");
}

#[test]
fn a_replay_as_ndjson_has_open_connection_and_summary() {
    let (stdout, _, code) = replay(&recording(), "ndjson", &["--format", "ndjson"]);
    assert_eq!(code, 0);
    let lines: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["open", "connection", "summary"]);
    assert_eq!(lines[1]["idle_before_close_ms"], 5000);
    assert_eq!(lines[1]["close"]["closer"], "local");
    assert_eq!(lines[1]["exe"], "/usr/bin/client");
}

#[test]
fn a_replay_shows_exchanges_as_asked() {
    let recording = recording_with_an_exchange();
    let ndjson = |name, arguments: &[&str]| {
        let (stdout, stderr, code) = replay(&recording, name, &[&["--format", "ndjson"], arguments].concat());
        assert_eq!((code, stderr.as_str()), (0, ""));
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    let lines = ndjson("exchanges", &[]);
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["open", "exchange", "connection", "summary"]);
    assert_eq!(lines[1]["connection"], lines[2]["id"]);
    assert_eq!((lines[1]["first_byte_ms"].as_f64(), lines[1]["duration_ms"].as_f64()), (Some(30.0), Some(31.0)));
    assert_eq!((lines[1]["bytes_out"].as_u64(), lines[1]["bytes_in"].as_u64()), (Some(100), Some(2000)));
    assert_eq!(lines[1]["setup"]["total_ms"], 12.3);
    assert_eq!((lines[2]["exchanges"].as_u64(), lines[2]["idle_before_close_ms"].as_f64()), (Some(1), Some(4949.0)));
    assert_eq!(lines[3]["groups"][0]["exchanges_per_connection"], 1);

    let without = ndjson("no-exchanges", &["--no-exchanges"]);
    assert_eq!(without, [&lines[..1], &lines[2..]].concat());

    let shown = |name, arguments: &[&str]| replay(&recording, name, arguments).0.contains("first byte");
    assert_eq!((shown("quiet", &[]), shown("verbose", &["-v"])), (false, true));
}

/// Six connects that were refused.
fn recording_of_refusals() -> Vec<u8> {
    let refused = |n: u64| {
        let at = (1 + n) * SECOND;
        let mut record = client_record(kind::ENDED, at + 1_000_000);
        (record.id, record.opened_at, record.established_at) = (100 + n, at, 0);
        (record.end_sign_at, record.ended_at, record.flags) = (record.at, record.at, flag::FINISHED);
        (record.state_before_end, record.state_at_end) = (tcp_state::SYN_SENT, tcp_state::CLOSE);
        record.error = libc::ECONNREFUSED.cast_unsigned();
        Event::Socket(record)
    };
    recording_of(&(0..6).map(refused).collect::<Vec<_>>())
}

fn diagnose(content: &[u8], name: &str, arguments: &[&str]) -> (String, String, i32) {
    let scratch = Scratch::new(name);
    let file = scratch.file(content);
    outcome(conntracer().args(["diagnose", "--from"]).arg(&file).args(arguments))
}

#[test]
fn a_diagnosis_of_a_recording_tells_what_is_wrong_and_ends_with_3_if_asked_to() {
    let (stdout, stderr, code) = diagnose(&recording_of_refusals(), "refusals", &[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("HIGH    connect-failures  client -> 10.0.0.2:443"), "{stdout}");
    assert!(stdout.contains("6 of 6 connects failed: 6 refused"), "{stdout}");
    let asked = ["--fail-on-finding", "--format", "ndjson"];
    let (stdout, _, code) = diagnose(&recording_of_refusals(), "refusals-ndjson", &asked);
    assert_eq!(code, 3);
    let lines: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["finding", "summary"]);
    assert_eq!(
        (lines[0]["rule"].as_str(), lines[0]["evidence"]["refused"].as_u64()),
        (Some("connect-failures"), Some(6))
    );
}

#[test]
fn a_diagnosis_of_a_healthy_recording_says_that_nothing_was_found() {
    let (stdout, _, code) = diagnose(&recording_with_an_exchange(), "healthy", &["--fail-on-finding"]);
    assert_eq!(code, 0);
    assert_eq!(stdout, "nothing found; looked at 1 connection and 1 exchange with 1 destination in 7.50 s\n");
}

#[test]
fn a_recording_cannot_be_diagnosed_together_with_a_process() {
    let scratch = Scratch::new("both");
    let file = scratch.file(&recording());
    let (_, stderr, code) = outcome(conntracer().args(["diagnose", "-p", "1", "--from"]).arg(&file));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("cannot be used with"), "{stderr}");
}

#[test]
fn a_replay_tells_findings_unless_told_not_to() {
    let rules = |name, arguments: &[&str]| {
        let (stdout, ..) = replay(&recording_of_refusals(), name, &[&["--format", "ndjson"], arguments].concat());
        stdout.matches(r#"{"type":"finding","rule":"connect-failures""#).count()
    };
    assert_eq!(rules("findings", &[]), 1);
    assert_eq!(rules("no-findings", &["--no-findings"]), 0);
    assert_eq!(rules("nothing-of-exchanges", &["--no-exchanges"]), 0);
}

#[test]
fn a_recording_cut_short_replays_up_to_the_cut_and_says_so() {
    let whole = recording();
    let (stdout, stderr, code) = replay(&whole[..whole.len() - 20], "cut", &["--format", "ndjson"]);
    assert_eq!(code, 0);
    assert!(stdout.contains(r#""type":"connection""#), "{stdout}");
    let summary: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(summary["type"], "summary");
    assert!(summary["remarks"][0].as_str().unwrap().contains("cut short"), "{summary}");
    assert!(stderr.contains("cut short"), "{stderr}");
}

#[test]
fn a_damaged_block_ends_the_replay_and_is_named() {
    let mut damaged = recording();
    let last = damaged.len() - 10;
    damaged[last] ^= 0xff;
    let (stdout, stderr, code) = replay(&damaged, "damaged", &[]);
    assert_eq!(code, 0);
    assert!(stdout.contains("10.0.0.2:443"), "what came before the damage is shown: {stdout}");
    assert!(stderr.contains("damaged"), "{stderr}");
}

#[test]
fn what_is_no_recording_is_refused_with_the_reason() {
    for (name, content, expected) in [
        ("empty", Vec::new(), "empty"),
        ("foreign", b"GIF89a and so on and so forth".to_vec(), "not a conntracer recording"),
        ("head", recording()[..30].to_vec(), "header"),
        ("version", other_abi(), "version"),
    ] {
        let (stdout, stderr, code) = replay(&content, name, &[]);
        assert_eq!((code, stdout.as_str()), (1, ""), "{name}: {stderr}");
        assert!(stderr.to_lowercase().contains(expected), "{name}: {stderr}");
    }
}

fn other_abi() -> Vec<u8> {
    let mut bytes = recording();
    bytes[12..16].copy_from_slice(&(ABI_VERSION + 1).to_le_bytes());
    bytes
}

#[test]
fn a_missing_recording_is_named() {
    let (_, stderr, code) = outcome(conntracer().args(["replay", "/nonexistent/file.rec"]));
    assert_eq!(code, 1);
    assert!(stderr.contains("/nonexistent/file.rec"), "{stderr}");
}

#[test]
fn an_unwritable_output_is_refused_with_a_way_out() {
    let scratch = Scratch::new("unwritable");
    let file = scratch.file(&recording());
    let (_, stderr, code) = outcome(conntracer().arg("replay").arg(&file).args(["--output", "/nonexistent/out"]));
    assert_eq!(code, 1);
    assert!(stderr.contains("/nonexistent/out") && stderr.contains("choose a file"), "{stderr}");
}

#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let scratch = Scratch::new("full");
    let file = scratch.file(&recording());
    let (_, stderr, code) = outcome(conntracer().arg("replay").arg(&file).args(["--output", "/dev/full"]));
    assert_eq!(code, 1);
    assert!(stderr.contains("/dev/full") && stderr.contains("No space left"), "{stderr}");
}

#[test]
fn outputs_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new("private");
    let (file, output) = (scratch.file(&recording()), scratch.0.join("out"));
    assert_eq!(outcome(conntracer().arg("replay").arg(&file).arg("--output").arg(&output)).2, 0);
    assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let scratch = Scratch::new("pipe");
    let file = scratch.file(&recording());
    let mut child = Process::new(assert_cmd::cargo::cargo_bin("conntracer"))
        .arg("replay")
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().success(), "{stderr}");
    assert_eq!(stderr, "");
}

#[test]
fn wrong_usage_exits_with_2_and_keeps_standard_output_clean() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["trace", "--port", "70000"],
        &["trace", "--remote", "example.org"],
        &["trace", "-p", "1", "--comm", "x"],
        &["trace", "-d", "0"],
        &["trace", "--ring-size", "3"],
        &["trace", "--exchange-ring-size", "2048"],
        &["trace", "--max-memory", "31"],
        &["trace", "--max-overhead", "0"],
        &["trace", "--detail", "everything"],
        &["trace", "-v", "--no-exchanges"],
        &["run"],
        &["replay"],
    ] {
        let (stdout, stderr, code) = outcome(conntracer().args(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(!stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_size_or_share_that_makes_no_sense_is_refused_with_those_that_do() {
    for (arguments, allowed) in [
        (["--ring-size", "3"], "power of two from 1 to 1024"),
        (["--exchange-ring-size", "0"], "power of two from 1 to 1024"),
        (["--max-memory", "31"], "32..=1048576"),
        (["--max-overhead", "much"], "from 0.1 to 10000"),
    ] {
        let (_, stderr, code) = outcome(conntracer().arg("trace").args(arguments));
        assert_eq!(code, 2, "{arguments:?}");
        assert!(stderr.contains(allowed), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_pid_that_does_not_exist_is_named() {
    // Beyond what the kernel ever gives out.
    let (stdout, stderr, code) = outcome(conntracer().args(["trace", "-p", "4194305"]));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("4194305"), "{stderr}");
}

#[test]
fn too_many_filters_are_refused_before_anything_is_attached() {
    let ports: Vec<String> = (1..=17).map(|port| format!("--port={port}")).collect();
    let (_, stderr, code) = outcome(conntracer().arg("trace").args(&ports));
    assert_eq!(code, 1);
    assert!(stderr.contains("17 --port values") && stderr.contains("16"), "{stderr}");
}

#[test]
fn each_command_has_two_examples_in_its_help() {
    for command in ["run", "trace", "replay", "doctor"] {
        let (stdout, _, code) = outcome(conntracer().args([command, "--help"]));
        assert_eq!(code, 0);
        let examples = stdout.split("Examples:").nth(1).unwrap_or_default();
        let count = examples.lines().filter(|line| line.contains(&format!("conntracer {command}"))).count();
        assert!(count >= 2, "{command}: {stdout}");
    }
}

#[test]
fn each_error_message_in_troubleshooting_is_one_the_program_can_say() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/troubleshooting.md")).unwrap();
    let sources = all_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let quoted: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`')).collect();
    assert!(quoted.len() >= 10, "only {} messages are explained", quoted.len());
    for message in quoted {
        // The page writes `...` where the program puts a name.
        for part in message.split("...").map(str::trim).filter(|part| !part.is_empty()) {
            assert!(sources.contains(part), "no source says '{part}'");
        }
    }
}

/// All source text, its string continuations joined.
fn all_sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text += &all_sources(&path);
        } else {
            let source = fs::read_to_string(&path).unwrap();
            for line in source.lines() {
                match line.strip_suffix('\\') {
                    Some(begun) => text += begun.trim_start(),
                    None => {
                        text += line.trim_start();
                        text.push('\n');
                    }
                }
            }
        }
    }
    text
}
