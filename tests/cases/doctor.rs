//! What `doctor` says is so.

use harness::{Exit, Nobody, conntracer};
use serde_json::Value;

/// Every hook, with the backend that is the first choice.
const HOOKS: &[(&str, &str)] = &[
    ("sched_process_exit", "tp_btf"),
    ("sched_process_exec", "tp_btf"),
    ("sched_process_fork", "tp_btf"),
    ("udp_sendmsg", "fentry"),
    ("udpv6_sendmsg", "fentry"),
    ("udp_recvmsg", "fexit"),
    ("udpv6_recvmsg", "fexit"),
    ("tcp_close", "fentry"),
    ("tcp_receive_reset", "tp_btf"),
    ("tcp_send_reset", "tp_btf"),
    ("tcp_retransmit_skb", "tp_btf"),
    ("inet_sock_set_state", "tp_btf"),
    ("tcp_connect", "fentry"),
    ("tcp_v4_connect", "fexit"),
    ("tcp_v6_connect", "fexit"),
    ("inet_csk_accept", "fexit"),
    ("security_sock_graft", "fentry"),
    ("tcp_sendmsg_locked", "fentry"),
    ("tcp_recvmsg", "fexit"),
];

#[track_caller]
fn report(exit: &Exit) -> Value {
    serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:#?}"))
}

#[track_caller]
fn doctor(arguments: &[&str]) -> (Exit, Value) {
    let exit = conntracer(&[], &[&["doctor", "--json"], arguments].concat());
    let report = report(&exit);
    (exit, report)
}

/// The hooks of a report, each with its backend; `-` where it has none.
fn hooks(report: &Value) -> Vec<(&str, &str)> {
    let hooks = report["tracing"]["hooks"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    hooks.iter().map(|hook| (hook["name"].as_str().expect("a name"), hook["backend"].as_str().unwrap_or("-"))).collect()
}

#[track_caller]
fn assert_passed(exit: &Exit, report: &Value) {
    assert!(exit.status.success() && report["can_trace"] == true, "{exit:#?}");
    let test = &report["self_test"];
    assert_eq!(test["passed"], true, "{test:#}");
    // One record of each end, and two exchanges each: a record that is missing has no fields to be right.
    let checks = test["checks"].as_array().expect("checks");
    for record in ["client", "client's exchange 0", "client's exchange 1", "server", "server's exchange 1"] {
        assert!(checks.iter().any(|check| check["record"] == record), "{record}: {test:#}");
    }
    assert!(exit.stderr.is_empty(), "data is on stdout, and there was nothing to say: {}", exit.stderr);
}

#[test]
fn every_hook_gets_its_first_choice_and_a_connection_is_told_as_it_was() {
    let (exit, report) = doctor(&[]);
    assert_passed(&exit, &report);
    let found = hooks(&report);
    let release = report["kernel"]["release"].as_str().expect("a release");
    let is_arm = report["kernel"]["machine"] == "aarch64";
    // On 64-bit Arm functions can be hooked by fentry and fexit from 6.4 on.
    let has_trampolines = !(is_arm && release.starts_with("6.1."));
    for hook in HOOKS.iter().filter(|(_, backend)| has_trampolines || *backend == "tp_btf") {
        assert!(found.contains(hook), "{hook:?}: {found:?}");
    }
    // It takes helpers for typed programs that 5.10 lacks, and typed programs on functions.
    let has_storage = has_trampolines && !release.starts_with("5.10.");
    assert_eq!(report["tracing"]["records_kept_in"] == "socket storage", has_storage, "{report:#}");
    assert_eq!(found, page_says(&report, "auto"), "docs/kernel-support.md; cargo xtask kernel-support writes it anew");

    assert_eq!(report["rights"]["lacking"], serde_json::json!([]));
    assert!(
        report["rights"]["held"].as_array().is_some_and(|held| held.contains(&"CAP_SYS_ADMIN".into())),
        "{report:#}"
    );
    assert_eq!(report["tracing"]["probes_refused"].is_null(), !is_arm, "{report:#}");
    let libraries = report["libraries"]["found"].as_array().expect("libraries");
    assert!(libraries.iter().any(|library| library["product"].as_str().is_some_and(|name| name.starts_with("libc"))));
    assert_eq!(report["surroundings"]["is_in_host_pids"], true);
}

#[test]
fn the_fallback_serves_every_hook_and_tells_a_connection_as_it_was() {
    let (exit, report) = doctor(&["--backend", "kprobe"]);
    assert_passed(&exit, &report);
    let found = hooks(&report);
    // By kprobes accepts are taken from that function anyway.
    for (hook, _) in HOOKS.iter().filter(|(hook, _)| *hook != "security_sock_graft") {
        let backend = found.iter().find(|(name, _)| name == hook).map(|(_, backend)| *backend);
        let backend = backend.unwrap_or_else(|| panic!("{hook}: {found:?}"));
        assert!(
            ["kprobe", "kretprobe", "raw_tracepoint"].iter().any(|kind| backend.contains(kind)),
            "{hook}: {backend}"
        );
    }
    assert_eq!(
        found,
        page_says(&report, "kprobe"),
        "docs/kernel-support.md; cargo xtask kernel-support writes it anew"
    );
}

#[test]
fn what_is_not_told_as_it_was_fails_the_self_test() {
    // Without the hook on sends nothing tells what is asked and what answers.
    let exit = conntracer(&[], &["doctor", "--without-hook", "tcp_sendmsg_locked"]);
    assert_eq!(exit.status.code(), Some(1), "{exit:#?}");
    let line =
        |name: &str| exit.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{exit:#?}"));
    assert!(line("self-test").contains("FAILED"), "{exit:#?}");
    assert!(line("verdict").contains("cannot trace"), "{exit:#?}");
}

#[test]
fn who_may_not_trace_is_told_what_is_missing_and_the_command_that_gives_it() {
    let exit = Nobody::with(&[]).conntracer(&["doctor", "--json"]);
    let report = report(&exit);
    assert_eq!((exit.status.code(), &report["can_trace"]), (Some(1), &Value::Bool(false)));
    assert_eq!((&report["tracing"], &report["self_test"]), (&Value::Null, &Value::Null));
    assert_eq!(report["rights"]["held"], serde_json::json!([]));
    let command = report["rights"]["command"].as_str().expect("a command");
    assert!(command.starts_with("sudo setcap ") && command.contains("cap_bpf"), "{command}");
    let obstacles = report["obstacles"].as_array().expect("obstacles");
    assert!(obstacles.iter().any(|obstacle| obstacle["what"] == "rights"), "{report:#}");
}

/// What the page's table of a backend says of this kernel: every hook that it has there.
fn page_says<'t>(report: &Value, backend: &str) -> Vec<(&'t str, &'t str)> {
    const PAGE: &str = include_str!("../../docs/kernel-support.md");
    let mark = format!("<!-- table: {backend} -->\n");
    let table = PAGE.split_once(&mark).and_then(|(_, rest)| rest.split_once("\n\n")).expect("a table").0;
    let mut rows = table.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let kernel = &report["kernel"];
    let (release, machine) = (kernel["release"].as_str().expect("a release"), kernel["machine"].as_str());
    let heads = rows.next().expect("a head");
    // Kernels of other processors than x86-64 are named by them too.
    let parts = |head: &str| match head.split_once('-') {
        Some((version, machine)) => (version.to_owned(), machine.to_owned()),
        None => (head.to_owned(), "x86_64".to_owned()),
    };
    let is_of_machine = |head: &&str| machine == Some(parts(head).1.as_str());
    let is_its = |head: &&str| is_of_machine(head) && release.starts_with(&format!("{}.", parts(head).0));
    // The newest kernel may be a newer one than when the page was written.
    let column = heads.iter().position(is_its).or_else(|| heads.iter().rposition(is_of_machine)).expect("a column");
    rows.skip(1).filter(|row| row[column] != "not there").map(|row| (row[0].trim_matches('`'), row[column])).collect()
}
