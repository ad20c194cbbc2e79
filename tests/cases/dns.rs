//! DNS lookups by real resolvers against a real server, and what connections owe to them.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use harness::{Backend, Ends, Lookup, Namespace, Resolver, Tracer};
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

impl Step {
    #[track_caller]
    fn ends(&self) -> Ends {
        let Self { local: Some(local), remote: Some(remote), .. } = self else { panic!("no connection: {self:?}") };
        Ends::new(*local, *remote)
    }
}

#[track_caller]
fn client(program: &str, script: &str, args: &[String]) -> Vec<Step> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let output = Command::new(program).arg(script).args(args).output().expect("the client starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
}

/// At every address, as the names have many.
fn listener() -> TcpListener {
    TcpListener::bind("0.0.0.0:0").expect("a listener")
}

#[track_caller]
fn glibc(args: &[String]) -> Vec<Step> {
    client("python3", "lookup.py", args)
}

/// Each way. What a client does around its query takes an emulated processor some milliseconds, which the tracer rightly
/// leaves out.
const DELAY: &str = "delay 100ms";

/// As near as the output promises: 5 ms or 10 %.
#[track_caller]
fn assert_near(found_ms: Option<f64>, measured_ms: f64) {
    let found_ms = found_ms.unwrap_or_else(|| panic!("nothing is known, but it was {measured_ms} ms"));
    let slack = (measured_ms / 10.0).max(5.0);
    assert!((found_ms - measured_ms).abs() <= slack, "{found_ms} ms, but the client measured {measured_ms} ms");
}

#[track_caller]
fn assert_answered(lookup: &Lookup, address: &str) {
    assert_eq!((lookup.rcode.as_deref(), lookup.failed), (Some("NOERROR"), false), "{lookup:?}");
    assert!(lookup.answers.iter().any(|answer| answer.to_string() == address), "{lookup:?}");
}

/// A name to warm up with, and those that are looked up.
const NAMES: [(&str, &[&str]); 4] = [
    ("warm.test", &["127.0.0.4"]),
    ("one.names.test", &["127.0.1.1"]),
    ("two.names.test", &["127.0.1.2"]),
    ("three.names.test", &["127.0.1.3"]),
];

/// Fails unless each connection goes by its name, and paid what its lookup cost. What disturbs a client in between only adds
/// to what it measures, so the least disturbed one tells.
#[track_caller]
fn assert_names_and_costs(trace: &Tracer, steps: &[Step]) {
    let paid = steps.iter().zip(&NAMES[1..]).map(|(step, (name, addresses))| {
        let connection = trace.connection(step.ends());
        let found = (connection.remote_name.as_deref(), connection.remote_name_source.as_deref());
        assert_eq!(found, (Some(*name), Some("dns")));
        let dns_ms = connection.dns_ms.expect("a lookup led to it");
        assert!((200.0..=step.took_ms).contains(&dns_ms), "the delay both ways, and within {step:?}: {connection:?}");
        let lookup = trace.lookup(connection.pid, name, "A");
        assert_answered(&lookup, addresses[0]);
        assert_eq!((lookup.server.to_string().as_str(), lookup.transport.as_str()), ("127.0.0.1:53", "udp"));
        assert_eq!((lookup.retries, lookup.netns), (0, connection.netns));
        assert!(lookup.latency_ms.is_some_and(|ms| (200.0..=step.took_ms).contains(&ms)), "{lookup:?}");
        (dns_ms, step.took_ms)
    });
    let nearest = paid.min_by(|(a, a_took), (b, b_took)| (a_took - a).total_cmp(&(b_took - b)));
    let (dns_ms, took_ms) = nearest.expect("some lookups");
    assert_near(Some(dns_ms), took_ms);
}

/// What the C library looks up, by either kind of hooks.
fn the_c_librarys_lookup_is_paid_by_the_first_connection(trace: &Tracer) {
    Namespace::run(|namespace| {
        let _server = Resolver::start(&NAMES, "");
        namespace.emulate(DELAY);
        let listener = listener();
        let port = listener.local_addr().expect("local address").port();
        let connects = NAMES[1..].iter().map(|(name, _)| format!("connect:{name}:{port}"));
        let args: Vec<_> =
            ["only:warm.test".into()].into_iter().chain(connects).chain([format!("again:{port}")]).collect();
        let steps = glibc(&args);
        // Nobody accepts: that resets what a client has closed and TCP still waits for.
        drop(listener);
        assert_names_and_costs(trace, &steps[1..4]);
        let pid = trace.connection(steps[1].ends()).pid;
        let other = trace.lookup(pid, NAMES[1].0, "AAAA");
        assert_eq!((other.answers.len(), other.failed), (0, false), "no address is no failure: {other:?}");
        let free = trace.connection(steps[4].ends());
        assert_eq!((free.remote_name.as_deref(), free.dns_ms), (Some(NAMES[3].0), Some(0.0)));
    });
}

crate::on_both_backends! { the_c_librarys_lookup_is_paid_by_the_first_connection }

#[test]
fn nodes_own_resolver_is_seen() {
    let trace = Tracer::shared(Backend::Auto);
    Namespace::run(|namespace| {
        let _server = Resolver::start(&NAMES, "");
        namespace.emulate(DELAY);
        let listener = listener();
        let port = listener.local_addr().expect("local address").port();
        let args: Vec<_> =
            [port.to_string()].into_iter().chain(NAMES[1..].iter().map(|(name, _)| (*name).into())).collect();
        let steps = client("node", "cares.js", &args);
        // Nobody accepts: that resets what a client has closed and TCP still waits for.
        drop(listener);
        assert_names_and_costs(&trace, &steps);
    });
}

#[test]
fn a_name_that_does_not_exist_is_a_failed_lookup() {
    let trace = Tracer::shared(Backend::Auto);
    Namespace::run(|_| {
        let _server = Resolver::start(&[], "");
        let steps = glibc(&["only:nobody.gone.test".into()]);
        assert!(steps[0].error.is_some(), "{steps:?}");
        let lookup = trace.lookup_where("nobody.gone.test", |lookup| lookup.name == "nobody.gone.test");
        assert_eq!((lookup.rcode.as_deref(), lookup.failed, lookup.answers.len()), (Some("NXDOMAIN"), true, 0));
        assert!(lookup.latency_ms.is_some());
    });
}

/// Longer than the other name, so that its answers can be told apart by their size.
const LOSSY: &str = "a-name-whose-answers-are-lost-on-their-way-at-first.test";

#[test]
fn a_lost_answer_shows_as_a_retry_and_costs_what_it_cost() {
    let trace = Tracer::shared(Backend::Auto);
    Namespace::run(|namespace| {
        let _server =
            Resolver::start(&[("warm.test", &["127.0.0.4"]), (LOSSY, &["127.0.0.7"])], "timeout:1 attempts:5");
        let listener = listener();
        let port = listener.local_addr().expect("local address").port();
        let lossy = namespace.drop_incoming("udp sport 53 udp length > 60");
        let steps = thread::scope(|scope| {
            let client = scope.spawn(|| glibc(&["only:warm.test".into(), format!("connect:{LOSSY}:{port}")]));
            harness::eventually("an answer to be lost", || (lossy.packets() > 0).then_some(()));
            thread::sleep(Duration::from_millis(200));
            drop(lossy);
            client.join().expect("the client")
        });
        // Nobody accepts: that resets what a client has closed and TCP still waits for.
        drop(listener);
        let connection = trace.connection(steps[1].ends());
        assert_near(connection.dns_ms, steps[1].took_ms);
        let lookup = trace.lookup(connection.pid, LOSSY, "A");
        assert_answered(&lookup, "127.0.0.7");
        assert!(lookup.retries >= 1, "{lookup:?}");
        assert!(lookup.latency_ms.is_some_and(|ms| ms >= 900.0), "the resolver waits for a second: {lookup:?}");
    });
}

#[test]
fn an_answer_too_large_for_a_datagram_comes_over_tcp() {
    let trace = Tracer::shared(Backend::Auto);
    Namespace::run(|_| {
        let addresses: Vec<_> = (1..=100).map(|last| format!("127.0.9.{last}")).collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        let _server = Resolver::start(&[("large.test", &addresses)], "");
        let listener = listener();
        let port = listener.local_addr().expect("local address").port();
        let steps = glibc(&[format!("connect:large.test:{port}")]);
        // Nobody accepts: that resets what a client has closed and TCP still waits for.
        drop(listener);
        let connection = trace.connection(steps[0].ends());
        let lookup = trace.lookup(connection.pid, "large.test", "A");
        assert_eq!((lookup.transport.as_str(), lookup.retries, lookup.failed), ("tcp", 0, false), "{lookup:?}");
        assert!(!lookup.answers.is_empty(), "{lookup:?}");
    });
}

#[test]
fn garbage_is_counted_and_names_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let python = dir.path().join("garbage");
    std::os::unix::fs::symlink("/usr/bin/python3", &python).expect("a name of its own");
    let trace = Tracer::trace(&["--comm", "garbage"]);
    Namespace::run(|_| {
        let listener = listener();
        let port = listener.local_addr().expect("local address").port();
        client(python.to_str().expect("UTF-8"), "garbage.py", &[port.to_string()]);
    });
    let trace = trace.stop();
    let names: Vec<_> =
        trace.connections.iter().map(|c| (c.remote.ip().to_string(), c.remote_name.as_deref())).collect();
    assert_eq!(names.len(), 2, "{trace:#?}");
    assert!(names.contains(&("127.0.0.9".into(), None)), "{names:?}");
    assert!(names.contains(&("127.0.0.8".into(), Some("good.garbage.test"))), "{names:?}");
    let losses: Vec<_> = trace.summary().losses.iter().map(|loss| (loss.cause.as_str(), loss.count)).collect();
    assert_eq!(losses.iter().find(|(cause, _)| *cause == "dns_malformed"), Some(&("dns_malformed", 2)), "{losses:?}");
    assert_eq!(losses.iter().find(|(cause, _)| *cause == "dns_unasked"), Some(&("dns_unasked", 2)), "{losses:?}");
}
