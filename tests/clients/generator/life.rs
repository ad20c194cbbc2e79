//! Lets a connection live as planned, and says what is true of its sockets.

use std::{
    collections::HashSet,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::Mutex,
    thread,
    time::Duration,
};

use harness::{
    Actor, Closer, Ends, Family, How, Pair, Role, accuracy::Truth, connect_from, listen, monotonic_ns, wall_ns,
};
use socket2::{Domain, Socket, Type};

use crate::plan::{End, Exchange, Plan, Side};

const LOCALHOST_V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Where connects go that are to fail.
pub struct Places {
    /// A listener whose queue is full: it answers no further SYN.
    full: TcpListener,
    /// What fills its queue.
    filler: TcpStream,
    filled_at: (u64, u64),
    /// Local ports of the connects to it, so that none comes up twice.
    used: Mutex<HashSet<u16>>,
}

impl Places {
    pub fn new() -> Self {
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        full.bind(&LOCALHOST_V4.into()).and_then(|()| full.listen(0)).expect("a listener");
        let full: TcpListener = full.into();
        let before = monotonic_ns();
        let filler = TcpStream::connect(full.local_addr().expect("local address")).expect("the first fits");
        let filled_at = (before, monotonic_ns());
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
        let earliest = monotonic_ns();
        let before = wall_ns();
        drop(self.filler);
        let released = Some((before, wall_ns()));
        let idle_ms = Some((ms(earliest - self.filled_at.1), ms(monotonic_ns() - self.filled_at.0)));
        Truth {
            index: usize::MAX,
            life: "fills the queue of a listener".to_owned(),
            role: Role::Client,
            local: ends.local,
            remote: ends.remote,
            connect_ms: Some(ms(self.filled_at.1 - self.filled_at.0)),
            bytes: Some((0, 0)),
            closer: Closer::Local,
            how: How::Fin,
            process_exited: false,
            idle_ms,
            released,
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

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
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
        released: None,
    }
}

fn refused(family: Family) -> Truth {
    let any = if family == Family::V6 { (Ipv6Addr::LOCALHOST, 0).into() } else { LOCALHOST_V4 };
    // The port is taken, but nobody listens.
    let (_closed, remote) = bound(any);
    let before = monotonic_ns();
    let (local, outcome) = connect_from(any, remote);
    let took = monotonic_ns() - before;
    assert_eq!(outcome.expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
    failed(local, remote, How::Refused, Some(ms(took)))
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
    failed(local, remote, How::Aborted, Some(ms(monotonic_ns() - before)))
}

/// Both ends in this process.
fn pair(plan: &Plan) -> Vec<Truth> {
    let mut pair = Pair::new(plan.family);
    for exchange in &plan.exchanges {
        pair.rest(exchange.gap_ms).exchange(exchange.request, exchange.response);
    }
    let (mut up, mut down) = sums(&plan.exchanges);
    // What stays unread is the last data.
    if let End::Unread(by, bytes) = plan.end {
        let sent = if by == Side::Client { &mut down } else { &mut up };
        *sent += bytes as u64;
        pair.leave_unread(by == Side::Client, bytes);
    }
    pair.rest(plan.idle_ms);
    let (by, how) = match plan.end {
        End::Close(by) | End::HalfClose(by, _) => (by, How::Fin),
        End::Reset(by) | End::Unread(by, _) => (by, How::Rst),
        End::Exit | End::Refused | End::Unreachable | End::Aborted => unreachable!("these have no pair"),
    };
    let idle_ms = pair.end(|pair| match (plan.end, by) {
        (End::Close(_), Side::Client) => pair.close_client(),
        (End::Close(_), Side::Server) => pair.close_server(),
        (End::HalfClose(..), Side::Client) => pair.half_close_client(),
        (End::HalfClose(..), Side::Server) => pair.half_close_server(),
        (End::Reset(_), Side::Client) => pair.reset_client(),
        (End::Reset(_), Side::Server) => pair.reset_server(),
        (_, Side::Client) => pair.close_client_unread(),
        (_, Side::Server) => pair.close_server_unread(),
    });
    pair.rest(plan.unnoticed_ms);
    if let End::HalfClose(_, bytes) = plan.end {
        let (request, response) = if by == Side::Client { (0, bytes) } else { (bytes, 0) };
        (up, down) = (up + request as u64, down + response as u64);
        pair.exchange(request, response);
    }
    // The other side follows; after a half-close it is the first to let go.
    if by == Side::Client {
        pair.release_server();
        pair.release_client();
    } else {
        pair.release_client();
        pair.release_server();
    }
    let truth = |role, ends: Ends, bytes, closer, connect_ms, released| Truth {
        index: 0,
        life: String::new(),
        role,
        local: ends.local,
        remote: ends.remote,
        connect_ms,
        bytes: Some(bytes),
        closer,
        how,
        process_exited: false,
        idle_ms: Some(idle_ms),
        released,
    };
    let closer = |side| if side == by { Closer::Local } else { Closer::Peer };
    let [client, server] = pair.released();
    vec![
        truth(Role::Client, pair.client_ends(), (up, down), closer(Side::Client), pair.connect_ms(), client),
        truth(Role::Server, pair.server_ends(), (down, up), closer(Side::Server), None, server),
    ]
}

fn sums(exchanges: &[Exchange]) -> (u64, u64) {
    let sum = |bytes: fn(&Exchange) -> usize| exchanges.iter().map(|exchange| bytes(exchange) as u64).sum();
    (sum(|exchange| exchange.request), sum(|exchange| exchange.response))
}

/// The client is a process of its own, and ends without closing.
fn exit(plan: &Plan, mut client: Actor) -> Vec<Truth> {
    let listener = listen(Family::V4);
    let mut last_data = (monotonic_ns(), 0);
    let ends = client.connect(listener.local_addr().expect("local address"));
    let (mut server, _) = listener.accept().expect("accept");
    last_data.1 = monotonic_ns();
    let (mut up, mut down) = (0, 0);
    for exchange in &plan.exchanges {
        thread::sleep(Duration::from_millis(exchange.gap_ms));
        // Small enough for the buffers, as one thread does both sides.
        let (request, response) = (exchange.request.min(10_000), exchange.response.min(10_000));
        if request + response == 0 {
            continue;
        }
        let before = monotonic_ns();
        client.order(&format!("send {request}"));
        io::Read::read_exact(&mut server, &mut vec![0; request]).expect("the request");
        let before = if response > 0 { monotonic_ns() } else { before };
        io::Write::write_all(&mut server, &vec![0; response]).expect("the response");
        client.order(&format!("receive {response}"));
        last_data = (before, monotonic_ns());
        (up, down) = (up + request as u64, down + response as u64);
    }
    thread::sleep(Duration::from_millis(plan.idle_ms));
    let earliest = monotonic_ns();
    client.begin("exit");
    assert_eq!(io::Read::read(&mut server, &mut [0]).expect("the end"), 0);
    let idle_ms = Some((ms(earliest - last_data.1), ms(monotonic_ns() - last_data.0)));
    thread::sleep(Duration::from_millis(plan.unnoticed_ms));
    let before = wall_ns();
    drop(server);
    let released = Some((before, wall_ns()));
    let truth = |role, ends: Ends, bytes, closer, released| Truth {
        index: 0,
        life: String::new(),
        role,
        local: ends.local,
        remote: ends.remote,
        connect_ms: None,
        bytes: Some(bytes),
        closer,
        how: How::Fin,
        process_exited: closer == Closer::Local,
        idle_ms,
        released,
    };
    vec![
        truth(Role::Client, ends, (up, down), Closer::Local, None),
        truth(Role::Server, ends.flipped(), (down, up), Closer::Peer, released),
    ]
}
