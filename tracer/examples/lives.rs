//! Loopback connections with both ends traced, from the kernel's bytes to the lines: what user space does for them,
//! alone. Count its instructions with
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='lives::replay' target/release/examples/lives 11000
//! ```
//!
//! The difference between two numbers of connections, divided by the difference of the numbers, is the cost of one
//! connection: two lives, five events, four lines.

use std::path::Path;

use anyhow::{Context as _, Result};
use tracer::{
    output::ndjson::Ndjson,
    stage::{decode::lend, enrich::Enricher, event::EventRef, pipeline::Pipeline, sink::Sink},
    track::{Clock, Correlator, Limits},
};
use tracer_ebpf::{SocketRecord, flag, kind, role, tcp_state};
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

/// Takes the items all the way, as the reader of the ring buffer does.
#[inline(never)]
fn replay(items: &[SocketRecord], enricher: &mut Enricher, pipeline: &mut Pipeline) -> Result<()> {
    for record in items {
        lend(record.as_bytes(), |event| {
            if let EventRef::Socket(record) = event
                && let Some(identity) = enricher.identify(record)
            {
                pipeline.event(&identity)?;
            }
            pipeline.event(event)
        })??;
    }
    pipeline.flush()
}

fn main() -> Result<()> {
    let number = std::env::args().nth(1).context("usage: lives NUMBER [FILE]")?.parse()?;
    let to = std::env::args().nth(2).unwrap_or_else(|| "/dev/null".into());
    let items: Vec<_> = (0..number).flat_map(connection).collect();
    let correlator = Correlator::new(CLOCK, Limits::default());
    let sink = Sink::open(Some(Path::new(&to)))?;
    let mut pipeline = Pipeline::new(None, correlator, Box::new(Ndjson::default()), sink);
    replay(&items, &mut Enricher::default(), &mut pipeline)
}
