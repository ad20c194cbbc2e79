//! Sessions of TLS libraries, joined to the connections of real clients and servers: never to a wrong one. Each request bears
//! the number of its connection in its Host header, and nginx logs it.

use harness::{
    Tracer,
    tls::{Joins, Load, Nginx, Numbered, Site},
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
    let servers: Vec<_> = clients.iter().map(|_| Nginx::start()).collect();
    let pids: Vec<_> = servers.iter().map(|nginx| nginx.pid().to_string()).collect();
    let server = Tracer::trace(&pids.iter().flat_map(|pid| ["-p", pid]).collect::<Vec<_>>());
    let load = |nginx: &Nginx, site| Load { to: nginx.address(site), connections: CONNECTIONS, requests: REQUESTS };
    let lines = clients.iter().zip(&servers).map(|((client, site), nginx)| client.words(&load(nginx, *site)));
    let (exit, trace) = traced_run(&[], &one_after_the_other(lines));
    assert!(exit.status.success(), "{exit:#?}");
    let server = server.stop();
    let mut checked = Vec::new();
    for ((client, site), nginx) in clients.iter().zip(&servers) {
        let load = load(nginx, *site);
        let asked = nginx.asked(load.total());
        let ends = [Joins::of_clients(&trace, load.to, &asked), Joins::of_server(&server, load.to, &asked)];
        println!("{client:?} {site:?}: {} at the client, {} at nginx", ends[0], ends[1]);
        checked.extend(ends);
    }
    checked.iter().for_each(|end| end.assert_joined(99.0));
    for trace in [&trace, &server] {
        trace.assert_nothing_lost();
    }
}

/// A command line that runs all of these.
fn one_after_the_other(lines: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let quoted = |word: &String| format!("'{}'", word.replace('\'', "'\\''"));
    let lines = lines.map(|words| words.iter().map(quoted).collect::<Vec<_>>().join(" "));
    let script = lines.collect::<Vec<_>>().join(" && ");
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
