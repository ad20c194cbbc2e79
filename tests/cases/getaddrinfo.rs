//! Lookups by the C library: those that ask nobody on port 53, and those that do, which count once.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
};

use harness::{Connection, Etc, Lookup, Namespace, Resolver, Trace, client_binary, conntracer, traced_run};
use serde::Deserialize;

/// One line of a client.
#[derive(Debug, Deserialize)]
struct Step {
    #[serde(default)]
    took_ms: f64,
    error: Option<String>,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
}

/// A client and what it is told to do. One in Python has the system's C library.
fn client(program: &Path, steps: &[String]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/lookup.py");
    let words = if program.ends_with("python3") { vec![program, &script] } else { vec![program] };
    let words = words.into_iter().map(|word| word.to_str().expect("UTF-8"));
    words.chain(steps.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
}

/// Traces a script whose clients say a line a step, and returns these. Each client starts a process of its own.
#[track_caller]
fn traced(options: &[&str], script: &str) -> (Vec<Step>, Trace) {
    let (exit, trace) = traced_run(options, &["sh", "-c", script]);
    assert!(exit.status.success(), "{exit:#?}");
    let step = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    (exit.stdout.lines().map(step).collect(), trace)
}

/// At every address, as the names have many. Nobody accepts: what is left resets what a client has closed.
fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a listener");
    let port = listener.local_addr().expect("local address").port();
    (listener, port)
}

#[track_caller]
fn connection_of<'t>(trace: &'t Trace, step: &Step) -> &'t Connection {
    let (Some(local), Some(remote)) = (step.local, step.remote) else { panic!("no connection: {step:?}") };
    let mut found = trace.connections.iter().filter(|c| (c.local, c.remote) == (local, remote));
    found.next().unwrap_or_else(|| panic!("{local} to {remote} was not traced: {trace:#?}"))
}

/// Fails unless a connection goes by this name, and has paid for all that its client waited for the lookup, or for nothing.
#[track_caller]
fn assert_named(connection: &Connection, name: &str, paid_ms: Option<f64>) {
    let found = (connection.remote_name.as_deref(), connection.remote_name_source.as_deref());
    assert_eq!(found, (Some(name), Some("dns")), "{connection:#?}");
    let dns_ms = connection.dns_ms.expect("a lookup led to it");
    match paid_ms {
        Some(took_ms) => assert!(0.0 < dns_ms && dns_ms <= took_ms, "within {took_ms} ms: {connection:#?}"),
        None => assert_eq!(dns_ms, 0.0, "{connection:#?}"),
    }
}

/// The lookups of a name.
fn lookups_of<'t>(trace: &'t Trace, name: &str) -> Vec<&'t Lookup> {
    trace.lookups.iter().filter(|lookup| lookup.name == name).collect()
}

const IN_FILE: &str = "127.0.1.1 one.hosts.test\n127.0.1.2 two.hosts.test\n127.0.1.3 two.hosts.test\n";

/// Clients in C that have a C library of their own.
const STATIC: [&str; 2] = ["lookup_glibc", "lookup_musl"];

#[test]
fn names_of_the_hosts_file_name_connections_and_a_replay_tells_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let recording = dir.path().join("trace.rec");
    let recording = recording.to_str().expect("UTF-8");
    let (steps, trace) = Namespace::run(|_| {
        let _etc = Etc::with(&[("hosts", IN_FILE), ("nsswitch.conf", "hosts: files\n")]);
        let (_listener, port) = listener();
        let connect = |name: &str| format!("connect:{name}:{port}");
        let steps = [
            connect("one.hosts.test"),
            format!("again:{port}"),
            connect("TWO.hosts.test"),
            "only:gone.hosts.test".into(),
            connect("127.0.1.4"),
        ];
        let python = client(Path::new("/usr/bin/python3"), &steps);
        // Probes are on it by the time that it looks the name up.
        let static_ones =
            STATIC.map(|name| client(&client_binary(name), &["wait:3".into(), connect("one.hosts.test")]));
        traced(&["--record", recording], &format!("{python}; {}; wait", static_ones.join(" & ")))
    });
    trace.assert_nothing_lost();
    assert_eq!(steps.len(), 5 + STATIC.len(), "{steps:#?}");
    assert_named(connection_of(&trace, &steps[0]), "one.hosts.test", Some(steps[0].took_ms));
    assert_named(connection_of(&trace, &steps[1]), "one.hosts.test", None);
    assert_named(connection_of(&trace, &steps[2]), "two.hosts.test", Some(steps[2].took_ms));
    assert_calls(&trace, &steps);
    let by_address = connection_of(&trace, &steps[4]);
    assert_eq!((&by_address.remote_name, by_address.dns_ms), (&None, None), "an address is no name");
    for step in &steps[5..] {
        assert_named(connection_of(&trace, step), "one.hosts.test", Some(step.took_ms));
    }

    let replay = conntracer(&[], &["replay", "--format", "ndjson", recording]);
    let replayed = Trace::of_text(replay.status, &replay.stdout, replay.stderr);
    assert_eq!((replayed.lookups, replayed.connections), (trace.lookups, trace.connections));
}

/// Fails unless each lookup in the file is told once, as what it was.
#[track_caller]
fn assert_calls(trace: &Trace, steps: &[Step]) {
    for lookup in &trace.lookups {
        let how = (lookup.source.as_str(), lookup.server, lookup.transport.as_deref(), lookup.retries);
        assert_eq!(how, ("getaddrinfo", None, None, 0), "{lookup:#?}");
    }
    let [two] = lookups_of(trace, "two.hosts.test")[..] else { panic!("one lookup: {:#?}", trace.lookups) };
    assert_eq!((two.rcode.as_deref(), two.failed, two.record_type.as_deref()), (Some("NOERROR"), false, None));
    assert_eq!(two.answers, [2, 3].map(|last| Ipv4Addr::new(127, 0, 1, last)));
    assert!(two.latency_ms.is_some_and(|ms| 0.0 < ms && ms <= steps[2].took_ms), "{two:#?}");
    let [gone] = lookups_of(trace, "gone.hosts.test")[..] else { panic!("one lookup: {:#?}", trace.lookups) };
    assert!(steps[3].error.is_some() && gone.failed && gone.answers.is_empty(), "{gone:#?}");
    assert!(gone.rcode.as_deref().is_some_and(|rcode| rcode.starts_with("EAI_")), "{gone:#?}");
    let mut of_one: Vec<_> =
        lookups_of(trace, "one.hosts.test").iter().map(|call| call.record_type.as_deref()).collect();
    of_one.sort();
    assert_eq!(of_one, [None, Some("A"), Some("A")], "Python asks for any, the others do not: {:#?}", trace.lookups);
    assert_eq!(trace.lookups.len(), 5, "{:#?}", trace.lookups);
}

#[test]
fn a_lookup_that_asks_a_server_counts_once_and_one_that_is_left_spoils_none() {
    let (steps, trace) = Namespace::run(|namespace| {
        // The first name of the search list does not exist.
        let _server = Resolver::start(&[("host.two.test", &["127.0.1.1"])], "ndots:2\nsearch one.test two.test");
        // Longer than it takes until the call is left.
        namespace.emulate("delay 200ms");
        let (_listener, port) = listener();
        let connect = format!("connect:host:{port}");
        let python = client(Path::new("/usr/bin/python3"), &[connect.clone(), format!("again:{port}")]);
        let c = client(&client_binary("lookup_dynamic"), &["leave:left.test".into(), connect]);
        traced(&[], &format!("{python}; {c}"))
    });
    trace.assert_lost_only(&["call_missed"]);
    let lost: Vec<_> = trace.summary().losses.iter().map(|loss| (loss.cause.as_str(), loss.count)).collect();
    assert_eq!(lost, [("call_missed", 1)], "the call that was left");
    for step in [&steps[0], &steps[2]] {
        let connection = connection_of(&trace, step);
        assert_named(connection, "host.two.test", Some(step.took_ms));
        let dns_ms = connection.dns_ms.expect("just seen");
        assert!(dns_ms >= 800.0, "two questions, one after the other, and 400 ms each: {connection:#?}");
    }
    assert_named(connection_of(&trace, &steps[1]), "host.two.test", None);
    assert!(trace.lookups.iter().all(|lookup| lookup.asked().0.port() == 53), "{:#?}", trace.lookups);
    for (name, rcode) in [("host.one.test", "NXDOMAIN"), ("host.two.test", "NOERROR")] {
        let asked = lookups_of(&trace, name);
        assert!(!asked.is_empty() && asked.iter().all(|lookup| lookup.rcode.as_deref() == Some(rcode)), "{asked:#?}");
    }
}
