//! Names that are looked up, connections to what they stand for, and what is true of both. Client and server are on one
//! thread, so that each call is known by what it carries, and nobody waits for anybody in it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
    sync::{Mutex, MutexGuard},
    thread,
    time::Duration,
};

use harness::{
    How, Pair, Range, Role, Span, Talk,
    accuracy::{Looked, Named, Told, Truth},
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use nix::poll::{PollFd, PollFlags, poll};
use rand::{RngExt, seq::SliceRandom};

use crate::{
    life::{self, Ending},
    plan::{self, Side},
};

/// Where DNS servers listen.
const PORT: u16 = 53;

/// How long an answer may be taken up, in seconds: longer than a life.
const TTL: u32 = 60;

/// Longest wait for a datagram, in milliseconds.
const PATIENCE: u16 = 30_000;

/// Longest message of a connection.
const MAX_BYTES: usize = 10_000;

/// A lookup, and what follows upon it.
#[derive(Clone, Debug)]
pub struct Plan {
    by_ipv6: bool,
    /// The client's socket is connected to the server; or each question names it.
    is_connected: bool,
    exists: bool,
    /// What is asked for, in this order.
    asked: Vec<RecordType>,
    /// Answers come in this order, each after so many milliseconds.
    answered: Vec<(RecordType, u64)>,
    /// The answer to the last question is lost, and it is asked again after so many milliseconds.
    lost_for_ms: Option<u64>,
    /// From the answer to the connection.
    idle_ms: u64,
    /// Connections to the address; only the first has waited for the lookup.
    connections: usize,
}

impl Plan {
    /// The plan of one lookup of a run.
    pub fn random(seed: u64, index: usize) -> Self {
        let mut random = plan::randomness(seed, index);
        let mut asked = vec![RecordType::A];
        if random.random() {
            asked.push(RecordType::AAAA);
            asked.shuffle(&mut random);
        }
        let mut answered: Vec<_> = asked.iter().map(|kind| (*kind, plan::gap(&mut random) / 2)).collect();
        answered.shuffle(&mut random);
        Self {
            by_ipv6: random.random_ratio(1, 4),
            is_connected: random.random(),
            exists: random.random_ratio(4, 5),
            asked,
            answered,
            lost_for_ms: random.random_ratio(1, 4).then(|| random.random_range(20..=300)),
            idle_ms: plan::gap(&mut random) / 4,
            connections: random.random_range(1..=2),
        }
    }
}

/// The DNS server with an IPv6 address: there is only one such on loopback.
pub struct Servers(Mutex<UdpSocket>);

/// A server of one's own, or the one that all share.
enum Server<'a> {
    Own(UdpSocket),
    Shared(MutexGuard<'a, UdpSocket>),
}

impl Servers {
    pub fn new() -> Self {
        Self(Mutex::new(socket((Ipv6Addr::LOCALHOST, PORT).into())))
    }

    fn server(&self, index: usize, plan: &Plan) -> Server<'_> {
        if plan.by_ipv6 {
            return Server::Shared(self.0.lock().expect("no thread failed"));
        }
        Server::Own(socket((nth(53, index), PORT).into()))
    }
}

impl Server<'_> {
    fn socket(&self) -> &UdpSocket {
        match self {
            Self::Own(socket) => socket,
            Self::Shared(socket) => socket,
        }
    }
}

fn socket(local: SocketAddr) -> UdpSocket {
    UdpSocket::bind(local).expect("a UDP socket")
}

/// Waits for a datagram outside of the call that takes it, as resolvers do: so the call is short, and tells closely when it
/// was. The packet is on its way for a while where its processor has others in hand.
fn await_datagram(socket: &UdpSocket) {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut polled, PATIENCE), Ok(1), "a datagram arrives");
}

/// A loopback address of one's own.
fn nth(net: u8, index: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, net, (index >> 8) as u8, index as u8)
}

/// Looks it up and connects to it; returns what is true of that.
pub fn live(index: usize, plan: &Plan, servers: &Servers) -> Vec<Told> {
    let name = format!("n{index}.truth.test");
    let server = servers.server(index, plan);
    let (lookups, took) = look_up(plan, &name, nth(80, index), server.socket());
    drop(server);
    let mut told: Vec<_> = lookups.into_iter().map(Told::Lookup).collect();
    if plan.exists {
        thread::sleep(Duration::from_millis(plan.idle_ms));
        for number in 0..plan.connections {
            let dns_ms = if number == 0 { took } else { Range(0.0, 0.0) };
            let named = Named { name: name.clone(), dns_ms };
            told.extend(connection(index, plan, named).map(Told::Socket));
        }
    }
    told
}

/// A question under way.
struct Question {
    id: u16,
    kind: RecordType,
    asked: Span,
    retries: u32,
}

impl Question {
    fn answer(&self, name: &str, exists: bool, addresses: &[Ipv4Addr]) -> Vec<u8> {
        let mut message = message(self.id, MessageType::Response, name, self.kind);
        if !exists {
            message.metadata.response_code = ResponseCode::NXDomain;
        }
        let name = message.queries[0].name().clone();
        for address in addresses {
            message.add_answer(Record::from_rdata(name.clone(), TTL, RData::A(A(*address))));
        }
        message.to_vec().expect("an answer")
    }
}

/// The client's end of it.
struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    is_connected: bool,
}

impl Client {
    fn new(server: SocketAddr, is_connected: bool) -> Self {
        let any: IpAddr = if server.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let socket = socket((any, 0).into());
        if is_connected {
            socket.connect(server).expect("connect");
        }
        Self { socket, server, is_connected }
    }

    fn ask(&self, message: &[u8]) -> Span {
        let send =
            || if self.is_connected { self.socket.send(message) } else { self.socket.send_to(message, self.server) };
        Span::of(|| assert_eq!(send().expect("send"), message.len())).0
    }

    fn take(&self) -> Span {
        let mut buffer = [0; 512];
        let receive = |buffer: &mut [u8]| {
            if self.is_connected {
                self.socket.recv(buffer)
            } else {
                self.socket.recv_from(buffer).map(|(bytes, _)| bytes)
            }
        };
        await_datagram(&self.socket);
        Span::of(|| assert!(receive(&mut buffer).expect("receive") > 0)).0
    }
}

/// Returns what is true of each question, and how long all took together.
fn look_up(plan: &Plan, name: &str, address: Ipv4Addr, server: &UdpSocket) -> (Vec<Looked>, Range) {
    let at = server.local_addr().expect("local address");
    let client = Client::new(at, plan.is_connected);
    let (questions, asker) = ask(plan, name, &client, server);
    let first = questions.first().expect("a question").asked;
    let (mut lookups, mut took) = (Vec::new(), Range(0.0, 0.0));
    for (kind, delay_ms) in &plan.answered {
        thread::sleep(Duration::from_millis(*delay_ms));
        let question = questions.iter().find(|question| question.kind == *kind).expect("it was asked");
        let answers = if plan.exists && *kind == RecordType::A { vec![address] } else { Vec::new() };
        server.send_to(&question.answer(name, plan.exists, &answers), asker).expect("send");
        let answered = client.take();
        took = first.until(answered);
        lookups.push(Looked {
            life: format!("{plan:?}"),
            name: name.to_owned(),
            record_type: kind.to_string(),
            server: at,
            latency_ms: question.asked.until(answered),
            rcode: if plan.exists { "NOERROR" } else { "NXDOMAIN" }.to_owned(),
            answers: answers.into_iter().map(IpAddr::from).collect(),
            retries: question.retries,
        });
    }
    (lookups, took)
}

/// Asks all, and the last again if its answer is lost; returns the questions and who asked.
fn ask(plan: &Plan, name: &str, client: &Client, server: &UdpSocket) -> (Vec<Question>, SocketAddr) {
    let mut questions = Vec::new();
    let mut asker = None;
    for (id, kind) in (1..).zip(&plan.asked) {
        let asked = client.ask(&question(id, name, *kind));
        asker = Some(take_question(server));
        questions.push(Question { id, kind: *kind, asked, retries: 0 });
    }
    if let (Some(lost_for_ms), Some(last)) = (plan.lost_for_ms, questions.last_mut()) {
        thread::sleep(Duration::from_millis(lost_for_ms));
        client.ask(&question(last.id, name, last.kind));
        take_question(server);
        last.retries += 1;
    }
    (questions, asker.expect("at least one question"))
}

/// The server takes a question; returns who asked.
fn take_question(server: &UdpSocket) -> SocketAddr {
    await_datagram(server);
    server.recv_from(&mut [0; 512]).expect("a question").1
}

fn message(id: u16, of: MessageType, name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(id, of, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

fn question(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    message(id, MessageType::Query, name, kind).to_vec().expect("a question")
}

/// A connection to the address, with one exchange; returns what is true of the client's socket, and of the server's.
fn connection(index: usize, plan: &Plan, named: Named) -> impl Iterator<Item = Truth> {
    let listener = TcpListener::bind((nth(80, index), 0)).expect("a listener");
    let mut talk = Talk::of(Pair::through(&listener));
    talk.ask(1 + index % MAX_BYTES).answer(MAX_BYTES);
    let (closing, ()) = Span::of(|| life::end(&mut talk.pair, plan::End::Close(Side::Client)));
    let both = [Role::Client, Role::Server];
    let ending = Ending {
        by: Side::Client,
        how: How::Fin,
        bytes: talk.log.bytes(Role::Client),
        idle: both.map(|role| (talk.log.idle(role, closing), true)),
        exchanges: both.map(|role| talk.log.expected(role)),
    };
    let mut truths = ending.truths(&mut talk.pair);
    truths[0].lookup = Some(named);
    let life = format!("{plan:?}");
    truths.into_iter().map(move |truth| Truth { index, life: life.clone(), ..truth })
}
