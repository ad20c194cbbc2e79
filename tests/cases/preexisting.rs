//! Connections that are older than the trace, and those that outlive it.

use std::io::{Read as _, Write as _};

use harness::{Backend, Closer, Connection, Ends, Family, How, Namespace, Pair, Role, Trace, Tracer};
use nix::sys::signal::Signal;

#[test]
fn adopted_connections_are_reported_once_with_their_true_idle_time_and_bytes() {
    for backend in [Backend::Auto, Backend::Kprobe] {
        adopted_connections(backend, &["-p", &std::process::id().to_string()]);
    }
}

#[test]
fn a_trace_of_the_whole_node_adopts_too() {
    adopted_connections(Backend::Auto, &[]);
}

fn adopted_connections(backend: Backend, target: &[&str]) {
    let listener = harness::listen(Family::V4);
    let pair = || Pair::through(&listener);
    let (mut by_client, mut by_server, mut by_reset, mut v6) = (pair(), pair(), pair(), Pair::new(Family::V6));
    by_client.exchange(1_000, 2_000);
    by_server.exchange(30, 0);
    by_reset.exchange(7, 8);
    v6.exchange(100_000, 5);

    let trace = Tracer::trace_by(backend, target);
    for pair in [&by_client, &by_server, &by_reset, &v6] {
        for ends in [pair.client_ends(), pair.server_ends()] {
            let open = trace.open(ends);
            assert!(open.preexisting, "adopted at once, not when it closes");
            assert_eq!((open.pid, open.comm.is_empty()), (std::process::id(), false), "with its process: {open:#?}");
        }
    }
    // This one's idle time begins in the trace, the others' began before it.
    v6.exchange(11, 12).rest(100);
    let v6_idle = v6.end(Pair::close_client);
    let client_idle = by_client.end(Pair::close_client);
    let server_idle = by_server.end(Pair::close_server);
    let reset_idle = by_reset.end(Pair::reset_server);
    for pair in [&mut by_client, &mut by_server, &mut by_reset, &mut v6] {
        pair.release_client();
        pair.release_server();
    }
    for pair in [&by_client, &by_server, &by_reset, &v6] {
        trace.connection(pair.client_ends());
        trace.connection(pair.server_ends());
    }
    let trace = trace.stop();

    trace.assert_nothing_lost();
    check(&trace, &by_client, (1_000, 2_000), client_idle, (Closer::Local, How::Fin));
    check(&trace, &by_server, (30, 0), server_idle, (Closer::Peer, How::Fin));
    check(&trace, &by_reset, (7, 8), reset_idle, (Closer::Peer, How::Rst));
    check(&trace, &v6, (100_011, 17), v6_idle, (Closer::Local, How::Fin));
}

#[track_caller]
fn check(trace: &Trace, pair: &Pair, bytes: (u64, u64), idle: (f64, f64), (closer, how): (Closer, How)) {
    let client = trace.connection(pair.client_ends());
    let server = trace.connection(pair.server_ends());
    assert_eq!((client.role, server.role), (Some(Role::Client), Some(Role::Server)));
    let at_server = if closer == Closer::Local { Closer::Peer } else { Closer::Local };
    client.assert_ended(closer, how);
    client.assert_bytes(bytes.0, bytes.1);
    server.assert_ended(at_server, how);
    server.assert_bytes(bytes.1, bytes.0);
    for connection in [client, server] {
        connection.assert_idle(idle.0, idle.1);
        assert!(connection.preexisting, "{connection:#?}");
        assert_eq!((connection.opened_at, connection.connect_ms, connection.lifetime_ms), (None, None, None));
        assert_eq!(connection.pid, std::process::id());
    }
}

#[test]
fn connections_in_another_network_namespace_are_adopted() {
    Namespace::run(|namespace| {
        let mut pair = Pair::new(Family::V4);
        pair.exchange(3, 4);
        let trace = Tracer::trace(&["-p", &std::process::id().to_string()]);
        let idle = pair.end(Pair::close_client);
        pair.release_server();
        let (client, server) = (trace.connection(pair.client_ends()), trace.connection(pair.server_ends()));
        for connection in [&client, &server] {
            assert_eq!((connection.netns, connection.preexisting), (Some(namespace.number()), true));
            connection.assert_idle(idle.0, idle.1);
        }
        client.assert_bytes(3, 4);
        trace.stop().assert_nothing_lost();
    });
}

#[test]
fn what_is_looked_at_before_it_is_taken_counts_once_on_an_older_connection_too() {
    for backend in [Backend::Auto, Backend::Kprobe] {
        let mut pair = Pair::new(Family::V4);
        pair.exchange(3, 4);
        let trace = Tracer::trace_by(backend, &["-p", &std::process::id().to_string()]);
        pair.client().write_all(&[1; 30]).expect("ask");
        harness::eventually("the ask", || (pair.server().peek(&mut [0; 30]).ok()? == 30).then_some(()));
        pair.server().read_exact(&mut [0; 30]).expect("receive");
        pair.server().write_all(&[2; 7]).expect("answer");
        pair.client().read_exact(&mut [0; 7]).expect("receive");
        pair.close_client();
        pair.release_server();
        for (ends, bytes) in [(pair.client_ends(), (30, 7)), (pair.server_ends(), (7, 30))] {
            let connection = trace.connection(ends);
            let exchanges = trace.exchanges_of(&connection);
            let [exchange] = &exchanges[..] else { panic!("one: {backend:?} {exchanges:#?}") };
            let told = (exchange.bytes_out, exchange.bytes_in);
            assert_eq!(told, (Some(bytes.0), Some(bytes.1)), "{backend:?} {exchange:#?}");
        }
        trace.stop().assert_nothing_lost();
    }
}

#[test]
fn what_is_open_at_the_end_is_reported_as_it_stands() {
    for backend in [Backend::Auto, Backend::Kprobe] {
        open_at_the_end(backend);
    }
}

fn open_at_the_end(backend: Backend) {
    let mut older = Pair::new(Family::V4);
    older.exchange(50, 60);
    let trace = Tracer::trace_by(backend, &["-p", &std::process::id().to_string()]);
    let (mut younger, mut half_dead) = (Pair::new(Family::V6), Pair::new(Family::V4));
    younger.exchange(500, 600);
    half_dead.exchange(5, 6).rest(50);
    let dead_idle = half_dead.end(Pair::close_client);
    trace.open(half_dead.server_ends());
    half_dead.rest(300);
    let mut finished = None;
    let (mut older_idle, mut younger_idle) = ((0.0, 0.0), (0.0, 0.0));
    // The trace ends somewhere between the signal and its end.
    older_idle.0 = older.end(|_| ()).0;
    younger_idle.0 = younger.end(|_| ()).0;
    trace.signal(Signal::SIGINT);
    older_idle.1 = older.end(|_| finished = Some(trace.await_end())).1;
    younger_idle.1 = younger.end(|_| ()).1;
    let trace = finished.expect("the trace has ended");

    trace.assert_nothing_lost();
    let still_open = |connection: &Connection, preexisting, idle: (f64, f64)| {
        assert!(connection.open && connection.close.is_none(), "{connection:#?}");
        assert_eq!((connection.preexisting, connection.closed_at), (preexisting, None));
        connection.assert_idle(idle.0, idle.1);
    };
    for (pair, preexisting, idle, bytes) in
        [(&older, true, older_idle, (50, 60)), (&younger, false, younger_idle, (500, 600))]
    {
        let (client, server) = both(&trace, pair);
        still_open(client, preexisting, idle);
        still_open(server, preexisting, idle);
        client.assert_bytes(bytes.0, bytes.1);
        server.assert_bytes(bytes.1, bytes.0);
    }

    // The peer has closed, and the application still holds it.
    let held = trace.connection(half_dead.server_ends());
    assert!(held.open, "{held:#?}");
    assert_eq!((held.close().closer, held.close().how), (Closer::Peer, How::Fin));
    assert_eq!((held.close().released_at, held.close().ended_at), (None, None));
    assert!(held.close().unnoticed_ms.is_some_and(|ms| ms >= 300.0), "{held:#?}");
    held.assert_idle(dead_idle.0, dead_idle.1);
    held.assert_bytes(6, 5);
}

fn both<'t>(trace: &'t Trace, pair: &Pair) -> (&'t Connection, &'t Connection) {
    let of = |ends: Ends| trace.connection(ends);
    (of(pair.client_ends()), of(pair.server_ends()))
}
