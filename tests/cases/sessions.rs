//! Sessions of TLS libraries, joined to the connections of real clients and servers: never to a wrong one. Each request bears
//! the number of its connection in its Host header, and nginx logs it.

use harness::{
    Connection, Trace, Tracer, stdout_of,
    tls::{Asked, Database, GoServer, Joins, Load, Nginx, Numbered, Site, pgbench, redis_benchmark},
    traced_run,
};

/// So many connections of a client to nginx at once, both ends traced.
const CONNECTIONS: u32 = 50;

/// Requests on each.
const REQUESTS: u32 = 3;

/// Who answers a client.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Nginx(Site),
    Go,
}

/// The same, running. Each client has one of its own, so that a port stands for one connection.
enum Server {
    Nginx(Nginx, Site),
    Go(GoServer),
}

impl Server {
    #[track_caller]
    fn start(peer: Peer) -> Self {
        match peer {
            Peer::Nginx(site) => Self::Nginx(Nginx::start(), site),
            Peer::Go => Self::Go(GoServer::start()),
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Nginx(nginx, _) => nginx.pid(),
            Self::Go(server) => server.pid(),
        }
    }

    fn load(&self) -> Load {
        let to = match self {
            Self::Nginx(nginx, site) => nginx.address(*site),
            Self::Go(server) => server.address(),
        };
        Load { to, connections: CONNECTIONS, requests: REQUESTS }
    }

    /// What it says it was asked for.
    #[track_caller]
    fn asked(self, requests: usize) -> Asked {
        match self {
            Self::Nginx(nginx, _) => nginx.asked(requests),
            Self::Go(server) => server.asked(requests),
        }
    }
}

/// Runs clients against nginx, one after the other, and holds what is told of both ends against nginx's log.
#[track_caller]
fn check(clients: &[(Numbered, Site)]) {
    let (ends, traces) = run_all(&of_nginx(clients), &with_library_in_use(clients[0].0));
    ends.iter().for_each(|end| end.assert_joined(99.0));
    for trace in &traces {
        trace.assert_nothing_lost();
    }
}

fn of_nginx(clients: &[(Numbered, Site)]) -> Vec<(Numbered, Peer)> {
    clients.iter().map(|(client, site)| (*client, Peer::Nginx(*site))).collect()
}

/// Probes are put on a library once a process is seen to have mapped it, and are there a moment later. A program that is
/// faster is no matter of these tests: some other process uses the library already.
fn with_library_in_use(client: Numbered) -> String {
    format!("{} & sleep 12", client.keeps_library_in_use())
}

/// Runs `first` and then the clients; returns both ends of each, and both traces.
#[track_caller]
fn run_all(clients: &[(Numbered, Peer)], first: &str) -> (Vec<Joins>, [Trace; 2]) {
    let servers: Vec<_> = clients.iter().map(|(_, peer)| Server::start(*peer)).collect();
    let pids: Vec<_> = servers.iter().map(|server| server.pid().to_string()).collect();
    let server_trace = Tracer::trace(&pids.iter().flat_map(|pid| ["-p", pid]).collect::<Vec<_>>());
    let lines = clients.iter().zip(&servers).map(|((client, _), server)| client.words(&server.load()));
    let (exit, trace) = traced_run(&[], &one_after_the_other(first, lines));
    assert!(exit.status.success(), "{exit:#?}");
    let server_trace = server_trace.stop();
    let mut ends = Vec::new();
    for ((client, peer), server) in clients.iter().zip(servers) {
        let load = server.load();
        let asked = server.asked(load.total());
        let both = [Joins::of_clients(&trace, load.to, &asked), Joins::of_server(&server_trace, load.to, &asked)];
        println!("{client:?} {peer:?}: {} at the client, {} at the server", both[0], both[1]);
        ends.extend(both);
    }
    (ends, [trace, server_trace])
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

#[test]
fn gnutls_with_a_process_a_connection() {
    check(&[(Numbered::Wget, Site::Tls13)]);
}

/// The library is given no descriptor.
#[test]
fn gnutls_that_sends_by_functions_of_its_application() {
    check(&[
        (Numbered::PyCurl, Site::Tls13),
        (Numbered::PyCurlMulti, Site::Tls12),
        (Numbered::PyCurlMulti, Site::Tls13),
    ]);
}

/// A goroutine that is interrupted between its library and the kernel may go on in another thread. Then it is joined when it sends the next
/// time, and a head that has passed since is counted as lost.
#[test]
fn go_at_both_ends() {
    let clients = [(Numbered::Go, Peer::Nginx(Site::Tls12)), (Numbered::Go, Peer::Go)];
    let (ends, traces) = run_all(&clients, &with_library_in_use(Numbered::Go));
    ends.iter().for_each(|end| end.assert_joined(80.0));
    for trace in &traces {
        trace.assert_lost_only(&["http_unjoined"]);
    }
}

/// The sessions of these begin while the probes are being put on, one after the other: of some only a part is seen.
#[test]
fn a_program_that_is_faster_than_the_probes_is_told_of_no_wrong_connection() {
    let clients = of_nginx(&[(Numbered::Curl, Site::Tls12), (Numbered::Curl, Site::Tls13)]);
    let (ends, _) = run_all(&clients, ":");
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

/// Whether its library told of a connection, and is this one.
fn is_told_by(connection: &Connection, library: &str) -> bool {
    let tls = connection.tls();
    tls.source == "both" && tls.library.as_deref() == Some(library)
}

/// As `OpenSSL 3.0.19`: what the programs of this machine use.
#[track_caller]
fn openssl_of_the_system() -> String {
    let said = stdout_of("/usr/bin/openssl version");
    said.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// No HTTP passes: all that is told of a session is that it was seen, of each connection that has one and of no other.
#[track_caller]
fn check_database(database: &Database, loads: &[(Vec<String>, usize)], plain: Option<Vec<String>>) {
    let server = Tracer::trace(&["-p", &database.pid().to_string()]);
    let words = one_after_the_other(
        &with_library_in_use(Numbered::PythonHttp),
        loads.iter().map(|(words, _)| words.clone()).chain(plain),
    );
    let (exit, trace) = traced_run(&[], &words);
    assert!(exit.status.success(), "{exit:#?}");
    let server = server.stop();
    let (to, library) = (database.address(), &openssl_of_the_system());
    let expected: usize = loads.iter().map(|(_, connections)| connections).sum();
    for (end, trace) in [("client", &trace), ("server", &server)] {
        let its = trace.connections.iter().filter(|connection| [connection.local, connection.remote].contains(&to));
        let (tls, plain): (Vec<_>, Vec<_>) = its.partition(|connection| connection.tls.is_some());
        let joined = tls.iter().filter(|connection| is_told_by(connection, library)).count();
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
