//! Lets a connection live as planned, and says what is true of its sockets.

use std::{
    collections::HashSet,
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::Mutex,
    thread,
    time::Duration,
};

use harness::{
    Actor, Closer, Ends, Expected, Family, How, Log, Pair, Range, Role, Span, Talk, accuracy::Truth, connect_from,
    listen, monotonic_ns, wall_ns,
};
use socket2::{Domain, Socket, Type};

use crate::plan::{End, Plan, Side};

const LOCALHOST_V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Where connects go that are to fail.
pub struct Places {
    /// A listener whose queue is full: it answers no further SYN.
    full: TcpListener,
    /// What fills its queue.
    filler: TcpStream,
    filled_at: Span,
    /// Local ports of the connects to it, so that none comes up twice.
    used: Mutex<HashSet<u16>>,
}

impl Places {
    pub fn new() -> Self {
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        full.bind(&LOCALHOST_V4.into()).and_then(|()| full.listen(0)).expect("a listener");
        let full: TcpListener = full.into();
        let to = full.local_addr().expect("local address");
        let (filled_at, filler) = Span::of(|| TcpStream::connect(to).expect("the first fits"));
        Self { full, filler, filled_at, used: Mutex::default() }
    }

    /// A socket with a port that has not been used before, and its address.
    fn fresh_socket(&self) -> (Socket, SocketAddr) {
        loop {
            let (socket, local) = bound(LOCALHOST_V4);
            if self.used.lock().expect("no thread failed").insert(local.port()) {
                return (socket, local);
            }
        }
    }

    /// Ends the connection that filled the queue; nobody ever accepted it.
    pub fn close(self) -> Truth {
        let ends = Ends::of(&self.filler);
        let (closing, released) = Span::of(|| release(self.filler));
        let log = Log::new([self.filled_at; 2]);
        Truth {
            index: usize::MAX,
            life: "fills the queue of a listener".to_owned(),
            role: Role::Client,
            local: ends.local,
            remote: ends.remote,
            connect_ms: Some(took_ms(self.filled_at)),
            bytes: Some((0, 0)),
            closer: Closer::Local,
            how: How::Fin,
            process_exited: false,
            idle_ms: Some(log.idle(Role::Client, closing)),
            idle_is_exact: false,
            exchanges: Some(log.expected(Role::Client)),
            released: Some(released),
            tls: None,
            lookup: None,
        }
    }
}

/// A socket with a port.
fn bound(to: SocketAddr) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
    socket.bind(&to.into()).expect("a port");
    let local = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("local address");
    (socket, local)
}

fn took_ms(span: Span) -> f64 {
    (span.after - span.before) as f64 / 1e6
}

/// Lets go of it; returns the wall-clock time before and after.
fn release(end: TcpStream) -> (u64, u64) {
    let before = wall_ns();
    drop(end);
    (before, wall_ns())
}

/// Lets it live; returns what is true of its sockets.
pub fn live(index: usize, plan: &Plan, places: &Places, process: Option<Actor>) -> Vec<Truth> {
    let mut truths = match plan.end {
        End::Refused => vec![refused(plan.family)],
        End::Unreachable => vec![unreachable(index)],
        End::Aborted => vec![aborted(plan.idle_ms, places)],
        End::Exit => exit(plan, process.expect("a process for each plan that needs one")),
        End::Close(_) | End::HalfClose(..) | End::Reset(_) | End::Unread(..) => pair(plan),
    };
    for truth in &mut truths {
        (truth.index, truth.life) = (index, format!("{plan:?}"));
    }
    truths
}

fn failed(local: SocketAddr, remote: SocketAddr, how: How, connect_ms: Option<f64>) -> Truth {
    let ends = Ends::new(local, remote);
    Truth {
        index: 0,
        life: String::new(),
        role: Role::Client,
        local: ends.local,
        remote: ends.remote,
        connect_ms,
        bytes: None,
        closer: if how == How::Aborted { Closer::Local } else { Closer::None },
        how,
        process_exited: false,
        idle_ms: None,
        idle_is_exact: false,
        exchanges: None,
        released: None,
        tls: None,
        lookup: None,
    }
}

fn refused(family: Family) -> Truth {
    let any = if family == Family::V6 { (Ipv6Addr::LOCALHOST, 0).into() } else { LOCALHOST_V4 };
    // The port is taken, but nobody listens.
    let (_closed, remote) = bound(any);
    let (at, (local, outcome)) = Span::of(|| connect_from(any, remote));
    assert_eq!(outcome.expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
    failed(local, remote, How::Refused, Some(took_ms(at)))
}

/// Each goes elsewhere, as the local end stays unknown.
fn unreachable(index: usize) -> Truth {
    let remote: SocketAddr = ([192, 0, 2, 1 + (index >> 15) as u8], 1_024 + (index & 0x7fff) as u16).into();
    let error = TcpStream::connect(remote).expect_err("no route");
    assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
    failed((Ipv4Addr::UNSPECIFIED, 0).into(), remote, How::Unreachable, None)
}

fn aborted(after_ms: u64, places: &Places) -> Truth {
    let remote = places.full.local_addr().expect("local address");
    let (socket, local) = places.fresh_socket();
    socket.set_nonblocking(true).expect("non-blocking");
    let before = monotonic_ns();
    socket.connect(&remote.into()).expect_err("it takes its time");
    thread::sleep(Duration::from_millis(after_ms));
    drop(socket);
    failed(local, remote, How::Aborted, Some(took_ms(Span { before, after: monotonic_ns() })))
}

/// Bytes that one call sends or takes. Both ends may be on one thread, so this has to fit the buffers.
const PIECE: usize = 16 * 1024;

/// The sizes of the calls that carry so many bytes.
fn pieces(bytes: usize) -> impl Iterator<Item = usize> {
    (0..bytes).step_by(PIECE).map(move |from| PIECE.min(bytes - from))
}

/// Both ends in this process.
fn pair(plan: &Plan) -> Vec<Truth> {
    let mut talk = Talk::new(plan.family);
    for exchange in &plan.exchanges {
        talk.rest(exchange.gap_ms);
        say(&mut talk, exchange.request, exchange.response);
    }
    match plan.end {
        End::Unread(Side::Client, bytes) => _ = talk.answer_in_vain(bytes),
        End::Unread(Side::Server, bytes) => _ = talk.ask_in_vain(bytes),
        _ => {}
    }
    talk.rest(plan.idle_ms);
    let (by, how) = match plan.end {
        End::Close(by) | End::HalfClose(by, _) => (by, How::Fin),
        End::Reset(by) | End::Unread(by, _) => (by, How::Rst),
        End::Exit | End::Refused | End::Unreachable | End::Aborted => unreachable!("these have no pair"),
    };
    let (closing, ()) = Span::of(|| end(&mut talk.pair, plan.end));
    let idle = [Role::Client, Role::Server].map(|role| (talk.log.idle(role, closing), talk.log.has_passed(role)));
    talk.rest(plan.unnoticed_ms);
    match plan.end {
        End::HalfClose(Side::Client, bytes) => say(&mut talk, 0, bytes),
        End::HalfClose(Side::Server, bytes) => {
            talk.log.server_closes();
            say(&mut talk, bytes, 0);
        }
        _ => {}
    }
    // What was sent in vain reached the other end all the same.
    let [up, down] = [Role::Client, Role::Server].map(|role| talk.log.bytes(role).0);
    let exchanges = [Role::Client, Role::Server].map(|role| talk.log.expected(role));
    Ending { by, how, bytes: (up, down), idle, exchanges }.truths(&mut talk.pair)
}

/// How a connection came to its end that had both ends in this process.
pub struct Ending {
    pub by: Side,
    pub how: How,
    /// To the server, and to the client.
    pub bytes: (u64, u64),
    /// Of the client and of the server; and whether data had passed there.
    pub idle: [(Range, bool); 2],
    /// Of the client and of the server.
    pub exchanges: [Vec<Expected>; 2],
}

impl Ending {
    /// Lets go of what is still held. Returns what is true of the client's socket, and of the server's.
    pub fn truths(self, pair: &mut Pair) -> Vec<Truth> {
        // The other side follows; after a half-close it is the first to let go.
        if self.by == Side::Client {
            pair.release_server();
            pair.release_client();
        } else {
            pair.release_client();
            pair.release_server();
        }
        let [client, server] = pair.released();
        let truth = |role, side, ends: Ends, bytes, connect_ms, (idle_ms, idle_is_exact), exchanges, released| Truth {
            index: 0,
            life: String::new(),
            role,
            local: ends.local,
            remote: ends.remote,
            connect_ms,
            bytes: Some(bytes),
            closer: if side == self.by { Closer::Local } else { Closer::Peer },
            how: self.how,
            process_exited: false,
            idle_ms: Some(idle_ms),
            idle_is_exact,
            exchanges: Some(exchanges),
            released,
            tls: None,
            lookup: None,
        };
        let ((up, down), [by_client, by_server]) = (self.bytes, self.exchanges);
        let (near, far, connect_ms) = (pair.client_ends(), pair.server_ends(), pair.connect_ms());
        vec![
            truth(Role::Client, Side::Client, near, (up, down), connect_ms, self.idle[0], by_client, client),
            truth(Role::Server, Side::Server, far, (down, up), None, self.idle[1], by_server, server),
        ]
    }
}

/// One turn, in calls that fit the buffers.
fn say(talk: &mut Talk, request: usize, response: usize) {
    pieces(request).for_each(|bytes| _ = talk.ask(bytes));
    pieces(response).for_each(|bytes| _ = talk.answer(bytes));
}

/// Ends it as planned.
pub fn end(pair: &mut Pair, end: End) {
    match end {
        End::Close(Side::Client) => pair.close_client(),
        End::Close(Side::Server) => pair.close_server(),
        End::HalfClose(Side::Client, _) => pair.half_close_client(),
        End::HalfClose(Side::Server, _) => pair.half_close_server(),
        End::Reset(Side::Client) => pair.reset_client(),
        End::Reset(Side::Server) => pair.reset_server(),
        End::Unread(Side::Client, _) => pair.close_client_unread(),
        End::Unread(Side::Server, _) => pair.close_server_unread(),
        End::Exit | End::Refused | End::Unreachable | End::Aborted => unreachable!("these have no pair"),
    }
}

/// The client is a process of its own, and ends without closing.
fn exit(plan: &Plan, mut client: Actor) -> Vec<Truth> {
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let (connected, ends) = Span::of(|| client.connect(to));
    let (accepted, (mut server, _)) = Span::of(|| listener.accept().expect("accept"));
    let mut log = Log::new([connected, accepted]);
    for exchange in &plan.exchanges {
        thread::sleep(Duration::from_millis(exchange.gap_ms));
        for bytes in pieces(exchange.request) {
            log.send(Role::Client, bytes, || _ = client.order(&format!("send {bytes}")));
            log.take(Role::Server, bytes, || server.read_exact(&mut vec![0; bytes]).expect("the request"));
        }
        for bytes in pieces(exchange.response) {
            log.send(Role::Server, bytes, || server.write_all(&vec![0; bytes]).expect("the response"));
            log.take(Role::Client, bytes, || _ = client.order(&format!("receive {bytes}")));
        }
    }
    thread::sleep(Duration::from_millis(plan.idle_ms));
    let (closing, ()) = Span::of(|| {
        client.begin("exit");
        assert_eq!(server.read(&mut [0]).expect("the end"), 0);
    });
    thread::sleep(Duration::from_millis(plan.unnoticed_ms));
    let released = release(server);
    let truth = |role, Ends { local, remote }: Ends, closer, released| Truth {
        index: 0,
        life: String::new(),
        role,
        local,
        remote,
        connect_ms: None,
        bytes: Some(log.bytes(role)),
        closer,
        how: How::Fin,
        process_exited: closer == Closer::Local,
        idle_ms: Some(log.idle(role, closing)),
        idle_is_exact: log.has_passed(role),
        exchanges: Some(log.expected(role)),
        released,
        tls: None,
        lookup: None,
    };
    vec![
        truth(Role::Client, ends, Closer::Local, None),
        truth(Role::Server, ends.flipped(), Closer::Peer, Some(released)),
    ]
}
