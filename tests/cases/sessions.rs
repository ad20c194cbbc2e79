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

/// Runs a client against a site and holds what is told of both ends against nginx's log. Sessions that were there before the
/// probes do not matter: there is none.
#[track_caller]
fn check(client: Numbered, site: Site) {
    let nginx = Nginx::start();
    let server = Tracer::trace(&["-p", &nginx.pid().to_string()]);
    let load = Load { to: nginx.address(site), connections: CONNECTIONS, requests: REQUESTS };
    let (exit, trace) = traced_run(&[], &client.words(&load));
    assert!(exit.status.success(), "{exit:#?}");
    let asked = nginx.asked(load.total());
    let server = server.stop();
    let ends = [Joins::of_clients(&trace, load.to, &asked), Joins::of_server(&server, load.to, &asked)];
    println!("{client:?} {site:?}: {} at the client, {} at nginx", ends[0], ends[1]);
    for (end, trace) in ends.iter().zip([&trace, &server]) {
        end.assert_joined(99.0);
        trace.assert_nothing_lost();
    }
}

#[test]
fn python_http_client() {
    check(Numbered::PythonHttp, Site::Tls13);
    check(Numbered::PythonHttp, Site::Tls12);
}
