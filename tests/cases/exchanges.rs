//! Exchanges over plain TCP: what asked, what answered, when, and how many bytes, whatever system calls carried them.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    thread,
    time::Duration,
};

use harness::{
    Backend, Closer, Connection, Exchange, Family, How, Pair, Range, Role, Talk, Tracer, eventually, send_parts,
};
use nix::{
    fcntl::{SpliceFFlags, splice},
    sys::{
        sendfile::sendfile,
        socket::{MsgFlags, recv, setsockopt, sockopt},
    },
    unistd::pipe,
};

crate::on_both_backends! {
    each_turn_is_an_exchange_with_its_gaps_and_bytes
    a_server_that_speaks_first_greets
    looking_at_bytes_is_not_taking_them
    a_receive_that_waits_for_all_counts_each_byte_once
    many_parts_of_one_message_are_one_ask
    spliced_bytes_and_sent_files_count
    sending_nothing_is_no_exchange
    an_ask_without_an_answer_is_told_at_the_end
    an_ask_to_a_peer_that_has_closed_is_stale
    an_answer_after_a_half_close_belongs_to_its_ask
    large_transfers_both_ways_count_every_byte
    a_send_that_waits_lasts_to_its_last_byte
}

/// Both ends' records, held against what passed.
#[track_caller]
fn assert_both_ends(trace: &Tracer, talk: &Talk) -> [(Connection, Vec<Exchange>); 2] {
    [Role::Client, Role::Server].map(|role| {
        let connection = trace.connection(talk.ends(role));
        let exchanges = trace.exchanges_of(&connection);
        talk.assert_exchanges(&connection, &exchanges);
        for exchange in &exchanges {
            assert_eq!((exchange.pid, exchange.open), (std::process::id(), false), "{exchange:#?}");
        }
        (connection, exchanges)
    })
}

fn each_turn_is_an_exchange_with_its_gaps_and_bytes(trace: &Tracer) {
    for family in [Family::V4, Family::V6] {
        let mut talk = Talk::new(family);
        talk.rest(60).ask(100).rest(80).answer(2_000);
        talk.rest(250).ask(50).rest(30).answer(10).rest(40).answer(20);
        // The ask comes in two pieces: one exchange all the same.
        talk.rest(120).ask(7).rest(25).ask(8).rest(50).answer(9);
        let idle = talk.rest(70).close();

        let [(client, exchanges), (server, at_server)] = assert_both_ends(trace, &talk);
        assert_eq!(exchanges.len(), 3);
        let setup = exchanges[0].setup.as_ref().expect("the first one of a client paid the setup");
        assert_eq!((setup.connect_ms, setup.handshake_ms, setup.dns_ms), (client.connect_ms, None, None));
        assert_eq!(setup.total_ms, client.connect_ms);
        assert!(exchanges[1..].iter().all(|warm| warm.setup.is_none()), "{exchanges:#?}");
        assert!(at_server.iter().all(|exchange| exchange.setup.is_none()), "a server pays none: {at_server:#?}");
        assert!(exchanges.iter().all(|exchange| !exchange.stale));
        for (connection, Range(at_least, at_most)) in [&client, &server].into_iter().zip(idle) {
            assert_eq!(connection.stale_exchange, Some(false));
            assert_eq!(connection.tls, None);
            // Exact, as data was seen to pass: the kernel's ticks play no part.
            connection.assert_idle(at_least, at_most);
        }
        client.assert_bytes(165, 2_039);
    }
}

fn a_server_that_speaks_first_greets(trace: &Tracer) {
    let mut talk = Talk::new(Family::V4);
    talk.rest(90).answer(30);
    talk.rest(50).ask(10).rest(40).answer(20);
    talk.close();

    for (_, exchanges) in assert_both_ends(trace, &talk) {
        let [greeting, exchange] = &exchanges[..] else { panic!("two: {exchanges:#?}") };
        assert!(greeting.greeting && !exchange.greeting, "{exchanges:#?}");
        let asked = if greeting.role == Some(Role::Client) { greeting.bytes_out } else { greeting.bytes_in };
        assert_eq!(asked, Some(0), "nobody asked");
    }
}

fn looking_at_bytes_is_not_taking_them(trace: &Tracer) {
    let mut talk = Talk::new(Family::V4);
    let look_and_take = |client: &TcpStream| {
        let mut buffer = [0; 40];
        for _ in 0..3 {
            assert_eq!(client.peek(&mut buffer).expect("MSG_PEEK"), 40);
        }
    };
    talk.ask(5);
    let mut server = talk.pair.server();
    server.write_all(&[3; 40]).expect("send");
    look_and_take(talk.pair.client());
    // Looked at long before it is taken: the answer was received when it was taken.
    talk.rest(150);
    let mut client = talk.pair.client();
    client.read_exact(&mut [0; 40]).expect("receive");
    talk.close();

    let connection = trace.connection(talk.ends(Role::Client));
    connection.assert_bytes(5, 40);
    let exchanges = trace.exchanges_of(&connection);
    let [exchange] = &exchanges[..] else { panic!("one: {exchanges:#?}") };
    assert_eq!((exchange.bytes_out, exchange.bytes_in), (Some(5), Some(40)));
    assert!(exchange.first_byte_ms.is_some_and(|ms| ms >= 150.0), "{exchange:#?}");
}

fn a_receive_that_waits_for_all_counts_each_byte_once(trace: &Tracer) {
    const PIECES: usize = 3;
    let mut talk = Talk::new(Family::V4);
    talk.ask(5);
    let client = talk.pair.client().as_raw_fd();
    let receive = |bytes: usize, how| recv(client, &mut vec![0; bytes], how).expect("receive");
    let mut server = talk.pair.server();
    thread::scope(|scope| {
        let waits = scope.spawn(|| receive(PIECES * 20, MsgFlags::MSG_WAITALL));
        for _ in 0..PIECES {
            thread::sleep(Duration::from_millis(50));
            server.write_all(&[3; 20]).expect("send");
        }
        assert_eq!(waits.join().expect("a receive"), PIECES * 20);
    });
    // What is thrown away was received all the same, and so was what goes elsewhere by the same thread.
    server.write_all(&[3; 60]).expect("send");
    assert_eq!(receive(60, MsgFlags::MSG_TRUNC), 60);
    server.write_all(&[3; 60]).expect("send");
    let (_from, to) = pipe().expect("a pipe");
    let spliced = splice(talk.pair.client(), None, &to, None, 60, SpliceFFlags::empty());
    assert_eq!(spliced, Ok(60));
    talk.close();

    let connection = trace.connection(talk.ends(Role::Client));
    connection.assert_bytes(5, 180);
    let exchanges = trace.exchanges_of(&connection);
    let [exchange] = &exchanges[..] else { panic!("one: {exchanges:#?}") };
    assert_eq!((exchange.bytes_out, exchange.bytes_in), (Some(5), Some(180)), "{exchange:#?}");
}

fn many_parts_of_one_message_are_one_ask(trace: &Tracer) {
    let parts: Vec<Vec<u8>> = (0..200).map(|index| vec![9; index % 7]).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let bytes = parts.iter().map(|part| part.len()).sum();
    let mut talk = Talk::new(Family::V6);
    talk.ask_by(bytes, |client| send_parts(client, &parts)).rest(30);
    talk.answer_by(
        bytes,
        |server| send_parts(server, &parts),
        |client| {
            let mut buffers = vec![vec![0; 10]; bytes.div_ceil(10)];
            let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| std::io::IoSliceMut::new(buffer)).collect();
            let mut client = client;
            assert_eq!(client.read_vectored(&mut slices).expect("recvmsg"), bytes);
        },
    );
    talk.close();

    assert_both_ends(trace, &talk);
}

fn spliced_bytes_and_sent_files_count(trace: &Tracer) {
    const BYTES: usize = 30_000;
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&vec![4; BYTES]).expect("a file of that length");
    let mut talk = Talk::new(Family::V4);
    talk.ask_by(BYTES, |client| {
        send_file(client, &file, BYTES);
    });
    talk.rest(40).answer_by(BYTES, |server| send_file(server, &file, BYTES), |client| splice_away(client, BYTES));
    talk.rest(30).ask(3).answer(4);
    talk.close();

    assert_both_ends(trace, &talk);
}

fn send_file(to: impl AsFd, file: &File, bytes: usize) {
    let mut offset = 0;
    while (offset as usize) < bytes {
        let left = bytes - offset as usize;
        let sent = sendfile(to.as_fd(), file.as_fd(), Some(&mut offset), left).expect("sendfile");
        assert!(sent > 0, "the file is long enough");
    }
}

/// Takes bytes out of a socket without their ever coming to user space.
fn splice_away(from: &TcpStream, bytes: usize) {
    let (read_end, write_end) = pipe().expect("a pipe");
    let sink = File::options().write(true).open("/dev/null").expect("/dev/null");
    let mut left = bytes;
    while left > 0 {
        left -= move_on(from.as_fd(), write_end.as_fd(), left.min(4_096), &read_end, &sink);
    }
}

fn move_on(from: BorrowedFd<'_>, pipe: BorrowedFd<'_>, most: usize, out: &impl AsFd, sink: &File) -> usize {
    let moved = splice(from, None, pipe, None, most, SpliceFFlags::empty()).expect("splice from a socket");
    assert!(moved > 0, "the peer has sent more");
    let mut left = moved;
    while left > 0 {
        left -= splice(out, None, sink, None, left, SpliceFFlags::empty()).expect("splice to nowhere");
    }
    moved
}

fn sending_nothing_is_no_exchange(trace: &Tracer) {
    let mut talk = Talk::new(Family::V4);
    let send_nothing = |stream: &TcpStream| {
        let sent = nix::sys::socket::send(stream.as_raw_fd(), &[], MsgFlags::empty());
        assert_eq!(sent.expect("send"), 0);
    };
    send_nothing(talk.pair.client());
    send_nothing(talk.pair.server());
    talk.rest(60).ask(10).rest(30);
    // Neither does an empty answer answer, nor an empty ask ask.
    send_nothing(talk.pair.server());
    talk.rest(40).answer(10).rest(50);
    send_nothing(talk.pair.client());
    talk.rest(50).answer(5);
    talk.close();

    let [(_, exchanges), _] = assert_both_ends(trace, &talk);
    assert_eq!(exchanges.len(), 1, "{exchanges:#?}");
}

fn an_ask_without_an_answer_is_told_at_the_end(trace: &Tracer) {
    let mut talk = Talk::new(Family::V4);
    talk.ask(10).answer(20).rest(100).ask(30).rest(60);
    talk.close();

    let [(_, exchanges), (_, at_server)] = assert_both_ends(trace, &talk);
    for exchanges in [&exchanges, &at_server] {
        assert_eq!(exchanges.len(), 2);
        assert_eq!((exchanges[1].first_byte_ms, exchanges[1].open), (None, false), "{exchanges:#?}");
    }
}

fn an_ask_to_a_peer_that_has_closed_is_stale(trace: &Tracer) {
    let mut talk = Talk::new(Family::V4);
    talk.ask(10).answer(20).rest(80);
    talk.pair.close_server();
    talk.rest(50);
    let mut client = talk.pair.client();
    client.write_all(&[0; 15]).expect("the first send to a closed peer is taken");
    eventually("the RST that answers it", || {
        let error = SockError::of(talk.pair.client());
        error.is_reset().then_some(())
    });
    talk.pair.release_client();

    let connection = trace.connection(talk.ends(Role::Client));
    connection.assert_ended(Closer::Peer, How::Fin);
    assert_eq!(connection.stale_exchange, Some(true), "{connection:#?}");
    let exchanges = trace.exchanges_of(&connection);
    let [alive, stale] = &exchanges[..] else { panic!("two: {exchanges:#?}") };
    assert!(!alive.stale && stale.stale, "{exchanges:#?}");
    assert_eq!((stale.first_byte_ms, stale.bytes_out, stale.bytes_in), (None, Some(15), Some(0)));
    assert!(stale.idle_before_ms.is_some_and(|ms| ms >= 130.0), "{stale:#?}");
    let server = trace.connection(talk.ends(Role::Server));
    assert_eq!(server.stale_exchange, Some(false), "the server let go of it itself: {server:#?}");
}

/// Whether a socket has felt an RST; asking does not take the error away.
struct SockError(nix::poll::PollFlags);

impl SockError {
    fn of(stream: &TcpStream) -> Self {
        let mut fds = [nix::poll::PollFd::new(stream.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, 0_u8).expect("poll");
        Self(fds[0].revents().unwrap_or(nix::poll::PollFlags::empty()))
    }

    fn is_reset(&self) -> bool {
        self.0.contains(nix::poll::PollFlags::POLLERR)
    }
}

fn an_answer_after_a_half_close_belongs_to_its_ask(trace: &Tracer) {
    let mut talk = Talk::new(Family::V6);
    talk.ask(10).rest(20);
    talk.pair.client().shutdown(Shutdown::Write).expect("shutdown");
    talk.rest(100).answer(3_000);
    talk.pair.close_server();
    talk.pair.release_client();

    let [(client, exchanges), _] = assert_both_ends(trace, &talk);
    assert_eq!(exchanges.len(), 1);
    assert_eq!(client.stale_exchange, Some(false), "the half close was our own: {client:#?}");
}

fn large_transfers_both_ways_count_every_byte(trace: &Tracer) {
    const BYTES: usize = 3_000_000;
    let pair = Pair::new(Family::V4);
    let (mut client, mut server) = (pair.client(), pair.server());
    thread::scope(|scope| {
        scope.spawn(move || {
            server.read_exact(&mut vec![0; BYTES]).expect("receive");
            server.write_all(&vec![0; 2 * BYTES]).expect("send");
        });
        client.write_all(&vec![0; BYTES]).expect("send");
        client.read_exact(&mut vec![0; 2 * BYTES]).expect("receive");
    });
    let ends = [pair.client_ends(), pair.server_ends()];
    drop(pair);
    for (ends, out, into) in [(ends[0], BYTES, 2 * BYTES), (ends[1], 2 * BYTES, BYTES)] {
        let connection = trace.connection(ends);
        let exchanges = trace.exchanges_of(&connection);
        let [exchange] = &exchanges[..] else { panic!("one: {exchanges:#?}") };
        assert_eq!((exchange.bytes_out, exchange.bytes_in), (Some(out as u64), Some(into as u64)));
        // The server may get rid of all in one go.
        let is_server = exchange.role == Some(Role::Server);
        assert!(is_server || exchange.duration_ms > exchange.first_byte_ms, "{exchange:#?}");
    }
}

fn a_send_that_waits_lasts_to_its_last_byte(trace: &Tracer) {
    const BYTES: usize = 3_000_000;
    const WAIT: Duration = Duration::from_millis(300);
    let mut talk = Talk::new(Family::V4);
    talk.ask(10);
    let (mut client, mut server) = (talk.pair.client(), talk.pair.server());
    // No more fits into its buffer and the client's.
    setsockopt(&server, sockopt::SndBuf, &65_536).expect("SO_SNDBUF");
    setsockopt(&client, sockopt::RcvBuf, &65_536).expect("SO_RCVBUF");
    thread::scope(|scope| {
        scope.spawn(move || server.write_all(&vec![0; BYTES]).expect("send"));
        thread::sleep(WAIT);
        client.read_exact(&mut vec![0; BYTES]).expect("receive");
    });
    talk.close();
    let server = trace.connection(talk.ends(Role::Server));
    let exchanges = trace.exchanges_of(&server);
    let [exchange] = &exchanges[..] else { panic!("one: {exchanges:#?}") };
    let (first, all) = (exchange.first_byte_ms.expect("answered"), exchange.duration_ms.expect("answered"));
    // Nearly all of the wait: it begins when the buffers are full.
    assert!(all - first > 0.8 * WAIT.as_secs_f64() * 1e3, "{exchange:#?}");
    assert!(server.idle_before_close_ms.is_some_and(|idle| idle < 200.0), "its last byte was just sent: {server:#?}");
}

#[test]
fn what_is_under_way_when_the_trace_stops_is_open() {
    let mut older = Talk::new(Family::V4);
    let tracer = Tracer::trace(&["-p", &std::process::id().to_string()]);
    let mut younger = Talk::new(Family::V4);
    younger.ask(10).answer(20).rest(50).ask(30).rest(40).answer(40);
    older.ask(5).answer(6);
    let trace = tracer.stop();
    trace.assert_nothing_lost();
    for role in [Role::Client, Role::Server] {
        let connection = trace.connection(younger.ends(role));
        let exchanges = trace.exchanges_of(connection);
        let [done, present] = &exchanges[..] else { panic!("two: {exchanges:#?}") };
        assert!(!done.open && present.open, "{exchanges:#?}");
        let (out, into) = if role == Role::Client { (30, 40) } else { (40, 30) };
        assert_eq!((present.bytes_out, present.bytes_in), (Some(out), Some(into)), "{present:#?}");
        assert!(present.first_byte_ms.is_some_and(|ms| ms > 0.0), "{present:#?}");
        // Whether an older connection had exchanges before is not known.
        for exchange in trace.exchanges_of(trace.connection(older.ends(role))) {
            assert_eq!((exchange.cold, exchange.setup), (None, None));
        }
    }
}

/// Two keep-alive connections to one listener, of two exchanges each.
fn some_exchanges(args: &[&str]) -> (harness::Trace, harness::Ends) {
    let listener = harness::listen(Family::V4);
    let port = listener.local_addr().expect("local address").port().to_string();
    let tracer = Tracer::trace(&[&["--port", &port], args].concat());
    let mut ends = None;
    for _ in 0..2 {
        let mut pair = Pair::through(&listener);
        pair.exchange(10, 20).rest(30).exchange(5, 6).close_client();
        pair.release_server();
        tracer.connection(pair.client_ends());
        tracer.connection(pair.server_ends());
        ends = Some(pair.client_ends());
    }
    let trace = tracer.stop();
    trace.assert_nothing_lost();
    (trace, ends.expect("a connection"))
}

#[test]
fn without_their_lines_exchanges_are_still_counted() {
    let (with, _) = some_exchanges(&[]);
    assert_eq!(with.exchanges.len(), 8, "two connections, two ends, two exchanges: {with:#?}");
    let (without, ends) = some_exchanges(&["--no-exchanges"]);
    assert_eq!(without.exchanges, []);
    assert_eq!(without.connection(ends).exchanges, Some(2));
    assert!(without.connection(ends).max_idle_ms.is_some_and(|ms| ms >= 30.0));
    let groups = &without.summary().groups;
    let of_clients = groups.iter().find(|group| group["role"] == "client").expect("the clients' group");
    assert_eq!((&of_clients["exchanges"], &of_clients["cold"], &of_clients["warm"]), (&4.into(), &2.into(), &2.into()));
    assert_eq!(of_clients["exchanges_per_connection"].as_f64(), Some(2.0));
}

#[test]
fn detail_connections_hooks_neither_send_nor_receive() {
    let names = |trace: &harness::Trace| -> Vec<String> {
        trace.hooks().iter().filter(|hook| hook.backend.is_some()).map(|hook| hook.name.clone()).collect()
    };
    // Tracing programs are attached to functions; these are on the way of every byte.
    let per_byte = |name: &String| {
        ["sendmsg", "sendpage", "recvmsg", "cleanup_rbuf", "splice", "sock_send", "sock_recv"]
            .iter()
            .any(|part| name.contains(part))
    };
    let (bare, ends) = some_exchanges(&["--detail", "connections"]);
    assert_eq!(names(&bare).into_iter().filter(per_byte).collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!(bare.exchanges, []);
    let connection = bare.connection(ends);
    assert_eq!((connection.exchanges, connection.max_idle_ms, connection.stale_exchange), (None, None, None));
    assert_eq!(connection.tls, None);
    let (full, _) = some_exchanges(&["--detail", "exchanges"]);
    assert!(names(&full).iter().any(per_byte), "{:#?}", full.hooks());
    assert_eq!(full.exchanges.len(), 8);
}

#[test]
fn a_busy_connection_loses_no_exchange() {
    const TURNS: usize = 1_000;
    let mut pair = Pair::new(Family::V4);
    let ends = pair.client_ends();
    let tracer = Tracer::trace_by(Backend::Auto, &["-p", &std::process::id().to_string()]);
    for _ in 0..TURNS {
        pair.exchange(1, 1);
    }
    pair.close_client();
    pair.release_server();
    tracer.connection(ends);
    tracer.connection(ends.flipped());
    thread::sleep(Duration::from_millis(200));
    let trace = tracer.stop();
    trace.assert_nothing_lost();
    for ends in [ends, ends.flipped()] {
        let connection = trace.connection(ends);
        assert_eq!(connection.exchanges, Some(TURNS as u64));
        assert_eq!(trace.exchanges_of(connection).len(), TURNS);
    }
}
