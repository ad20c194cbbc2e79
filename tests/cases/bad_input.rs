//! Whatever is wrong is said clearly, and nothing is lost.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use harness::{Exit, Family, Line, Pair, Trace, Tracer, conntracer, eventually, output_of, tracer_path};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

#[test]
fn no_such_process() {
    // Above any pid_max.
    conntracer(&[], &["trace", "-p", "4194305"]).assert_fails(1, &["4194305", "no process"]);
}

#[test]
fn wrong_usage_ends_with_code_2() {
    for args in [&["trace", "-p", "x"][..], &["trace", "--role", "both"], &["trace", "--remote", "nowhere"], &["walk"]]
    {
        assert_eq!(conntracer(&[], args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_missing_capability_is_named_with_the_way_to_get_it() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a folder for all");
    let binary = dir.path().join("conntracer");
    fs::copy(tracer_path(), &binary).expect("a copy that everybody may run");
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --";
    let output = output_of(&format!("{nobody} {} trace -d 1", binary.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let exit = Exit { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) };
    exit.assert_fails(1, &["CAP_BPF", "CAP_PERFMON", "sudo"]);
}

#[test]
fn an_output_that_cannot_be_written_is_told_before_tracing_starts() {
    for option in ["--output", "--record"] {
        let exit = conntracer(&[], &["trace", option, "/no/such/folder/file"]);
        exit.assert_fails(1, &["/no/such/folder/file"]);
        assert!(!exit.stderr.contains("conntracer: tracing"), "{exit:#?}");
    }
}

/// A file system that is soon full.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let size = format!("size={size}");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .expect("a small file system");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

/// Makes ten connections, and once `written` says that the file tells of them more than fit on the disk. Waits for the tracer to give
/// up.
fn fill(trace: &Tracer, written: impl Fn() -> usize) {
    const FIRST: usize = 10;
    let connect = |count| {
        for _ in 0..count {
            let mut pair = Pair::new(Family::V4);
            pair.close_client();
        }
    };
    connect(FIRST);
    eventually("the first to be written", || (written() >= FIRST).then_some(()));
    connect(200);
    assert!(trace.ends_within(Duration::from_secs(10)), "400 connections fit on the small disk: {}", trace.stderr());
}

#[test]
fn a_full_disk_ends_the_trace_with_an_error_and_keeps_what_was_written() {
    let disk = SmallDisk::new("64k");
    let file = disk.path().join("out.ndjson");
    let path = file.to_str().expect("UTF-8");
    let trace = Tracer::trace(&["--output", path]);
    let connections = || {
        // The last line may be half written for now.
        let text = fs::read_to_string(&file).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        harness::parse_lines(whole).iter().filter(|line| matches!(line, Line::Connection(_))).count()
    };
    fill(&trace, connections);
    let end = trace.await_end();
    assert_eq!(end.status.code(), Some(1), "{}", end.stderr);
    assert!(end.stderr.contains("No space left") && end.stderr.contains("out.ndjson"), "{}", end.stderr);

    let text = fs::read_to_string(&file).expect("what was written");
    assert!(text.ends_with('\n'), "no line is cut: {}", &text[text.len().saturating_sub(100)..]);
    assert!(connections() >= 10, "{text}");
}

#[test]
fn a_full_disk_leaves_a_recording_that_replays_up_to_there() {
    // Each event holds all that is known: the first ten connections, both ends traced, take about 40 KB.
    let disk = SmallDisk::new("192k");
    let file = disk.path().join("trace.rec");
    let file = file.to_str().expect("UTF-8");
    let trace = Tracer::trace(&["--record", file]);
    let replay = || {
        let exit = conntracer(&[], &["replay", "--format", "ndjson", file]);
        Trace::of_text(exit.status, &exit.stdout, exit.stderr)
    };
    fill(&trace, || replay().connections.len());
    let end = trace.await_end();
    assert_eq!(end.status.code(), Some(1), "{}", end.stderr);
    assert!(end.stderr.contains("No space left") && end.stderr.contains("recording"), "{}", end.stderr);

    let replayed = replay();
    assert!(replayed.connections.len() >= 10, "{replayed:#?}");
}

#[test]
fn what_is_no_recording_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    fs::write(path("empty"), "").expect("a file");
    fs::write(path("text"), "not a recording, but long enough to hold a header of one".repeat(20)).expect("a file");
    for name in ["empty", "text", "missing"] {
        conntracer(&[], &["replay", &path(name)]).assert_fails(1, &[name]);
    }
}

#[test]
fn a_reader_that_goes_away_ends_a_trace_without_an_error() {
    let mut command = Command::new("bash");
    // The status is the tracer's if that is not 0.
    let line = format!("set -o pipefail; {} trace --format ndjson -d 60 | head -n 1", tracer_path().display());
    command.args(["-c", &line]);
    let trace = Tracer::start(command);
    // Detaching all programs takes an emulated kernel some seconds.
    let limit = Instant::now() + Duration::from_secs(30);
    while !trace.has_ended() {
        let mut pair = Pair::new(Family::V4);
        pair.close_client();
        pair.rest(10);
        assert!(Instant::now() < limit, "the trace goes on although nobody reads: {}", trace.stderr());
    }
    let end = trace.await_end();
    assert!(end.status.success(), "{}", end.stderr);
    assert!(!end.stderr.contains("panicked") && !end.stderr.to_lowercase().contains("broken pipe"), "{}", end.stderr);
}

#[test]
fn a_kernel_without_btf_is_refused_with_the_reason() {
    let hide = "mount --make-rprivate / && mount -t tmpfs none /sys/kernel/btf && exec \"$0\" \"$@\"";
    let exit = conntracer(&["unshare", "-m", "sh", "-c", hide], &["trace", "-d", "1"]);
    assert_eq!(exit.status.code(), Some(1), "{exit:#?}");
    assert!(exit.stderr.contains("no BTF") && exit.stderr.contains("CONFIG_DEBUG_INFO_BTF"), "{exit:#?}");
}

#[test]
fn a_missing_hook_is_named_with_what_the_output_lacks_and_the_rest_goes_on() {
    let trace = Tracer::trace(&["--without-hook", "tcp_close"]);
    let mut pair = Pair::new(Family::V4);
    pair.close_client();
    let ends = pair.client_ends();
    let seen = trace.connection(ends);
    let trace = trace.stop();
    assert_eq!(seen.close().released_at, None);
    let hook =
        trace.summary.as_ref().expect("a summary").hooks.iter().find(|hook| hook.name == "tcp_close").expect("named");
    assert_eq!(hook.backend, None);
    assert!(hook.without.as_deref().is_some_and(|without| without.contains("released_at")), "{hook:#?}");
}
