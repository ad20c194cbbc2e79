//! Connections that begin with a TLS handshake, and what is true of it. Both ends are on one thread, so that each call is
//! known by what it carries, and nobody waits for anybody in it.

use std::{
    io::{Read, Write},
    sync::Arc,
    thread,
    time::Duration,
};

use harness::{
    Expected, Family, How, Log, Role, Span, Talk,
    accuracy::{Handshake, Truth},
    tls::{Authority, NAME},
};
use rand::{RngExt, seq::IndexedRandom};
use rustls::{
    ClientConfig, ClientConnection, Connection, ContentType, HandshakeKind, ProtocolVersion, RootCertStore,
    ServerConfig, ServerConnection, SupportedProtocolVersion,
    crypto::{
        CryptoProvider,
        ring::{Ticketer, default_provider, kx_group::SECP256R1},
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::ServerSessionMemoryCache,
};

use crate::{
    life::{self, Ending},
    plan::{self, Side},
};

/// The longest message: with the other data under way it fits the buffers, and one record.
const MAX_BYTES: usize = 16_000;

/// Sessions that a server remembers: more than all that live at the same time can have.
const SESSIONS: usize = 4_096;

/// Pauses before the flights of a handshake.
const PAUSES: usize = 4;

const BOTH: [Role; 2] = [Role::Client, Role::Server];

/// What the handshakes are to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Everything is new.
    Full,
    /// One that is full, and another that takes its session up.
    Resumed,
    /// The server asks for another ClientHello. TLS 1.3 alone has that.
    Retried,
}

/// A connection's life, or that of the two that share a session.
#[derive(Clone, Debug)]
pub struct Plan {
    family: Family,
    version: &'static str,
    kind: Kind,
    /// The server keeps its sessions at the client.
    has_tickets: bool,
    /// A call carries one record, not all that is to be sent.
    by_record: bool,
    /// Before the flights of the handshake.
    pauses_ms: [u64; PAUSES],
    turns: Vec<plan::Exchange>,
    idle_ms: u64,
    /// Who closes says so by TLS too.
    says_so: bool,
    end: plan::End,
}

impl Plan {
    /// The plan of one life of a run.
    pub fn random(seed: u64, index: usize) -> Self {
        let mut random = plan::randomness(seed, index);
        let version = *["1.2", "1.3"].choose(&mut random).expect("some version");
        let kind = match random.random_range(0..10) {
            0..4 => Kind::Full,
            4..8 => Kind::Resumed,
            _ if version == "1.3" => Kind::Retried,
            _ => Kind::Full,
        };
        let side = if random.random() { Side::Client } else { Side::Server };
        let turns = (0..random.random_range(1..=3)).map(|_| plan::Exchange {
            gap_ms: plan::gap(&mut random) / 4,
            request: random.random_range(1..=MAX_BYTES),
            response: random.random_range(1..=MAX_BYTES),
        });
        let turns = turns.collect();
        Self {
            family: *[Family::V4, Family::V6, Family::Mapped].choose(&mut random).expect("some family"),
            version,
            kind,
            has_tickets: random.random(),
            by_record: random.random(),
            pauses_ms: std::array::from_fn(|_| plan::gap(&mut random) / 4),
            turns,
            idle_ms: plan::gap(&mut random) / 2,
            says_so: random.random(),
            end: if random.random_ratio(3, 4) { plan::End::Close(side) } else { plan::End::Reset(side) },
        }
    }

    fn version(&self) -> &'static SupportedProtocolVersion {
        if self.version == "1.2" { &rustls::version::TLS12 } else { &rustls::version::TLS13 }
    }
}

/// Those who hold certificates, and those who trust them.
pub struct Parties {
    roots: Arc<RootCertStore>,
    /// Without tickets, and with.
    servers: [Arc<ServerConfig>; 2],
    /// The same with a group that no client expects.
    picky: [Arc<ServerConfig>; 2],
}

impl Parties {
    pub fn new() -> Self {
        let authority = Authority::get();
        let certificate = |path: &str| CertificateDer::from_pem_file(path).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate(authority.root.path())).expect("a root");
        let server = |provider: CryptoProvider, has_tickets| {
            let key = PrivateKeyDer::from_pem_file(authority.server.key_path()).expect("a key");
            let config = ServerConfig::builder_with_provider(provider.into());
            let config = config.with_protocol_versions(rustls::ALL_VERSIONS).expect("versions").with_no_client_auth();
            let chain = vec![certificate(authority.server.path())];
            let mut config = config.with_single_cert(chain, key).expect("a certificate and its key");
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
            if has_tickets {
                config.ticketer = Ticketer::new().expect("keys of tickets");
            }
            Arc::new(config)
        };
        let picky = || CryptoProvider { kx_groups: vec![SECP256R1], ..default_provider() };
        Self {
            roots: Arc::new(roots),
            servers: [false, true].map(|has_tickets| server(default_provider(), has_tickets)),
            picky: [false, true].map(|has_tickets| server(picky(), has_tickets)),
        }
    }

    /// A client that remembers its own sessions alone.
    fn client(&self, plan: &Plan) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(default_provider().into());
        let config = config.with_protocol_versions(&[plan.version()]).expect("a version");
        Arc::new(config.with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth())
    }
}

/// Lets it live; returns what is true of its sockets.
pub fn live(index: usize, plan: &Plan, parties: &Parties) -> Vec<Truth> {
    let client = parties.client(plan);
    let servers = if plan.kind == Kind::Retried { &parties.picky } else { &parties.servers };
    let server = &servers[usize::from(plan.has_tickets)];
    let kinds: &[_] = match plan.kind {
        Kind::Full => &[HandshakeKind::Full],
        Kind::Resumed => &[HandshakeKind::Full, HandshakeKind::Resumed],
        Kind::Retried => &[HandshakeKind::FullWithHelloRetryRequest],
    };
    let mut truths = Vec::new();
    for kind in kinds {
        let connection = TlsPair::new(plan, Arc::clone(&client), Arc::clone(server));
        truths.extend(connection.live(plan, *kind));
    }
    for truth in &mut truths {
        (truth.index, truth.life) = (index, format!("{plan:?}"));
    }
    truths
}

/// A record, and the calls that sent it and that took it.
struct Record {
    from: Role,
    content: u8,
    bytes: usize,
    sent: Span,
    taken: Span,
}

impl Record {
    fn new(from: Role, bytes: &[u8], sent: Span, taken: Span) -> Self {
        Self { from, content: bytes[0], bytes: bytes.len(), sent, taken }
    }

    fn note(&self, log: &mut Log) {
        log.sent(self.from, self.bytes, self.sent);
        log.taken(other(self.from), self.bytes, self.taken);
    }

    /// When it passed at that end.
    fn at(&self, role: Role) -> Span {
        if self.from == role { self.sent } else { self.taken }
    }

    fn is(&self, from: Role, content: ContentType) -> bool {
        self.from == from && self.content == u8::from(content)
    }
}

/// A connection with TLS.
struct TlsPair {
    /// The bytes that pass, whatever they mean.
    talk: Talk,
    /// The client, and the server.
    ends: [Connection; 2],
    by_record: bool,
    handshake: Vec<Record>,
}

impl TlsPair {
    fn new(plan: &Plan, client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Self {
        let name = ServerName::try_from(NAME).expect("a name");
        let client = ClientConnection::new(client, name).expect("a client");
        let server = ServerConnection::new(server).expect("a server");
        let ends = [client.into(), server.into()];
        Self { talk: Talk::new(plan.family), ends, by_record: plan.by_record, handshake: Vec::new() }
    }

    fn live(mut self, plan: &Plan, kind: HandshakeKind) -> Vec<Truth> {
        self.shake_hands(&plan.pauses_ms);
        assert_eq!(self.ends[0].handshake_kind(), Some(kind), "{plan:?}");
        let (begin, end) = self.handshake_spans();
        let handshakes = BOTH.map(|role| Handshake {
            ms: begin.at(role).until(end.at(role)),
            version: plan.version.to_owned(),
            resumed: kind == HandshakeKind::Resumed,
            retried: kind == HandshakeKind::FullWithHelloRetryRequest,
        });
        let mut data = Log::new(BOTH.map(|role| end.at(role)));
        for turn in &plan.turns {
            thread::sleep(Duration::from_millis(turn.gap_ms));
            self.say(Role::Client, turn.request, &mut data);
            self.say(Role::Server, turn.response, &mut data);
        }
        thread::sleep(Duration::from_millis(plan.idle_ms));
        self.finish(plan, handshakes, &data)
    }

    /// Ends it; returns what is true of its sockets.
    fn finish(mut self, plan: &Plan, handshakes: [Handshake; 2], data: &Log) -> Vec<Truth> {
        let (by, how) = match plan.end {
            plan::End::Reset(by) => (by, How::Rst),
            plan::End::Close(by) => (by, How::Fin),
            _ => unreachable!("no plan with TLS ends so"),
        };
        let alerts = if plan.says_so { self.say_farewell(by) } else { Vec::new() };
        let (closing, ()) = Span::of(|| life::end(&mut self.talk.pair, plan.end));
        let all = &self.talk.log;
        let ending = Ending {
            by,
            how,
            bytes: (all.bytes(Role::Client).0, all.bytes(Role::Server).0),
            idle: BOTH.map(|role| (data.idle(role, closing), true)),
            exchanges: BOTH.map(|role| with_alerts(data.expected(role), role, &alerts)),
        };
        let mut truths = ending.truths(&mut self.talk.pair);
        for (truth, handshake) in truths.iter_mut().zip(handshakes) {
            truth.tls = Some(handshake);
        }
        truths
    }

    /// Who closes says so by TLS.
    fn say_farewell(&mut self, by: Side) -> Vec<Record> {
        let from = if by == Side::Client { Role::Client } else { Role::Server };
        self.end(from).send_close_notify();
        self.pass(from)
    }

    /// Until nothing is left to say; session tickets come last.
    fn shake_hands(&mut self, pauses_ms: &[u64]) {
        let mut pauses = pauses_ms.iter();
        while let Some(from) = BOTH.into_iter().find(|from| self.end(*from).wants_write()) {
            thread::sleep(Duration::from_millis(pauses.next().copied().unwrap_or(0)));
            let flight = self.pass(from);
            self.handshake.extend(flight);
        }
        assert!(self.ends.iter().all(|end| !end.is_handshaking()), "a handshake that ends");
    }

    /// The record that begins the handshake and the one that ends it, as docs/ARCHITECTURE.md has it: in TLS 1.3 the client's
    /// first protected one, before that the one after both ends have changed their ciphers.
    fn handshake_spans(&self) -> (&Record, &Record) {
        let mut records = self.handshake.iter();
        let begin = self.handshake.first().expect("a ClientHello");
        if self.ends[0].protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            let end = records.find(|record| record.is(Role::Client, ContentType::ApplicationData));
            return (begin, end.expect("the client's Finished"));
        }
        let mut changed = BOTH.map(|_| false);
        let end = records.find(|record| {
            let is_over = changed == [true, true];
            if record.is(record.from, ContentType::ChangeCipherSpec) {
                changed[record.from as usize] = true;
            }
            is_over
        });
        (begin, end.expect("the last Finished"))
    }

    /// That end sends so many bytes of data, and the other takes them.
    fn say(&mut self, from: Role, bytes: usize, data: &mut Log) {
        self.end(from).writer().write_all(&vec![1; bytes]).expect("data");
        for record in self.pass(from) {
            record.note(data);
        }
        self.end(other(from)).reader().read_exact(&mut vec![0; bytes]).expect("the data");
    }

    /// All that this end wants to send goes to the other.
    fn pass(&mut self, from: Role) -> Vec<Record> {
        let mut flight = Vec::new();
        while self.end(from).wants_write() {
            self.end(from).write_tls(&mut flight).expect("a flight");
        }
        let records = split(&flight);
        let per_call = if self.by_record { 1 } else { records.len() };
        let mut passed = Vec::new();
        for records in records.chunks(per_call.max(1)) {
            let call = records.concat();
            let mut taken = vec![0; call.len()];
            let (mut here, mut there) = (self.talk.pair.client(), self.talk.pair.server());
            if from == Role::Server {
                (here, there) = (there, here);
            }
            let (sent, ()) = Span::of(|| here.write_all(&call).expect("send"));
            let (took, ()) = Span::of(|| there.read_exact(&mut taken).expect("receive"));
            let mut rest = taken.as_slice();
            let to = self.end(other(from));
            while !rest.is_empty() {
                to.read_tls(&mut rest).expect("room");
                to.process_new_packets().expect("what the other end has sent");
            }
            passed.extend(records.iter().map(|bytes| Record::new(from, bytes, sent, took)));
        }
        for record in &passed {
            record.note(&mut self.talk.log);
        }
        passed
    }

    fn end(&mut self, role: Role) -> &mut Connection {
        &mut self.ends[role as usize]
    }
}

/// Alerts are no data: nobody asks or answers by them. But TCP counts their bytes, and so does the last exchange.
fn with_alerts(mut exchanges: Vec<Expected>, role: Role, alerts: &[Record]) -> Vec<Expected> {
    for alert in alerts {
        let last = exchanges.last_mut().expect("at least one");
        *if alert.from == role { &mut last.bytes_out } else { &mut last.bytes_in } += alert.bytes as u64;
    }
    exchanges
}

fn other(role: Role) -> Role {
    if role == Role::Client { Role::Server } else { Role::Client }
}

/// The records of a flight: each has a head of five bytes, the last two of which are the length of the rest.
fn split(mut flight: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let [_, _, _, high, low, ..] = *flight {
        let (record, rest) = flight.split_at(5 + usize::from(u16::from_be_bytes([high, low])));
        records.push(record);
        flight = rest;
    }
    assert!(flight.is_empty(), "whole records");
    records
}
