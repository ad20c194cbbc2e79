//! DNS lookups by real resolvers against a real server, and what connections owe to them.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use harness::{Backend, Ends, Lookup, Namespace, Resolver, Tracer, client_binary, until_undisturbed};
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

/// Runs a client to its end and returns what it says.
#[track_caller]
fn client(mut command: Command, args: &[String]) -> Vec<Step> {
    let output = command.args(args).output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
}

/// A client that is a script.
fn script(interpreter: impl AsRef<OsStr>, name: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name));
    command
}

/// Programs that look names up and connect as they are told: `lookup.py` has the orders.
#[derive(Clone, Copy, Debug)]
enum By {
    /// The C library.
    Glibc,
    /// Go's own resolver: threads of its own, a new socket for each question, and EDNS.
    Go,
    /// Sockets that are not connected, as musl's resolver has them: each datagram names the server.
    Unconnected(IpAddr),
}

impl By {
    #[track_caller]
    fn run(self, steps: &[String]) -> Vec<Step> {
        let command = match self {
            Self::Glibc => script("python3", "lookup.py"),
            Self::Unconnected(server) => {
                let mut command = script("python3", "lookup.py");
                command.arg(format!("ask:{server}"));
                command
            }
            Self::Go => {
                let mut command = Command::new(client_binary("go_lookup"));
                command.env("GODEBUG", "netdns=go");
                command
            }
        };
        client(command, steps)
    }
}

/// At every address, as the names have many.
fn listener() -> TcpListener {
    TcpListener::bind("0.0.0.0:0").expect("a listener")
}

/// Each way. What a client does around its query takes an emulated processor some milliseconds, which the tracer rightly
/// leaves out.
const DELAY: &str = "delay 150ms";

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
fn assert_names_and_costs(trace: &Tracer, steps: &[Step], server: IpAddr) {
    let paid = steps.iter().zip(&NAMES[1..]).map(|(step, (name, addresses))| {
        let connection = trace.connection(step.ends());
        let found = (connection.remote_name.as_deref(), connection.remote_name_source.as_deref());
        assert_eq!(found, (Some(*name), Some("dns")));
        let dns_ms = connection.dns_ms.expect("a lookup led to it");
        assert!((300.0..=step.took_ms).contains(&dns_ms), "the delay both ways, and within {step:?}: {connection:?}");
        let lookup = trace.lookup(connection.pid, name, "A");
        assert_answered(&lookup, addresses[0]);
        assert_eq!(lookup.asked(), (SocketAddr::new(server, 53), "udp"));
        assert_eq!((lookup.retries, lookup.netns), (0, connection.netns));
        assert!(lookup.latency_ms.is_some_and(|ms| (300.0..=step.took_ms).contains(&ms)), "{lookup:?}");
        (dns_ms, step.took_ms)
    });
    let nearest = paid.min_by(|(a, a_took), (b, b_took)| (a_took - a).total_cmp(&(b_took - b)));
    let (dns_ms, took_ms) = nearest.expect("some lookups");
    assert_near(Some(dns_ms), took_ms);
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Each name is looked up at a far server and connected to, and the last address once more without a lookup.
#[track_caller]
fn assert_the_first_connection_pays(trace: &Tracer, by: By, server: IpAddr) {
    Namespace::run(|namespace| {
        let _server = Resolver::start_at(server, &NAMES, "");
        namespace.emulate(DELAY);
        let listener = listener();
        let port = listener.local_addr().expect("local address").port();
        let connects = NAMES[1..].iter().map(|(name, _)| format!("connect:{name}:{port}"));
        let args: Vec<_> =
            ["only:warm.test".into()].into_iter().chain(connects).chain([format!("again:{port}")]).collect();
        let steps = by.run(&args);
        // Nobody accepts: that resets what a client has closed and TCP still waits for.
        drop(listener);
        assert_names_and_costs(trace, &steps[1..4], server.to_canonical());
        let pid = trace.connection(steps[1].ends()).pid;
        let other = trace.lookup(pid, NAMES[1].0, "AAAA");
        assert_eq!((other.answers.len(), other.failed), (0, false), "no address is no failure: {other:?}");
        let free = trace.connection(steps[4].ends());
        assert_eq!((free.remote_name.as_deref(), free.dns_ms), (Some(NAMES[3].0), Some(0.0)));
    });
}

// What they look up, by either kind of hooks.
fn the_c_librarys_lookup_is_paid_by_the_first_connection(trace: &Tracer) {
    assert_the_first_connection_pays(trace, By::Glibc, V4);
}

fn the_lookup_of_gos_own_resolver_is_paid_by_the_first_connection(trace: &Tracer) {
    assert_the_first_connection_pays(trace, By::Go, V4);
}

fn a_server_with_an_ipv6_address_is_no_different(trace: &Tracer) {
    assert_the_first_connection_pays(trace, By::Glibc, V6);
    assert_the_first_connection_pays(trace, By::Go, V6);
}

/// Passes the functions of IPv6 and of IPv4, and is one question all the same.
fn a_server_with_an_ipv4_address_asked_over_ipv6_is_named_by_that_address(trace: &Tracer) {
    assert_the_first_connection_pays(trace, By::Glibc, Ipv4Addr::LOCALHOST.to_ipv6_mapped().into());
}

fn a_server_that_is_named_by_each_datagram_is_no_different(trace: &Tracer) {
    for server in [V4, V6, Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()] {
        assert_the_first_connection_pays(trace, By::Unconnected(server), server);
    }
}

crate::on_both_backends! {
    the_c_librarys_lookup_is_paid_by_the_first_connection
    the_lookup_of_gos_own_resolver_is_paid_by_the_first_connection
    a_server_with_an_ipv6_address_is_no_different
    a_server_with_an_ipv4_address_asked_over_ipv6_is_named_by_that_address
    a_server_that_is_named_by_each_datagram_is_no_different
}

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
        let steps = client(script("node", "cares.js"), &args);
        // Nobody accepts: that resets what a client has closed and TCP still waits for.
        drop(listener);
        assert_names_and_costs(&trace, &steps, V4);
    });
}

/// Runs a check for each of the resolvers and server addresses, in a network of its own.
#[track_caller]
fn for_each_resolver(check: impl Fn(&Tracer, &Namespace, By, IpAddr) + Send + Sync) {
    for_each_resolver_by(Backend::Auto, check);
}

#[track_caller]
fn for_each_resolver_by(backend: Backend, check: impl Fn(&Tracer, &Namespace, By, IpAddr) + Send + Sync) {
    let trace = Tracer::shared(backend);
    for (by, server) in [(By::Glibc, V4), (By::Glibc, V6), (By::Go, V4), (By::Go, V6)] {
        // The test's output shows it when the test fails.
        println!("{by:?} asks {server}");
        Namespace::run(|namespace| check(&trace, namespace, by, server));
    }
}

#[test]
fn a_name_that_does_not_exist_is_a_failed_lookup() {
    for_each_resolver(|trace, _, by, server| {
        let _server = Resolver::start_at(server, &[], "");
        let name = format!("{by:?}-{}.gone.test", if server.is_ipv6() { 6 } else { 4 }).to_lowercase();
        let steps = by.run(&[format!("only:{name}")]);
        assert!(steps[0].error.is_some(), "{steps:?}");
        let lookup = trace.lookup_where(&name, |lookup| lookup.name == name);
        assert_eq!((lookup.rcode.as_deref(), lookup.failed, lookup.answers.len()), (Some("NXDOMAIN"), true, 0));
        assert_eq!((lookup.asked().0, lookup.retries), (SocketAddr::new(server, 53), 0), "{lookup:?}");
        assert!(lookup.latency_ms.is_some_and(|ms| ms <= steps[0].took_ms), "{lookup:?}");
    });
}

/// Longer than the other name, so that its answers can be told apart by their size.
const LOSSY: &str = "a-name-whose-answers-are-lost-on-their-way-at-first.test";

#[test]
fn a_lost_answer_shows_as_a_retry_and_costs_what_it_cost() {
    for_each_resolver(|trace, namespace, by, server| {
        let names: [(&str, &[&str]); 2] = [("warm.test", &["127.0.0.4"]), (LOSSY, &["127.0.0.7"])];
        let _server = Resolver::start_at(server, &names, "timeout:1 attempts:5");
        // What a busy machine adds is outside of the lookup as often as not.
        until_undisturbed(|comparison| {
            let listener = listener();
            let port = listener.local_addr().expect("local address").port();
            let lossy = namespace.drop_incoming("udp sport 53 udp length > 70");
            let steps = thread::scope(|scope| {
                let client = scope.spawn(|| by.run(&["only:warm.test".into(), format!("connect:{LOSSY}:{port}")]));
                // For either type.
                harness::eventually("the answers to be lost", || (lossy.packets() >= 2).then_some(()));
                thread::sleep(Duration::from_millis(200));
                drop(lossy);
                client.join().expect("the client")
            });
            // Nobody accepts: that resets what a client has closed and TCP still waits for.
            drop(listener);
            let connection = trace.connection(steps[1].ends());
            let dns_ms = connection.dns_ms.expect("a lookup led to it");
            assert!((900.0..=steps[1].took_ms).contains(&dns_ms), "within {:?}: {connection:?}", steps[1]);
            comparison.same(&format!("dns_ms, {by:?} at {server}"), dns_ms, steps[1].took_ms);
            let lookup = trace.lookup(connection.pid, LOSSY, "A");
            assert_answered(&lookup, "127.0.0.7");
            assert!(lookup.retries >= 1, "{lookup:?}");
            assert!(lookup.latency_ms.is_some_and(|ms| ms >= 900.0), "the resolver waits for a second: {lookup:?}");
        });
    });
}

#[test]
fn an_answer_too_large_for_a_datagram_comes_over_tcp() {
    assert_too_large_answer_comes_over_tcp(Backend::Auto);
}

#[test]
fn an_answer_too_large_for_a_datagram_comes_over_tcp_by_kprobes_too() {
    assert_too_large_answer_comes_over_tcp(Backend::Kprobe);
}

#[track_caller]
fn assert_too_large_answer_comes_over_tcp(backend: Backend) {
    for_each_resolver_by(backend, |trace, _, by, server| {
        let addresses: Vec<_> = (1..=100).map(|last| format!("127.0.9.{last}")).collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        let _server = Resolver::start_at(server, &[("large.test", &addresses)], "");
        let listener = listener();
        let port = listener.local_addr().expect("local address").port();
        let steps = by.run(&[format!("connect:large.test:{port}")]);
        // Nobody accepts: that resets what a client has closed and TCP still waits for.
        drop(listener);
        let connection = trace.connection(steps[0].ends());
        assert_eq!(connection.remote_name.as_deref(), Some("large.test"), "{connection:?}");
        let lookup = trace.lookup(connection.pid, "large.test", "A");
        assert_eq!(lookup.asked(), (SocketAddr::new(server, 53), "tcp"));
        assert_eq!((lookup.retries, lookup.failed), (0, false), "{lookup:?}");
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
        client(script(&python, "garbage.py"), &[port.to_string()]);
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
