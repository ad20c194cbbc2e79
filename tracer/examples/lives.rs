//! Loopback connections with both ends traced, from the kernel's bytes to the lines: what user space does for them,
//! alone. Count its instructions with
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='lives::replay' target/release/examples/lives 11000
//! ```
//!
//! The difference between two numbers of connections, divided by the difference of the numbers, is the cost of one
//! connection: two lives, five events, four lines.
//!
//! With a third argument that is not 0, so many exchanges pass on each connection, and both ends report them: detail `exchanges`. The cost of
//! one exchange at one end is half the difference that one more makes. A fourth argument says what is written: `all`, `summary`
//! (no exchange lines), or `nothing`, which ends at the correlator. With `tls` as a fifth, each connection begins with a TLS 1.3
//! handshake, in the pieces in which OpenSSL sends and receives it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use tracer::{
    findings::{Findings, When, finding::Finding},
    output::{Output, ndjson::Ndjson},
    stage::{intake::Intake, outlet::Outlet, pipeline::Pipeline, sink::Sink},
    track::{Clock, Correlator, Limits, record::Record},
};
use tracer_ebpf::{
    DetailedRecord, ExchangeRecord, HELLO_LEN, HelloRecord, SocketRecord, TlsRecord, exchange,
    exchange::Exchanges,
    flag, kind, role, tcp_state,
    tls::{
        handshake::{Handshake, phase},
        record::HEADER_LEN,
    },
};
use zerocopy::{FromZeros, IntoBytes};

const CLOCK: Clock = Clock { boot_to_wall_ns: 1_795_230_000_000_000_000, tick_ns: 4_000_000, began_at: 1 };
const LOOPBACK: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];

/// One end of a connection, established.
fn opened(id: u64, opened_at: u64, established_at: u64, side: u8, ports: (u16, u16), tgid: u32) -> SocketRecord {
    let mut comm = [0; 16];
    comm[..5].copy_from_slice(if side == role::CLIENT { b"churn" } else { b"serve" });
    SocketRecord {
        kind: kind::OPENED,
        at: established_at,
        id,
        opened_at,
        established_at,
        process_started_at: 77,
        tgid,
        tid: tgid,
        opener_tgid: tgid,
        netns: 4_026_531_840,
        local_address: LOOPBACK,
        remote_address: LOOPBACK,
        local_port: ports.0,
        remote_port: ports.1,
        role: side,
        comm,
        ..SocketRecord::new_zeroed()
    }
}

/// The five events of a connection that the client closes first.
fn connection(number: u64) -> [SocketRecord; 5] {
    let begun = 1_000_000_000 + number * 123_457;
    let port = 32_768 + (number % 28_000) as u16;
    let client = opened(20_000 + 2 * number, begun, begun + 21_123, role::CLIENT, (port, 8080), 1_000_234);
    let accepted_at = begun + 25_377;
    let server = opened(20_001 + 2 * number, accepted_at, accepted_at, role::SERVER, (8080, port), 1_000_235);
    let known =
        flag::BYTES_KNOWN | flag::IDLE_KNOWN | flag::SRTT_KNOWN | flag::RETRANSMITS_KNOWN | flag::KEEPALIVE_KNOWN;
    let close = |record: SocketRecord, at: u64, to: u8| SocketRecord {
        at,
        flags: known,
        end_sign_at: at,
        bytes_sent: 32,
        bytes_received: 32,
        srtt_us: 24,
        state_before_end: tcp_state::ESTABLISHED,
        state_at_end: to,
        ..record
    };
    let ended = |record: SocketRecord, at: u64| SocketRecord { kind: kind::ENDED, at, ended_at: at, ..record };
    let closed_at = begun + 70_456;
    let peer_closed = SocketRecord {
        kind: kind::PEER_CLOSED,
        flags: known | flag::PEER_FIN,
        ..close(server, closed_at + 3_210, tcp_state::CLOSE_WAIT)
    };
    let released = SocketRecord { released_at: closed_at + 7_654, ..peer_closed };
    let client_released =
        SocketRecord { released_at: closed_at, ..close(client, closed_at + 1_111, tcp_state::FIN_WAIT1) };
    [client, server, peer_closed, ended(client_released, closed_at + 9_876), ended(released, closed_at + 11_999)]
}

/// Items as the ring buffers hold them: one behind the other, in whole words.
#[derive(Default)]
struct Items {
    words: Vec<u64>,
    ends: Vec<usize>,
}

impl Items {
    fn push(&mut self, item: &(impl IntoBytes + zerocopy::Immutable)) {
        let mut words = vec![0u64; size_of_val(item) / 8];
        item.write_to(words.as_mut_bytes()).expect("whole words");
        self.words.extend(words);
        self.ends.push(self.words.len());
    }

    /// A hello is cut to what it holds.
    fn push_hello(&mut self, hello: &HelloRecord) {
        self.push(hello);
        let bytes = size_of::<HelloRecord>() - HELLO_LEN + hello.length as usize;
        let begin = self.words.len() - size_of::<HelloRecord>() / 8;
        self.words.truncate(begin + bytes.div_ceil(8));
        self.ends.pop();
        self.ends.push(self.words.len());
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| self.words[begin..*end].as_bytes())
    }
}

/// What both sides sent at the beginning of a handshake.
struct Hellos {
    client: Vec<u8>,
    server: Vec<u8>,
}

impl Hellos {
    fn recorded() -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer-ebpf/tests/fixtures/tls");
        let read = |side: &str| fs::read(folder.join(format!("openssl-1.3-full.{side}.bin"))).context("no fixture");
        Ok(Self { client: read("client")?, server: read("server")? })
    }

    /// Their pieces at one end. OpenSSL sends a flight at once, and receives header and body of each record one after the other.
    fn push(&self, end: &SocketRecord, items: &mut Items) {
        let mut piece = |from_client: bool, bytes: &[u8]| {
            let mut hello = HelloRecord {
                kind: kind::HELLO,
                length: bytes.len() as u32,
                at: end.established_at,
                id: end.id,
                from_client: from_client.into(),
                ..HelloRecord::new_zeroed()
            };
            hello.bytes[..bytes.len()].copy_from_slice(bytes);
            items.push_hello(&hello);
        };
        for (from_client, sent) in [(true, &self.client), (false, &self.server)] {
            if from_client == (end.role == role::CLIENT) {
                piece(from_client, sent);
            } else {
                let length = HEADER_LEN + usize::from(u16::from_be_bytes([sent[3], sent[4]]));
                piece(from_client, &sent[..HEADER_LEN]);
                piece(from_client, &sent[HEADER_LEN..length]);
            }
        }
        let handshake = handshake(end);
        let at = handshake.ended_at;
        items.push(&TlsRecord { kind: kind::TLS, reserved: 0, at, id: end.id, handshake });
    }
}

/// A handshake that is over.
fn handshake(end: &SocketRecord) -> Handshake {
    Handshake {
        started_at: end.established_at,
        ended_at: end.established_at + 1_234 + end.id % 1_000,
        cpu: 567 + end.id % 100,
        runqueue: 89,
        phase: phase::DONE,
        ..Handshake::new_zeroed()
    }
}

/// The same in detail `exchanges`: after so many exchanges of 32 bytes each way, one every 10 µs.
fn with_exchanges(events: &[SocketRecord; 5], count: u32, hellos: Option<&Hellos>, items: &mut Items) {
    let [client, server, ..] = events;
    let exchanges_of = |end: &SocketRecord, count: u32| {
        let (at, passed) = (end.established_at + 10_000 * u64::from(count), 32 * u64::from(count));
        Exchanges {
            ready_at: end.established_at,
            asked_at: at,
            answered_at: at + 5_000,
            last_at: at + 5_000,
            previous_at: if count > 1 { at - 5_000 } else { 0 },
            max_idle: 5_000,
            sent: passed,
            received: passed,
            sent_before: passed - 32,
            received_before: passed - 32,
            count,
            flags: exchange::flag::ANSWERING,
            ..Exchanges::new_zeroed()
        }
    };
    let mut lifecycle = |record: &SocketRecord, exchanges: Exchanges| {
        items.push(&DetailedRecord { socket: *record, exchanges, handshake: Handshake::new_zeroed() });
    };
    lifecycle(client, Exchanges::new_zeroed());
    lifecycle(server, Exchanges::new_zeroed());
    if let Some(hellos) = hellos {
        [client, server].into_iter().for_each(|end| hellos.push(end, items));
    }
    for number in 1..=count {
        for end in [server, client] {
            let Exchanges { asked_at, ready_at, answered_at, previous_at, sent_before, received_before, flags, .. } =
                exchanges_of(end, number);
            items.push(&ExchangeRecord {
                kind: kind::ANSWERED,
                index: number - 1,
                at: answered_at,
                id: end.id,
                asked_at,
                ready_at,
                previous_at,
                sent_before,
                received_before,
                flags,
                reserved: 0,
            });
        }
    }
    for record in &events[2..] {
        let after = 10_000 * u64::from(count);
        let record = SocketRecord { at: record.at + after, end_sign_at: record.end_sign_at + after, ..*record };
        items.push(&DetailedRecord {
            exchanges: exchanges_of(&record, count),
            socket: record,
            handshake: if hellos.is_some() { handshake(&record) } else { Handshake::new_zeroed() },
        });
    }
}

/// Takes the items all the way, as the reader of the ring buffer does.
#[inline(never)]
fn replay<'i>(items: impl Iterator<Item = &'i [u8]>, intake: &mut Intake) -> Result<()> {
    for item in items {
        intake.take(item, |_| {})?;
    }
    intake.pipeline.flush()
}

/// Writes nothing.
struct Nothing;

impl Output for Nothing {
    fn record(&mut self, _: &Record, _: &mut Vec<u8>) {}

    fn finding(&mut self, _: &Finding, _: &mut Vec<u8>) {}

    fn wants_exchanges(&self) -> bool {
        false
    }
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    let argument = |place: usize| arguments.get(place).map(String::as_str);
    let number =
        argument(1).context("usage: lives NUMBER [FILE [EXCHANGES [all|summary|findings|nothing [tls]]]]")?.parse()?;
    let to = argument(2).unwrap_or("/dev/null");
    let exchanges: u32 = argument(3).unwrap_or("0").parse()?;
    let output: Box<dyn Output> = match argument(4).unwrap_or("all") {
        "all" => Box::new(Ndjson::new(true)),
        "summary" => Box::new(Ndjson::new(false)),
        _ => Box::new(Nothing),
    };
    let correlator = Correlator::new(CLOCK, Limits::default());
    let sink = Sink::open(Some(Path::new(to)))?;
    let findings = (argument(4) == Some("findings")).then(|| Findings::new(When::AtOnce, None));
    let mut intake = Intake::new(Pipeline::new(None, correlator, findings, output, Outlet::waiting(sink)));
    let connections = (0..number).map(connection);
    if exchanges == 0 {
        let items: Vec<_> = connections.flatten().collect();
        return replay(items.iter().map(SocketRecord::as_bytes), &mut intake);
    }
    let hellos = argument(5).is_some().then(Hellos::recorded).transpose()?;
    let mut items = Items::default();
    connections.for_each(|connection| with_exchanges(&connection, exchanges, hellos.as_ref(), &mut items));
    replay(items.iter(), &mut intake)
}
