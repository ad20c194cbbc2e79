//! Who closed, how, after what: both roles, every manner of closing, with the best hooks and with kprobes.

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use harness::{Actor, Closer, Ends, Family, How, Pair, Role, Tracer, eventually, listen, set_linger_zero, unread};
use socket2::SockRef;

crate::on_both_backends! {
    the_client_closes_first
    the_server_closes_first
    v4_mapped_addresses_are_shown_as_ipv4
    a_reset_by_the_client_with_linger_0
    a_reset_by_the_server_with_linger_0
    a_close_with_unread_data_is_the_closers_reset_and_no_failure
    a_half_close_is_the_end_but_bytes_go_on_counting
    a_killed_process_closes_because_it_exited
    the_peer_closes_before_the_accept
    the_peer_resets_before_the_accept
    keepalive_is_told
    no_data_means_idle_since_the_handshake
}

fn the_client_closes_first(trace: &Tracer) {
    let mut pair = Pair::new(Family::V4);
    pair.exchange(1_000, 70_000).rest(300);
    let (at_least, at_most) = pair.end(Pair::close_client);
    pair.rest(200).release_server();

    let client = trace.connection(pair.client_ends());
    assert_eq!((client.role, client.family.as_str()), (Some(Role::Client), "ipv4"));
    assert_eq!(client.pid, std::process::id());
    client.assert_ended(Closer::Local, How::Fin);
    client.assert_bytes(1_000, 70_000);
    client.assert_idle(at_least, at_most);
    let connect_ms = client.connect_ms.expect("a client's connect time is known");
    assert!(connect_ms > 0.0 && connect_ms < 1_000.0, "{client:#?}");
    assert_eq!(client.close().errno, None);
    assert_eq!(client.close().unnoticed_ms, None);
    assert!(client.srtt_ms.is_some_and(|ms| ms > 0.0), "{client:#?}");
    assert_eq!((client.syn_retransmits, client.retransmits), (Some(0), Some(0)));
    assert!(!client.preexisting && !client.close().process_exited);

    let server = trace.connection(pair.server_ends());
    assert_eq!((server.role, server.family.as_str()), (Some(Role::Server), "ipv4"));
    server.assert_ended(Closer::Peer, How::Fin);
    server.assert_bytes(70_000, 1_000);
    server.assert_idle(at_least, at_most);
    assert_eq!(server.connect_ms, None, "a server does not connect");
    let unnoticed_ms = server.close().unnoticed_ms.expect("the peer's FIN was seen");
    assert!((200.0..2_000.0).contains(&unnoticed_ms), "{server:#?}");
    let open = trace.open(pair.server_ends());
    assert_eq!((open.id, open.preexisting), (server.id, false));
}

fn the_server_closes_first(trace: &Tracer) {
    let mut pair = Pair::new(Family::V6);
    pair.exchange(10, 20).rest(100);
    let (at_least, at_most) = pair.end(Pair::close_server);
    pair.release_client();

    let client = trace.connection(pair.client_ends());
    assert_eq!((client.role, client.family.as_str()), (Some(Role::Client), "ipv6"));
    client.assert_ended(Closer::Peer, How::Fin);
    client.assert_bytes(10, 20);
    client.assert_idle(at_least, at_most);
    let server = trace.connection(pair.server_ends());
    server.assert_ended(Closer::Local, How::Fin);
    server.assert_bytes(20, 10);
    server.assert_idle(at_least, at_most);
}

fn v4_mapped_addresses_are_shown_as_ipv4(trace: &Tracer) {
    let mut pair = Pair::new(Family::Mapped);
    pair.exchange(5, 6).close_client();
    pair.release_server();

    for ends in [pair.client_ends(), pair.server_ends()] {
        assert!(ends.local.is_ipv4(), "this is how the lookup names them: {ends:?}");
        let connection = trace.connection(ends);
        assert_eq!(connection.family, "ipv4");
        assert!(connection.local.is_ipv4() && connection.remote.is_ipv4(), "{connection:#?}");
    }
}

fn a_reset_by_the_client_with_linger_0(trace: &Tracer) {
    let mut pair = Pair::new(Family::V4);
    pair.exchange(100, 200).rest(50);
    let (at_least, at_most) = pair.end(Pair::reset_client);
    pair.release_server();

    let client = trace.connection(pair.client_ends());
    client.assert_ended(Closer::Local, How::Rst);
    assert_eq!(client.close().errno, None, "a reset on purpose is no failure");
    let server = trace.connection(pair.server_ends());
    server.assert_ended(Closer::Peer, How::Rst);
    assert_eq!(server.close().errno.as_deref(), Some("ECONNRESET"));
    for (end, sent, received) in [(&client, 100, 200), (&server, 200, 100)] {
        end.assert_bytes(sent, received);
        end.assert_idle(at_least, at_most);
    }
}

fn a_reset_by_the_server_with_linger_0(trace: &Tracer) {
    let mut pair = Pair::new(Family::V6);
    pair.exchange(100, 200);
    let (at_least, at_most) = pair.end(Pair::reset_server);
    pair.rest(100);
    pair.release_client();

    let server = trace.connection(pair.server_ends());
    server.assert_ended(Closer::Local, How::Rst);
    assert_eq!(server.close().errno, None);
    let client = trace.connection(pair.client_ends());
    client.assert_ended(Closer::Peer, How::Rst);
    client.assert_idle(at_least, at_most);
    assert_eq!(client.close().errno.as_deref(), Some("ECONNRESET"));
    let unnoticed_ms = client.close().unnoticed_ms.expect("the peer's RST was seen");
    assert!(unnoticed_ms >= 100.0, "it was kept for 100 ms: {client:#?}");
}

fn a_close_with_unread_data_is_the_closers_reset_and_no_failure(trace: &Tracer) {
    let mut pair = Pair::new(Family::V4);
    pair.exchange(10, 10);
    unread(pair.server(), pair.client(), 500);
    pair.close_client_unread();
    pair.release_server();

    let client = trace.connection(pair.client_ends());
    client.assert_ended(Closer::Local, How::Rst);
    client.assert_bytes(10, 510);
    assert_eq!(client.close().errno, None);
    let server = trace.connection(pair.server_ends());
    server.assert_ended(Closer::Peer, How::Rst);
    server.assert_bytes(510, 10);
}

fn a_half_close_is_the_end_but_bytes_go_on_counting(trace: &Tracer) {
    let mut pair = Pair::new(Family::V4);
    pair.exchange(10, 20).rest(60);
    let (at_least, at_most) = pair.end(Pair::half_close_client);
    pair.rest(150).exchange(0, 3_000);
    pair.close_server();
    pair.release_client();

    let client = trace.connection(pair.client_ends());
    client.assert_ended(Closer::Local, How::Fin);
    client.assert_bytes(10, 3_020);
    client.assert_idle(at_least, at_most);
    let server = trace.connection(pair.server_ends());
    server.assert_ended(Closer::Peer, How::Fin);
    server.assert_bytes(3_020, 10);
    server.assert_idle(at_least, at_most);
    assert!(server.close().unnoticed_ms.is_some_and(|ms| ms >= 150.0), "{server:#?}");
}

fn a_killed_process_closes_because_it_exited(trace: &Tracer) {
    let listener = listen(Family::V4);
    let mut actor = Actor::new();
    let ends = actor.connect(listener.local_addr().expect("address"));
    let (server, _) = listener.accept().expect("accept");
    actor.order("send 7");
    actor.kill();
    drop(server);

    let client = trace.connection(ends);
    assert_eq!((client.pid, client.comm.as_str()), (actor.pid(), "actor"));
    assert!(client.exe.as_deref().is_some_and(|exe| exe.ends_with("/actor")), "{client:#?}");
    client.assert_ended(Closer::Local, How::Fin);
    client.assert_bytes(7, 0);
    assert!(client.close().process_exited, "{client:#?}");
    let server = trace.connection(ends.flipped());
    // The killed process's FIN came first; the server then closed with 7 bytes unread.
    server.assert_ended(Closer::Peer, How::Fin);
    assert!(!server.close().process_exited, "{server:#?}");
}

fn the_peer_closes_before_the_accept(trace: &Tracer) {
    let listener = listen(Family::V4);
    let (mut client, ends) = lone_client(&listener);
    client.write_all(&[0; 9]).expect("send");
    drop(client);
    // Over loopback the FIN has arrived when the close returns. The idle time must not grow while nobody accepts.
    thread::sleep(Duration::from_millis(100));
    drop(listener.accept().expect("accept"));

    let server = trace.connection(ends.flipped());
    server.assert_ended(Closer::Peer, How::Fin);
    server.assert_bytes(0, 9);
    server.assert_idle(0.0, 0.0);
}

fn the_peer_resets_before_the_accept(trace: &Tracer) {
    let listener = listen(Family::V4);
    let (client, ends) = lone_client(&listener);
    set_linger_zero(&client);
    drop(client);
    eventually("the RST to arrive", || (!is_live(ends.flipped())).then_some(()));
    drop(listener.accept().expect("accept"));

    let server = trace.connection(ends.flipped());
    server.assert_ended(Closer::Peer, How::Rst);
    assert_eq!(server.close().errno.as_deref(), Some("ECONNRESET"));
}

fn lone_client(listener: &TcpListener) -> (TcpStream, Ends) {
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let ends = Ends::of(&client);
    (client, ends)
}

/// Whether TCP still finds a socket of IPv4 by its ends; one that was reset it does not.
fn is_live(ends: Ends) -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("the kernel's table of sockets");
    let (local, remote) = (format!(":{:04X}", ends.local.port()), format!(":{:04X}", ends.remote.port()));
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|word| word.ends_with(&local)) && words.next().is_some_and(|w| w.ends_with(&remote))
    })
}

fn keepalive_is_told(trace: &Tracer) {
    let mut pair = Pair::new(Family::V4);
    SockRef::from(pair.client()).set_keepalive(true).expect("SO_KEEPALIVE");
    pair.exchange(1, 1).close_client();
    pair.release_server();

    assert_eq!(trace.connection(pair.client_ends()).keepalive, Some(true));
    assert_eq!(trace.connection(pair.server_ends()).keepalive, Some(false));
}

fn no_data_means_idle_since_the_handshake(trace: &Tracer) {
    let mut pair = Pair::new(Family::V4);
    pair.rest(150);
    let (at_least, at_most) = pair.end(Pair::close_server);
    pair.release_client();

    for ends in [pair.client_ends(), pair.server_ends()] {
        let connection = trace.connection(ends);
        connection.assert_bytes(0, 0);
        connection.assert_idle(at_least, at_most);
    }
}
