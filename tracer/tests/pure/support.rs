//! Events as a kernel would send them.

use std::net::{Ipv4Addr, SocketAddr};

use tracer::{
    stage::event::{Event, Identity, OpenSocket, UserEvent},
    track::{
        Clock, Correlator, Limits,
        record::{Connection, Exchange, HttpHead, HttpMethod, HttpVersion, Record, Summary},
    },
};
use tracer_ebpf::{
    DetailedRecord, ExchangeRecord, SocketRecord, TlsRecord, exchange::Exchanges, flag, kind, role, tcp_state,
    tls::handshake::Handshake,
};
use zerocopy::FromZeros;

pub const MS: u64 = 1_000_000;
pub const S: u64 = 1_000 * MS;

/// A tick of 4 ms; the boot was on 2026-11-21 at 03:00 UTC.
pub const CLOCK: Clock = Clock { boot_to_wall_ns: 1_795_230_000_000_000_000, tick_ns: 4 * MS, began_at: S };

pub const LIMITS: Limits = Limits { max_connections: 1_000, max_processes: 100, max_groups: 10 };

fn mapped(ip: [u8; 4]) -> [u8; 16] {
    Ipv4Addr::from(ip).to_ipv6_mapped().octets()
}

/// A client's connection that was established 12.3 ms after `opened_at`, as its OPENED event has it.
pub fn opened(id: u64, opened_at: u64) -> SocketRecord {
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"curl");
    SocketRecord {
        kind: kind::OPENED,
        at: opened_at + 12_300_000,
        id,
        opened_at,
        established_at: opened_at + 12_300_000,
        process_started_at: 77,
        tgid: 1234,
        tid: 1235,
        opener_tgid: 1234,
        netns: 4_026_531_840,
        local_address: mapped([10, 0, 0, 2]),
        remote_address: mapped([10, 0, 0, 1]),
        local_port: 40_000,
        remote_port: 443,
        role: role::CLIENT,
        comm,
        ..SocketRecord::new_zeroed()
    }
}

/// The head of a request with this method.
pub fn request(method: HttpMethod) -> HttpHead {
    HttpHead { method: Some(method), version: Some(HttpVersion::V1_1), ..HttpHead::default() }
}

/// The head of a response with this status, that asks to close or does not.
pub fn response(status: u16, close: bool) -> HttpHead {
    let connection = close.then(|| "close".to_owned()).into_iter().collect();
    HttpHead { status: Some(status), version: Some(HttpVersion::V1_1), connection, ..HttpHead::default() }
}

/// The same, accepted.
pub fn accepted(id: u64, opened_at: u64) -> SocketRecord {
    SocketRecord {
        role: role::SERVER,
        local_port: 8080,
        remote_port: 51_234,
        at: opened_at,
        established_at: opened_at,
        ..opened(id, opened_at)
    }
}

/// With the values that the kernel side reads at the first sign of the end, and the change of state that it was.
pub fn ending(record: SocketRecord, at: u64, from: u8, to: u8) -> SocketRecord {
    let known =
        flag::BYTES_KNOWN | flag::IDLE_KNOWN | flag::SRTT_KNOWN | flag::RETRANSMITS_KNOWN | flag::KEEPALIVE_KNOWN;
    SocketRecord {
        at,
        flags: record.flags | known,
        end_sign_at: at,
        bytes_sent: 1_200,
        bytes_received: 34_000,
        sent_idle_ticks: 1_260,
        received_idle_ticks: 1_250,
        srtt_us: 9_500,
        state_before_end: from,
        state_at_end: to,
        ..record
    }
}

/// RELEASED and ENDED of a local close.
pub fn closed_locally(open: SocketRecord, at: u64) -> [SocketRecord; 2] {
    let ending = ending(open, at, tcp_state::ESTABLISHED, tcp_state::FIN_WAIT1);
    let released = SocketRecord { kind: kind::RELEASED, released_at: at - 1_000, ..ending };
    [released, SocketRecord { kind: kind::ENDED, at: at + MS, ended_at: at + MS, ..released }]
}

/// PEER_CLOSED, RELEASED and ENDED of a peer's close that went unnoticed.
pub fn closed_by_peer(open: SocketRecord, at: u64, unnoticed: u64) -> [SocketRecord; 3] {
    let ending = ending(open, at, tcp_state::ESTABLISHED, tcp_state::CLOSE_WAIT);
    let peer_closed = SocketRecord { kind: kind::PEER_CLOSED, flags: ending.flags | flag::PEER_FIN, ..ending };
    let released_at = at + unnoticed;
    let released = SocketRecord { kind: kind::RELEASED, at: released_at, released_at, ..peer_closed };
    [
        peer_closed,
        released,
        SocketRecord { kind: kind::ENDED, at: released_at + MS, ended_at: released_at + MS, ..released },
    ]
}

/// ENDED of a connect that failed `after` so long.
pub fn failed(id: u64, opened_at: u64, after: u64, error: i32) -> SocketRecord {
    let at = opened_at + after;
    SocketRecord {
        kind: kind::ENDED,
        at,
        flags: flag::FINISHED,
        established_at: 0,
        end_sign_at: at,
        ended_at: at,
        error: error.cast_unsigned(),
        state_before_end: tcp_state::SYN_SENT,
        state_at_end: tcp_state::CLOSE,
        ..opened(id, opened_at)
    }
}

/// A socket as sock_diag shows it: the ends of [`opened`].
pub fn open_socket(cookie: u64, at: u64) -> OpenSocket {
    OpenSocket {
        at,
        cookie,
        pid: 1234,
        process_started_at: 77,
        netns: 4_026_531_840,
        role: role::CLIENT,
        state: tcp_state::ESTABLISHED,
        local: SocketAddr::from(([10, 0, 0, 2], 40_000)),
        remote: SocketAddr::from(([10, 0, 0, 1], 443)),
        bytes_sent: Some(500),
        bytes_received: Some(600),
        retransmits: Some(0),
        srtt: Some(9 * MS),
        keepalive: None,
        sent_idle: Some(3 * S),
        received_idle: Some(2 * S),
    }
}

pub fn identity(pid: u32, comm: &str) -> Event {
    user(UserEvent::Identity(Identity {
        pid,
        host_pid: None,
        started_at: 77,
        comm: comm.into(),
        exe: Some(format!("/usr/bin/{comm}")),
        container: None,
        quota: None,
    }))
}

pub fn user(event: UserEvent) -> Event {
    Event::User(Box::new(event))
}

pub fn stop(at: u64) -> Event {
    user(UserEvent::Stop { at })
}

/// Everything that comes out of these events.
pub fn records(events: impl IntoIterator<Item = Event>) -> Vec<Record> {
    records_within(LIMITS, events)
}

pub fn records_within(limits: Limits, events: impl IntoIterator<Item = Event>) -> Vec<Record> {
    let mut correlator = Correlator::new(CLOCK, limits);
    let mut records = Vec::new();
    let mut emit = |record: &Record| records.push(record.clone());
    for event in events {
        correlator.apply(&event, &mut emit);
        assert!(correlator.live() <= limits.max_connections);
    }
    correlator.finish(&mut emit);
    records
}

pub fn sockets(records: impl IntoIterator<Item = SocketRecord>) -> Vec<Event> {
    records.into_iter().map(Event::Socket).collect()
}

pub fn connections<'r>(records: &'r [Record]) -> Vec<&'r Connection> {
    let pick = |record: &'r Record| match record {
        Record::Connection(connection) => Some(connection),
        _ => None,
    };
    records.iter().filter_map(pick).collect()
}

pub fn opens<'r>(records: &'r [Record]) -> Vec<&'r Connection> {
    let pick = |record: &'r Record| match record {
        Record::Open(connection) => Some(connection),
        _ => None,
    };
    records.iter().filter_map(pick).collect()
}

pub fn summary(records: &[Record]) -> &Summary {
    match records.last() {
        Some(Record::Summary(summary)) => summary,
        other => panic!("the last record is the summary, not {other:?}"),
    }
}

pub fn exchanges<'r>(records: &'r [Record]) -> Vec<&'r Exchange> {
    let pick = |record: &'r Record| match record {
        Record::Exchange(exchange) => Some(exchange),
        _ => None,
    };
    records.iter().filter_map(pick).collect()
}

/// A connection as the kernel side sees it in detail `exchanges`: bytes that pass make events. It does what the hooks do, in
/// plain words, and knows no more than they do.
pub struct Traffic {
    socket: SocketRecord,
    exchanges: Exchanges,
    handshake: Handshake,
    peer_closed: bool,
    pub events: Vec<Event>,
}

impl Traffic {
    /// A connection that has just been established or accepted.
    pub fn new(socket: SocketRecord) -> Self {
        let exchanges = Exchanges { ready_at: socket.established_at, ..Exchanges::new_zeroed() };
        let mut traffic =
            Self { socket, exchanges, handshake: Handshake::new_zeroed(), peer_closed: false, events: Vec::new() };
        traffic.lifecycle(socket);
        traffic
    }

    /// One that was open before the trace; no event tells of it.
    pub fn preexisting(id: u64) -> Self {
        let socket = SocketRecord { opened_at: 0, established_at: 0, flags: flag::PREEXISTING, ..opened(id, 0) };
        let mut traffic = Self::new(socket);
        traffic.events.clear();
        traffic
    }

    /// An event of its life, with all that is known.
    pub fn lifecycle(&mut self, socket: SocketRecord) -> &mut Self {
        self.socket = socket;
        self.peer_closed |= socket.kind == kind::PEER_CLOSED;
        let Self { exchanges, handshake, .. } = *self;
        self.events.push(Event::Detailed(Box::new(DetailedRecord { socket, exchanges, handshake })));
        self
    }

    /// The owner sends.
    pub fn sends(&mut self, at: u64, bytes: u64) -> &mut Self {
        self.passes(at, bytes, self.socket.role == role::CLIENT);
        self.exchanges.sent += bytes;
        self
    }

    /// The owner receives.
    pub fn receives(&mut self, at: u64, bytes: u64) -> &mut Self {
        self.passes(at, bytes, self.socket.role == role::SERVER);
        self.exchanges.received += bytes;
        self
    }

    /// What was just sent or received begins with this head.
    pub fn head(&mut self, at: u64, sent: bool, head: HttpHead) -> &mut Self {
        let (id, index) = (self.socket.id, self.exchanges.count - 1);
        self.events.push(Event::User(Box::new(UserEvent::Http {
            at,
            id,
            index: Some(index),
            sent,
            head: head.into(),
        })));
        self
    }

    fn passes(&mut self, at: u64, _bytes: u64, is_ask: bool) {
        use tracer_ebpf::exchange::flag::{ANSWERING, GREETING, STALE};
        let now = &mut self.exchanges;
        let begins = now.count == 0 || is_ask && now.flags & ANSWERING != 0;
        if begins {
            now.previous_at = now.last_at;
            now.asked_at = if is_ask { at } else { now.ready_at };
            now.answered_at = 0;
            (now.sent_before, now.received_before) = (now.sent, now.received);
            if now.previous_at != 0 {
                now.max_idle = now.max_idle.max(at - now.previous_at);
            }
            now.count += 1;
            now.flags = if is_ask { 0 } else { GREETING };
            if self.peer_closed && is_ask {
                now.flags |= STALE;
            }
        }
        now.last_at = at;
        if !is_ask && now.answered_at == 0 {
            now.answered_at = at;
            now.flags |= ANSWERING;
            let Exchanges { asked_at, ready_at, previous_at, sent_before, received_before, count, flags, .. } = *now;
            self.events.push(Event::Exchange(ExchangeRecord {
                kind: kind::ANSWERED,
                index: count - 1,
                at,
                id: self.socket.id,
                asked_at,
                ready_at,
                previous_at,
                sent_before,
                received_before,
                flags,
                reserved: 0,
            }));
        }
    }

    /// A handshake ends; the connection is ready by that if it succeeded.
    pub fn shakes_hands(&mut self, handshake: Handshake) -> &mut Self {
        self.handshake = handshake;
        if handshake.ended_at != 0 {
            self.exchanges.ready_at = handshake.ended_at;
            let TlsRecord { reserved, .. } = TlsRecord::new_zeroed();
            let (at, id) = (handshake.ended_at, self.socket.id);
            self.events.push(Event::Tls(TlsRecord { kind: kind::TLS, reserved, at, id, handshake }));
        }
        self
    }

    /// The user closes, after the last bytes.
    pub fn closes(&mut self, at: u64) -> &mut Self {
        let [released, ended] = closed_locally(self.socket, at);
        self.lifecycle(released).lifecycle(ended)
    }

    /// The peer resets, and the user lets go.
    pub fn is_reset(&mut self, at: u64) -> &mut Self {
        let ended = ending(self.socket, at, tcp_state::ESTABLISHED, tcp_state::CLOSE);
        self.lifecycle(SocketRecord {
            kind: kind::ENDED,
            flags: ended.flags | flag::RST_RECEIVED,
            error: libc::ECONNRESET.cast_unsigned(),
            ended_at: at,
            released_at: at + MS,
            ..ended
        })
    }
}
