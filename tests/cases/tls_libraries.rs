//! TLS libraries in a process's life: loaded before the trace or in it, replaced or deleted while in use; and programs that bear no
//! interference.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use harness::{
    Connection, Exit, Trace, Tracer, client_binary, output_within,
    tls::{Client, Joins, Load, Nginx, Request, Site, Stepwise, in_musl_container},
    traced_run,
};

/// Until probes are on a library that was mapped: user space is told at once, but the machine is slow.
const SETTLES: Duration = Duration::from_secs(5);

/// Few: these tests are about libraries.
fn load(nginx: &Nginx, requests: u32) -> Load {
    Load { to: nginx.address(Site::Tls13), connections: 5, requests }
}

/// Fails unless all that nginx was asked for is told of the right connection.
#[track_caller]
fn assert_all_joined(trace: &Trace, nginx: &Nginx, load: &Load) {
    let joins = Joins::of_clients(trace, load.to, &nginx.asked(load.total()));
    joins.assert_joined(100.0);
    trace.assert_nothing_lost();
}

#[test]
fn a_library_that_is_loaded_later() {
    let nginx = Nginx::start();
    let load = load(&nginx, 2);
    let mut client = Stepwise::start(&load, None);
    let trace = Tracer::trace(&["-p", &client.pid().to_string()]);
    thread::sleep(Duration::from_secs(5));
    client.take(&["load"]);
    thread::sleep(SETTLES);
    client.take(&["connect", "request", "request"]);
    client.end();
    assert_all_joined(&trace.stop(), &nginx, &load);
}

#[test]
fn sessions_that_are_older_than_the_trace_are_joined_by_what_they_send_next() {
    let nginx = Nginx::start();
    let load = load(&nginx, 3);
    let mut client = Stepwise::start(&load, None);
    client.take(&["load", "connect", "request"]);
    let trace = Tracer::trace(&["-p", &client.pid().to_string()]);
    thread::sleep(SETTLES);
    client.take(&["request", "request"]);
    client.end();
    let trace = trace.stop();
    // The first request was before the trace.
    assert_heads_of_older_sessions(&trace, &nginx, &load, 1);
}

/// Holds the heads of sessions that were made before the trace, with so many requests, against what nginx says of the others.
#[track_caller]
fn assert_heads_of_older_sessions(trace: &Trace, nginx: &Nginx, load: &Load, before: usize) {
    let asked = nginx.asked(load.total());
    let its: Vec<_> = trace.connections.iter().filter(|connection| connection.remote == load.to).collect();
    assert_eq!(its.len(), load.connections as usize, "{trace:#?}");
    for connection in its {
        assert!(connection.preexisting, "{connection:#?}");
        let exchanges = trace.exchanges_of(connection);
        let hosts: Vec<_> = exchanges.iter().map(|e| e.http.as_ref().and_then(|http| http.host.clone())).collect();
        let expected: Vec<_> = asked[&connection.local.port()][before..].iter().cloned().map(Some).collect();
        assert_eq!(hosts, expected, "all requests in the trace: {connection:#?}");
    }
}

/// A folder with copies of the system's libraries.
fn copies() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["libssl.so.3", "libcrypto.so.3"] {
        copy_over(name, dir.path());
    }
    dir
}

/// Puts a new file in the place of a copy, as an upgrade does.
fn copy_over(name: &str, dir: &Path) {
    let new = dir.join("new");
    fs::copy(Path::new("/usr/lib/x86_64-linux-gnu").join(name), &new).expect("a copy");
    fs::rename(new, dir.join(name)).expect("the copy in its place");
}

#[test]
fn a_library_that_is_replaced_while_in_use() {
    let [nginx, other] = [(); 2].map(|()| Nginx::start());
    let loads = [load(&nginx, 3), load(&other, 3)];
    let libraries = copies();
    let mut before = Stepwise::start(&loads[0], Some(libraries.path()));
    before.take(&["load", "connect"]);
    let mut after = Stepwise::start(&loads[1], Some(libraries.path()));
    let trace = Tracer::trace(&["-p", &before.pid().to_string(), "-p", &after.pid().to_string()]);
    thread::sleep(SETTLES);
    before.take(&["request"]);
    copy_over("libssl.so.3", libraries.path());
    after.take(&["load"]);
    thread::sleep(SETTLES);
    after.take(&["connect", "request"]);
    for _ in 0..2 {
        before.take(&["request"]);
    }
    after.take(&["request", "request"]);
    before.end();
    after.end();
    let trace = trace.stop();
    assert_all_joined(&trace, &other, &loads[1]);
    assert_heads_of_older_sessions(&trace, &nginx, &loads[0], 0);
}

#[test]
fn a_library_that_was_deleted_while_in_use() {
    let nginx = Nginx::start();
    let load = load(&nginx, 2);
    let libraries = copies();
    let mut client = Stepwise::start(&load, Some(libraries.path()));
    client.take(&["load"]);
    drop(libraries);
    let trace = Tracer::trace(&["-p", &client.pid().to_string()]);
    thread::sleep(SETTLES);
    client.take(&["connect", "request", "request"]);
    client.end();
    assert_all_joined(&trace.stop(), &nginx, &load);
}

#[test]
fn a_container_with_another_c_library_and_a_library_of_its_own() {
    let nginx = Nginx::start();
    let load = Load { to: nginx.address(Site::Tls13), connections: 50, requests: 3 };
    let (exit, trace) = traced_run(&[], &in_musl_container(&load));
    assert!(exit.status.success(), "{exit:#?}");
    assert_all_joined(&trace, &nginx, &load);
    let named = |connection: &&Connection| connection.tls().library.as_deref() == Some("OpenSSL 1.1.1o");
    assert_eq!(
        trace.connections.iter().filter(named).count(),
        load.connections as usize,
        "not the system's: {trace:#?}"
    );
}

/// Runs a program with and without the tracer: its output must be the same, and so must its end.
#[track_caller]
fn assert_undisturbed(words: &[String]) -> Trace {
    let output = output_within(Command::new(&words[0]).args(&words[1..]), None, Duration::from_secs(60));
    assert!(output.status.success(), "without the tracer: {output:?}");
    // Probes are on the library already when it begins.
    let script =
        "/usr/bin/python3 -c 'import ssl, time; time.sleep(600)' & sleep 8; \"$@\"; code=$?; kill $!; exit $code";
    let wrap = ["sh", "-c", script, "sh"].map(str::to_owned);
    let (Exit { status, stdout, stderr }, trace) = traced_run(&[], &[&wrap[..], words].concat());
    assert!(status.success(), "{status}: {stdout}{stderr}");
    assert_eq!(stdout, String::from_utf8_lossy(&output.stdout), "the output is the program's own: {stderr}");
    trace
}

/// Sessions of the hostile program, with two requests each.
const ROUNDS: usize = 12;

/// Runs it in one of its modes with and without the tracer, and holds what is told of its sessions against nginx's log.
#[track_caller]
fn assert_hostile_program_is_undisturbed(mode: &str) {
    let nginx = Nginx::start();
    let to = nginx.address(Site::Tls13);
    let program = client_binary("hostile").to_str().expect("UTF-8").to_owned();
    let trace = assert_undisturbed(&[program, mode.to_owned(), to.port().to_string(), ROUNDS.to_string()]);
    let mut asked = nginx.asked(2 * 2 * ROUNDS);
    // Half of them were before the tracer.
    asked.retain(|port, _| trace.connections.iter().any(|connection| connection.local.port() == *port));
    assert_eq!(asked.len(), ROUNDS, "{asked:#?}");
    Joins::of_clients(&trace, to, &asked).assert_joined(100.0);
}

#[test]
fn a_program_under_a_seccomp_filter() {
    assert_hostile_program_is_undisturbed("seccomp");
}

#[test]
fn a_program_that_leaves_the_library_by_longjmp() {
    assert_hostile_program_is_undisturbed("longjmp");
}

#[test]
fn a_stripped_program_whose_library_has_no_symbols_is_seen_on_the_wire() {
    let nginx = Nginx::start();
    let request = Request { requests: 2, ..Request::to(nginx.address(Site::Tls13)) };
    let words = Client::Rustls.words(&request);
    let (exit, trace) = traced_run(&[], &words);
    assert!(exit.status.success(), "{exit:#?}");
    let [connection] = &trace.connections[..] else { panic!("one connection: {trace:#?}") };
    let tls = connection.tls();
    assert_eq!((tls.source.as_str(), tls.library.as_ref(), tls.version.as_deref()), ("wire", None, Some("1.3")));
    assert!(trace.exchanges_of(connection).iter().all(|exchange| exchange.http.is_none()), "{trace:#?}");
    trace.assert_nothing_lost();
}

#[test]
fn probes_are_put_on_for_targets_or_if_asked_for() {
    let nginx = Nginx::start();
    let pid = nginx.pid().to_string();
    let load = load(&nginx, 1);
    for (options, source) in
        [(&["-p", &pid][..], "both"), (&["-p", &pid, "--ssl=off"], "wire"), (&[], "wire"), (&["--ssl=on"], "both")]
    {
        let trace = Tracer::trace(options);
        let mut client = Stepwise::start(&load, None);
        client.take(&["load"]);
        thread::sleep(SETTLES);
        client.take(&["connect", "request"]);
        client.end();
        let trace = trace.stop();
        let of_nginx: Vec<_> = trace.connections.iter().filter(|connection| connection.local == load.to).collect();
        let ours = of_nginx.iter().filter(|connection| connection.tls.is_some());
        let sources: Vec<_> = ours.map(|connection| connection.tls().source.as_str()).collect();
        assert_eq!(sources, vec![source; load.connections as usize], "{options:?}: {of_nginx:#?}");
    }
}
