//! Connects that fail or take long.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use harness::{Closer, Connection, Ends, Family, How, Namespace, Pair, Tracer, connect_from, eventually, listen};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::gettid,
};
use socket2::{Domain, SockRef, Socket, Type};

crate::on_both_backends! {
    a_refused_connect
    a_connect_without_a_route
    a_socket_that_connects_again_after_a_failure_makes_two_connections
    a_connect_that_is_given_up
    a_connect_that_nobody_answers_times_out
    a_connect_that_a_router_turns_down_is_unreachable
    a_connect_whose_first_syn_is_lost
    an_established_connection_that_gets_no_answer_times_out
}

const ANY_V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const ANY_V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// A port that nobody listens on.
fn closed_port(family: Family) -> SocketAddr {
    listen(family).local_addr().expect("local address")
}

/// Fails unless a failed connect took as long as the application saw.
#[track_caller]
fn assert_took(connection: &Connection, seen: Duration) {
    let connect_ms = connection.connect_ms.unwrap_or_else(|| panic!("how long it took is known: {connection:#?}"));
    let seen_ms = seen.as_secs_f64() * 1e3;
    assert!(connect_ms > 0.0 && connect_ms <= seen_ms, "{connect_ms} ms of {seen_ms} ms");
    assert!(seen_ms - connect_ms < 300.0, "{connect_ms} ms of {seen_ms} ms");
}

fn a_refused_connect(trace: &Tracer) {
    for (family, any) in [(Family::V4, ANY_V4), (Family::V6, ANY_V6)] {
        let remote = closed_port(family);
        let before = Instant::now();
        let (local, outcome) = connect_from(any, remote);
        let took = before.elapsed();
        assert_eq!(outcome.expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);

        let connection = trace.connection(Ends::new(local, remote));
        connection.assert_ended(Closer::None, How::Refused);
        assert_eq!(connection.close().errno.as_deref(), Some("ECONNREFUSED"));
        assert_took(&connection, took);
        assert_eq!((connection.pid, connection.idle_before_close_ms), (std::process::id(), None));
    }
}

fn a_connect_without_a_route(trace: &Tracer) {
    Namespace::run(|namespace| {
        let remote: SocketAddr = ([192, 0, 2, 7], 4_567).into();
        let error = TcpStream::connect(remote).expect_err("there is no route");
        assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));

        let netns = Some(namespace.number());
        let connection = trace.connection_where("the connect", |c| c.remote == remote && c.netns == netns);
        connection.assert_ended(Closer::None, How::Unreachable);
        assert_eq!(connection.close().errno.as_deref(), Some("ENETUNREACH"));
        assert_eq!(connection.pid, std::process::id());
    });
}

fn a_socket_that_connects_again_after_a_failure_makes_two_connections(trace: &Tracer) {
    let listener = listen(Family::V4);
    let (refused, accepted) = (closed_port(Family::V4), listener.local_addr().expect("local address"));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.connect(&refused.into()).expect_err("nobody listens");
    socket.connect(&accepted.into()).expect("somebody listens");
    let (server, _) = listener.accept().expect("accept");
    let ends = Ends::of(&socket.into());
    drop(server);

    // The port may have been another's before: the thread is this test's alone.
    let tid = u32::try_from(gettid().as_raw()).expect("a number");
    let failed = trace.connection_where("the refused connect", |c| c.remote == refused && c.tid == Some(tid));
    failed.assert_ended(Closer::None, How::Refused);
    let succeeded = trace.connection(ends);
    assert_eq!(succeeded.close().how, How::Fin);
    assert_ne!(failed.id, succeeded.id);
}

/// A connect to a port whose packets are dropped; `then` gets the socket while it waits, and the port.
fn unanswered<T: Send>(prepare: impl Fn(&Namespace) + Send + Sync, then: impl FnOnce(Socket, Ends) -> T + Send) -> T {
    Namespace::run(|namespace| {
        prepare(namespace);
        let remote = closed_port(Family::V4);
        let rule = namespace.drop_incoming(&format!("tcp dport {}", remote.port()));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.set_nonblocking(true).expect("non-blocking");
        let under_way = socket.connect(&remote.into()).expect_err("the connect takes its time");
        assert_eq!(under_way.raw_os_error(), Some(libc::EINPROGRESS));
        eventually("the SYN to be dropped", || (rule.packets() > 0).then_some(()));
        let local = socket.local_addr().expect("local address").as_socket().expect("an address of IPv4");
        then(socket, Ends::new(local, remote))
    })
}

fn a_connect_that_is_given_up(trace: &Tracer) {
    let before = Instant::now();
    let ends = unanswered(|_| (), |_, ends| ends);
    let took = before.elapsed();

    let connection = trace.connection(ends);
    connection.assert_ended(Closer::Local, How::Aborted);
    assert_eq!(connection.close().errno, None);
    let connect_ms = connection.connect_ms.expect("how long it waited is known");
    assert!(connect_ms > 0.0 && connect_ms < took.as_secs_f64() * 1e3, "{connection:#?}");
}

fn a_connect_that_nobody_answers_times_out(trace: &Tracer) {
    // The fewest retries there are; newer kernels add some of their own at first.
    let few_retries = |namespace: &Namespace| namespace.set("ipv4/tcp_syn_retries", "1");
    let before = Instant::now();
    let (ends, took) = unanswered(few_retries, |socket, ends| {
        // As clients wait. To ask for the error again and again takes it from the socket before the kernel has reported it.
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        assert_eq!(poll(&mut waiting, PollTimeout::from(20_000_u16)), Ok(1), "the connect fails");
        let error = socket.take_error().expect("SO_ERROR").expect("an error");
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        (ends, before.elapsed())
    });

    let connection = trace.connection(ends);
    connection.assert_ended(Closer::None, How::Timeout);
    assert_eq!(connection.close().errno.as_deref(), Some("ETIMEDOUT"));
    assert!(connection.syn_retransmits.is_some_and(|again| again >= 1), "{connection:#?}");
    let connect_ms = connection.connect_ms.expect("how long it took is known");
    assert!(connect_ms >= 2_000.0 && connect_ms < took.as_secs_f64() * 1e3, "{connect_ms} ms of {took:?}");
}

fn a_connect_that_a_router_turns_down_is_unreachable(trace: &Tracer) {
    let ends = Namespace::run(|namespace| {
        let remote = closed_port(Family::V4);
        let rule = namespace.reject_incoming(&format!("tcp dport {}", remote.port()), "icmp type host-unreachable");
        let (local, outcome) = connect_from(ANY_V4, remote);
        assert_eq!(outcome.expect_err("turned down").raw_os_error(), Some(libc::EHOSTUNREACH));
        assert!(rule.packets() > 0);
        Ends::new(local, remote)
    });

    let connection = trace.connection(ends);
    connection.assert_ended(Closer::None, How::Unreachable);
    assert_eq!(connection.close().errno.as_deref(), Some("EHOSTUNREACH"));
}

fn a_connect_whose_first_syn_is_lost(trace: &Tracer) {
    let mut pair = Namespace::run(|namespace| {
        let listener = listen(Family::V4);
        let to = listener.local_addr().expect("local address");
        let rule = namespace.drop_incoming(&format!("tcp dport {}", to.port()));
        thread::scope(|scope| {
            let client = scope.spawn(move || TcpStream::connect(to).expect("the second SYN gets through"));
            eventually("the SYN to be dropped", || (rule.packets() > 0).then_some(()));
            drop(rule);
            let (server, _) = listener.accept().expect("accept");
            Pair::of(client.join().expect("the client"), server, harness::monotonic_ns())
        })
    });
    pair.exchange(1, 1).close_client();
    pair.release_server();

    let client = trace.connection(pair.client_ends());
    assert_eq!(client.syn_retransmits, Some(1), "{client:#?}");
    let connect_ms = client.connect_ms.expect("it connected");
    assert!((900.0..1_500.0).contains(&connect_ms), "a SYN is sent again after a second: {client:#?}");
    client.assert_ended(Closer::Local, How::Fin);
}

fn an_established_connection_that_gets_no_answer_times_out(trace: &Tracer) {
    let pair = Namespace::run(|namespace| {
        let mut pair = Pair::new(Family::V4);
        pair.exchange(10, 10).rest(200);
        let patience = Some(Duration::from_millis(1_000));
        SockRef::from(pair.client()).set_tcp_user_timeout(patience).expect("TCP_USER_TIMEOUT");
        let _rule = namespace.drop_incoming(&format!("tcp dport {}", pair.client_ends().remote.port()));
        io::Write::write_all(&mut pair.client(), &[0; 5]).expect("send");
        let error = pair.client().read(&mut [0]).expect_err("nobody answers");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        pair.release_client();
        pair
    });

    let client = trace.connection(pair.client_ends());
    client.assert_ended(Closer::None, How::Timeout);
    assert_eq!(client.close().errno.as_deref(), Some("ETIMEDOUT"));
    client.assert_bytes(15, 10);
    assert!(client.retransmits.is_some_and(|again| again > 0), "{client:#?}");
}
