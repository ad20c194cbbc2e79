//! What works with which rights, row by row of `docs/permissions.md`: with them it works, without them it is said what is missing.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use harness::{
    Actor, Ends, Family, Namespace, Nobody, Pair, Rights, Trace, Tracer, eventually, listen, public_folder, stdout_of,
};

/// Bits of the sets of capabilities.
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const BPF: u64 = 1 << 39;

/// What every trace takes.
const TRACING: &[&str] = &["bpf", "perfmon"];

/// The hooks load soonest so.
const LIGHT: &[&str] = &["--detail", "connections"];

fn and(more: &[&'static str]) -> Nobody {
    Nobody::with(&[TRACING, more].concat())
}

fn trace(by: &Nobody, args: &[&str]) -> Tracer {
    Tracer::start(by.command(&[&["trace", "--format", "ndjson"], args].concat()))
}

fn own_pid() -> String {
    std::process::id().to_string()
}

/// Only 5.10 asks for CAP_BPF at each look into a map, among the kernels of these tests.
fn guards_maps() -> bool {
    stdout_of("uname --kernel-release").starts_with("5.10.")
}

/// Waits until the tracer has given up what it does not need, and returns what each of its threads is left with.
fn left_to(trace: &Tracer) -> Vec<Rights> {
    let threads = eventually("the rights to be given up", || {
        Some(Rights::of_threads(trace.pid())).filter(|threads| threads.iter().all(|(_, rights)| rights.no_new_privs))
    });
    // What writes the output needs none.
    let (writers, others): (Vec<_>, Vec<_>) = threads.into_iter().partition(|(name, _)| name == "output");
    for (_, rights) in writers {
        assert_eq!(
            (rights.effective, rights.permitted, rights.inheritable, rights.ambient),
            (0, 0, 0, 0),
            "{rights:#x?}"
        );
    }
    others.into_iter().map(|(_, rights)| rights).collect()
}

#[test]
fn tracing_takes_two_rights_and_they_are_given_up_while_it_goes_on() {
    for missing in TRACING {
        let held: Vec<_> = TRACING.iter().filter(|right| *right != missing).copied().collect();
        let exit = Nobody::with(&held).conntracer(&["trace", "-d", "1"]);
        let named = format!("tracing needs CAP_{}", missing.to_uppercase());
        exit.assert_fails(1, &[&named, "sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search=ep"]);
    }
    let trace = trace(&and(&[]), LIGHT);
    let rights = left_to(&trace);
    let kept = if guards_maps() { BPF } else { 0 };
    for rights in &rights {
        assert_eq!((rights.effective, rights.permitted), (kept, kept), "{rights:#x?}");
        assert_eq!((rights.inheritable, rights.ambient), (0, 0), "{rights:#x?}");
    }
    let mut pair = Pair::new(Family::V4);
    pair.exchange(3, 4);
    pair.close_client();
    pair.release_server();
    let seen = trace.connection(pair.client_ends());
    seen.assert_bytes(3, 4);
    // This process is root's.
    assert_eq!((seen.pid, seen.exe.as_deref()), (std::process::id(), None));
    let trace = trace.stop();
    trace.assert_nothing_lost();
    assert!(trace.stderr.contains("of other users cannot be told: needs CAP_SYS_PTRACE"), "{}", trace.stderr);
}

#[test]
fn root_gives_up_all_but_what_names_processes() {
    let listener = listen(Family::V4);
    let trace = Tracer::trace(&[LIGHT, &["-p", &own_pid()]].concat());
    let kept = SYS_PTRACE | DAC_READ_SEARCH | if guards_maps() { BPF } else { 0 };
    for rights in left_to(&trace) {
        assert_eq!((rights.effective, rights.permitted), (kept, kept), "{rights:#x?}");
        assert_eq!((rights.inheritable, rights.ambient, rights.bounding), (0, 0, 0), "{rights:#x?}");
    }
    let mut pair = Pair::through(&listener);
    pair.close_client();
    pair.release_server();
    assert!(trace.connection(pair.client_ends()).exe.is_some());
    trace.stop().assert_nothing_lost();
}

/// A trace of this process with these rights beside a socket that is older.
fn trace_beside_older(by: &Nobody) -> (Trace, Ends) {
    let mut older = Pair::new(Family::V4);
    older.exchange(5, 6);
    let trace = trace(by, &[LIGHT, &["-p", &own_pid()]].concat());
    (trace.stop(), older.client_ends())
}

#[test]
fn owners_of_older_sockets_take_two_rights() {
    let (alone, older) = trace_beside_older(&and(&["sys_ptrace"]));
    assert!(alone.connections_of(older).is_empty(), "{alone:#?}");
    assert!(alone.stderr.contains("have no known owner: needs CAP_DAC_READ_SEARCH"), "{}", alone.stderr);

    let (both, older) = trace_beside_older(&and(&["sys_ptrace", "dac_read_search"]));
    let seen = both.connection(older);
    assert_eq!((seen.pid, seen.preexisting, seen.exe.is_some()), (std::process::id(), true, true), "{seen:#?}");
    seen.assert_bytes(5, 6);
    assert!(!both.stderr.contains("no known owner"), "{}", both.stderr);
}

#[test]
fn sockets_in_another_network_namespace_take_admin() {
    let mut actor = Namespace::run(|_| {
        let mut actor = Actor::new();
        actor.listen();
        actor
    });
    let to = actor.listen();
    let ends = actor.connect(to);
    let pid = actor.pid().to_string();
    let traced = |more: &[&'static str]| trace(&and(more), &[LIGHT, &["-p", &pid]].concat());

    let without = traced(&["sys_ptrace", "dac_read_search"]).stop();
    assert!(
        without.stderr.contains("cannot enter it") && without.stderr.contains("needs CAP_SYS_ADMIN"),
        "{without:#?}"
    );
    assert!(without.connections_of(ends).is_empty(), "{without:#?}");

    let with = traced(&["sys_ptrace", "dac_read_search", "sys_admin"]);
    // It is kept: that namespace is to be entered again when the trace stops.
    for rights in left_to(&with) {
        let bpf = if guards_maps() { BPF } else { 0 };
        assert_eq!(rights.effective, SYS_ADMIN | SYS_PTRACE | DAC_READ_SEARCH | bpf, "{rights:#x?}");
    }
    let with = with.stop();
    let seen = with.connection(ends);
    assert!(seen.open && seen.preexisting, "{seen:#?}");
    assert!(!with.stderr.contains("needs CAP"), "{}", with.stderr);
}

#[test]
fn probes_on_libraries_take_admin() {
    const LOOKUP: &str = "import socket; socket.getaddrinfo('localhost', 80)";
    let folder = public_folder();
    let looked_up = |more: &[&'static str]| {
        let out = folder.join(format!("{}.ndjson", more.len()));
        fs::write(&out, "").expect("a file");
        fs::set_permissions(&out, fs::Permissions::from_mode(0o666)).expect("a file for all");
        let out = out.to_str().expect("UTF-8");
        let exit = and(more).conntracer(&["run", "--format", "ndjson", "--output", out, "--", "python3", "-c", LOOKUP]);
        let text = fs::read_to_string(out).expect("the output");
        Trace::of_text(exit.status, &text, exit.stderr)
    };
    let is_there = |trace: &Trace| trace.lookups.iter().any(|lookup| lookup.name == "localhost");

    let with = looked_up(&["sys_admin"]);
    assert!(is_there(&with), "{with:#?}");
    let without = looked_up(&[]);
    // The kernels of these tests are Debian's, which ask for it by their setting, all of them.
    assert!(without.stderr.contains("cannot put a probe on getaddrinfo"), "{}", without.stderr);
    assert!(without.stderr.contains("needs CAP_SYS_ADMIN"), "{}", without.stderr);
    assert!(!is_there(&without), "{without:#?}");

    let kprobes = and(&[]).conntracer(&[&["trace", "-d", "1", "--backend", "kprobe"], LIGHT].concat());
    kprobes.assert_fails(1, &["cannot hook", "needs CAP_SYS_ADMIN"]);
}

#[test]
fn a_library_that_was_deleted_takes_the_right_to_open_it() {
    let folder = public_folder();
    let library = folder.join("libdeleted.so");
    fs::copy("/lib/x86_64-linux-gnu/libz.so.1", &library).expect("a library");
    let mut command = Command::new("python3");
    let script = format!("import ctypes; ctypes.CDLL('{}'); print(); input()", library.display());
    let mut holder =
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    let mut line = [0];
    std::io::Read::read_exact(holder.stdout.as_mut().expect("piped"), &mut line).expect("it has loaded the library");
    fs::remove_file(&library).expect("deleted");
    let pid = holder.id().to_string();
    let said = |more: &[&'static str]| and(more).conntracer(&["trace", "-d", "1", "-p", &pid]).stderr;
    let without = said(&["sys_ptrace", "dac_read_search"]);
    let with = said(&["sys_ptrace", "dac_read_search", "checkpoint_restore"]);
    holder.kill().expect("it waits");
    holder.wait().expect("it ended");
    let told = "libdeleted.so: was deleted or replaced while in use (needs CAP_CHECKPOINT_RESTORE";
    assert!(without.contains(told), "{without}");
    assert!(!with.contains("libdeleted.so"), "{with}");
}

/// Runs its arguments under a filter that answers `bpf` with EPERM, as that of a container engine does which does not know CAP_BPF.
const UNDER_A_FILTER: &str = r#"
import ctypes, os, struct, sys
LOAD_NUMBER, JUMP_IF_EQUAL, RETURN, BPF = 0x20, 0x15, 0x06, 321
EPERM, ALLOW = 0x00050001, 0x7fff0000
rules = [(LOAD_NUMBER, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, BPF), (RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(code)))
prctl = ctypes.CDLL(None).prctl
NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2
assert prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and prctl(SECCOMP, FILTER, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn a_filter_of_system_calls_that_forbids_what_the_rights_allow_is_named() {
    let by = and(&[]);
    let under_a_filter = |args: &[&str]| {
        by.wrap("python3").args(["-c", UNDER_A_FILTER]).arg(by.program()).args(args).output().expect("it runs")
    };
    let trace = under_a_filter(&["trace", "-d", "1"]);
    let said = String::from_utf8_lossy(&trace.stderr);
    assert!(!trace.status.success(), "{said}");
    assert!(said.contains("a seccomp filter is in force") && said.contains("seccomp=unconfined"), "{said}");

    let doctor = under_a_filter(&["doctor", "--json", "--no-self-test"]);
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    assert_eq!(report["surroundings"]["is_filtered"], true, "{report:#}");
    assert_eq!(report["can_trace"], false, "{report:#}");
    assert!(report["obstacles"].to_string().contains("a seccomp filter is in force"), "{report:#}");
}

#[test]
fn memory_beyond_the_limit_takes_a_right_where_the_kernel_counts_it() {
    const LIMIT: u64 = 64 << 10;
    let traced = |more: &[&'static str]| and(more).locking(LIMIT).conntracer(&[&["trace", "-d", "1"], LIGHT].concat());
    let with = traced(&["sys_resource"]);
    assert!(with.status.success(), "{with:#?}");
    let without = traced(&[]);
    // Of the kernels of these tests only 5.10 counts it.
    if guards_maps() {
        without.assert_fails(1, &["cannot load the BPF object", "needs CAP_SYS_RESOURCE"]);
    } else {
        assert!(without.status.success(), "{without:#?}");
    }
}

/// A program that shows its own rights and that of a program with the set-user-id bit.
fn script() -> String {
    let folder = public_folder();
    let id = folder.join("id");
    fs::copy("/usr/bin/id", &id).expect("a copy");
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).expect("the set-user-id bit");
    format!("cat /proc/self/status; {}", id.display())
}

#[test]
fn the_command_of_run_gets_what_the_user_has_and_no_more() {
    let script = script();
    let words = ["run", "--detail", "connections", "--output", "/dev/null", "--", "sh", "-c", &script];
    let by_file = Nobody::with_file_capabilities(&["bpf", "perfmon", "sys_ptrace", "dac_read_search"]);
    let exit = by_file.conntracer(&words);
    assert!(exit.status.success(), "{exit:#?}");
    let rights = Rights::in_status(&exit.stdout);
    assert_eq!((rights.permitted, rights.effective, rights.inheritable, rights.ambient), (0, 0, 0, 0), "{rights:#x?}");
    assert!(!rights.no_new_privs, "{rights:#x?}");
    assert!(exit.stdout.contains("euid=0(root)"), "set-user-id programs work as without a tracer: {}", exit.stdout);

    // What a user was given for all programs is the command's too.
    let given = Rights::in_status(&and(&[]).conntracer(&words).stdout);
    let by_user = Rights::in_status(&String::from_utf8_lossy(
        &and(&[]).wrap("cat").arg("/proc/self/status").output().expect("cat").stdout,
    ));
    assert_eq!(given, by_user);
    assert_ne!(given.permitted, 0);
}

#[test]
fn a_program_with_file_capabilities_traces_and_gives_them_up() {
    let by_file = Nobody::with_file_capabilities(&["bpf", "perfmon", "sys_ptrace", "dac_read_search"]);
    let mut older = Pair::new(Family::V4);
    let listener: TcpListener = listen(Family::V4);
    let trace = trace(&by_file, &[LIGHT, &["-p", &own_pid()]].concat());
    let kept = SYS_PTRACE | DAC_READ_SEARCH | if guards_maps() { BPF } else { 0 };
    for rights in left_to(&trace) {
        assert_eq!((rights.effective, rights.permitted), (kept, kept), "{rights:#x?}");
    }
    let mut younger = Pair::through(&listener);
    for pair in [&mut older, &mut younger] {
        pair.exchange(1, 2);
        pair.close_client();
        pair.release_server();
    }
    assert!(trace.connection(older.client_ends()).preexisting);
    trace.connection(younger.client_ends()).assert_bytes(1, 2);
    trace.stop().assert_nothing_lost();
}
