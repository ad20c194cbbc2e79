//! Sessions of TLS libraries, joined to the connections of real clients and servers: never to a wrong one. Each request bears
//! the number of its connection in its Host header, and nginx logs it.

use harness::{
    Trace, Tracer,
    tls::{Database, Joins, Load, Nginx, Numbered, Site, pgbench, redis_benchmark},
    traced_run,
};

/// So many connections of a client to nginx at once, both ends traced.
const CONNECTIONS: u32 = 50;

/// Requests on each.
const REQUESTS: u32 = 3;

/// Runs clients against nginx, one after the other, and holds what is told of both ends against nginx's log. Each has an nginx of
/// its own, so that a port stands for one connection.
#[track_caller]
fn check(clients: &[(Numbered, Site)]) {
    let (ends, traces) = run_all(clients, WITH_THE_LIBRARY_IN_USE);
    ends.iter().for_each(|end| end.assert_joined(99.0));
    for trace in &traces {
        trace.assert_nothing_lost();
    }
}

/// Probes are put on a library once a process is seen to have mapped it, and are there a moment later. A program that is
/// faster is no matter of these tests: some other process uses the library already.
const WITH_THE_LIBRARY_IN_USE: &str = "/usr/bin/python3 -c 'import ssl, time; time.sleep(600)' & sleep 8";

/// Runs `first` and then the clients; returns both ends of each, and both traces.
#[track_caller]
fn run_all(clients: &[(Numbered, Site)], first: &str) -> (Vec<Joins>, [Trace; 2]) {
    let servers: Vec<_> = clients.iter().map(|_| Nginx::start()).collect();
    let pids: Vec<_> = servers.iter().map(|nginx| nginx.pid().to_string()).collect();
    let server = Tracer::trace(&pids.iter().flat_map(|pid| ["-p", pid]).collect::<Vec<_>>());
    let load = |nginx: &Nginx, site| Load { to: nginx.address(site), connections: CONNECTIONS, requests: REQUESTS };
    let lines = clients.iter().zip(&servers).map(|((client, site), nginx)| client.words(&load(nginx, *site)));
    let (exit, trace) = traced_run(&[], &one_after_the_other(first, lines));
    assert!(exit.status.success(), "{exit:#?}");
    let server = server.stop();
    let mut ends = Vec::new();
    for ((client, site), nginx) in clients.iter().zip(&servers) {
        let load = load(nginx, *site);
        let asked = nginx.asked(load.total());
        let both = [Joins::of_clients(&trace, load.to, &asked), Joins::of_server(&server, load.to, &asked)];
        println!("{client:?} {site:?}: {} at the client, {} at nginx", both[0], both[1]);
        ends.extend(both);
    }
    (ends, [trace, server])
}

/// A command line that runs all of these, and ends what runs in the background.
fn one_after_the_other(first: &str, lines: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let quoted = |word: &String| format!("'{}'", word.replace('\'', "'\\''"));
    let lines = lines.map(|words| words.iter().map(quoted).collect::<Vec<_>>().join(" "));
    let lines = lines.collect::<Vec<_>>().join(" && ");
    let script = format!("{first}\n{lines}\ncode=$?; kill $! 2>/dev/null; exit $code");
    vec!["sh".to_owned(), "-c".to_owned(), script]
}

#[test]
fn openssl_on_sockets_with_a_thread_a_connection() {
    check(&[
        (Numbered::PythonHttp, Site::Tls13),
        (Numbered::PythonHttp, Site::Tls12),
        (Numbered::PythonRequests, Site::Tls13),
        (Numbered::Ruby, Site::Tls13),
    ]);
}

#[test]
fn openssl_on_sockets_with_all_connections_in_one_thread() {
    check(&[
        (Numbered::Curl, Site::Tls13),
        (Numbered::Curl, Site::Tls12),
        (Numbered::PhpCurl, Site::Tls13),
        (Numbered::PhpStreams, Site::Tls13),
    ]);
}

#[test]
fn openssl_on_memory() {
    check(&[(Numbered::Aiohttp, Site::Tls13), (Numbered::Aiohttp, Site::Tls12)]);
}

#[test]
fn openssl_within_node() {
    check(&[(Numbered::NodeKeepAlive, Site::Tls13), (Numbered::Node, Site::Tls13), (Numbered::Node, Site::Tls12)]);
}

/// The sessions of these begin while the probes are being put on, one after the other: of some only a part is seen.
#[test]
fn a_program_that_is_faster_than_the_probes_is_told_of_no_wrong_connection() {
    let (ends, _) = run_all(&[(Numbered::Curl, Site::Tls12), (Numbered::Curl, Site::Tls13)], ":");
    ends.iter().for_each(|end| assert!(end.wrong.is_empty(), "{end:#?}"));
}

#[test]
fn a_server_with_workers() {
    let nginx = Nginx::with_workers(2);
    let load = Load { to: nginx.address(Site::Tls13), connections: CONNECTIONS, requests: REQUESTS };
    let trace = Tracer::trace(&["-p", &nginx.pid().to_string()]);
    assert!(Numbered::PythonHttp.spawn(&load).wait().expect("a client").success());
    let asked = nginx.asked(load.total());
    let trace = trace.stop();
    let joins = Joins::of_server(&trace, load.to, &asked);
    println!("nginx with workers: {joins}");
    joins.assert_joined(99.0);
    trace.assert_nothing_lost();
}

/// No HTTP passes: all that is told of a session is that it was seen, of each connection that has one and of no other.
#[track_caller]
fn check_database(database: &Database, loads: &[(Vec<String>, usize)], plain: Option<Vec<String>>) {
    let server = Tracer::trace(&["-p", &database.pid().to_string()]);
    let words = one_after_the_other(WITH_THE_LIBRARY_IN_USE, loads.iter().map(|(words, _)| words.clone()).chain(plain));
    let (exit, trace) = traced_run(&[], &words);
    assert!(exit.status.success(), "{exit:#?}");
    let server = server.stop();
    let to = database.address();
    let expected: usize = loads.iter().map(|(_, connections)| connections).sum();
    for (end, trace) in [("client", &trace), ("server", &server)] {
        let its = trace.connections.iter().filter(|connection| [connection.local, connection.remote].contains(&to));
        let (tls, plain): (Vec<_>, Vec<_>) = its.partition(|connection| connection.tls.is_some());
        let joined = tls.iter().filter(|connection| connection.tls().source == "both").count();
        println!("{}: {joined} of {} at the {end}, {} without TLS", tls[0].comm, tls.len(), plain.len());
        assert!(tls.len() >= expected, "{expected} connections over TLS: {tls:#?}");
        assert!(joined * 100 >= tls.len() * 99, "{tls:#?}");
        assert!(trace.exchanges.iter().all(|exchange| exchange.http.is_none()), "no HTTP passes");
        trace.assert_nothing_lost();
    }
}

#[test]
fn postgresql() {
    let database = Database::postgresql();
    let words = |mode| pgbench(database.address(), CONNECTIONS, REQUESTS, mode);
    check_database(&database, &[(words("require"), CONNECTIONS as usize)], Some(words("disable")));
}

#[test]
fn redis() {
    let database = Database::redis();
    let words = redis_benchmark(database.address(), CONNECTIONS, REQUESTS);
    check_database(&database, &[(words, CONNECTIONS as usize)], None);
}
