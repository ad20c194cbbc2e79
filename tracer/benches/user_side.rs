//! What user space does for each connection: decode, correlate, write.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tracer::{
    output::{Output, ndjson::Ndjson},
    stage::decode::{Item, lend},
    track::{Clock, Correlator, Limits, record::Record},
};
use tracer_ebpf::{DetailedRecord, ExchangeRecord, SocketRecord, exchange, flag, kind, role, tcp_state};
use zerocopy::{FromZeros, IntoBytes};

const CONNECTIONS: u64 = 100_000;
/// As many connections are open at any time.
const OPEN_AT_ONCE: u64 = 1_000;
const EVENTS_PER_CONNECTION: u64 = 3;
const CLOCK: Clock = Clock { boot_to_wall_ns: 1_795_230_000_000_000_000, tick_ns: 4_000_000, began_at: 1 };

/// OPENED, RELEASED and ENDED of one connection over loopback, as the kernel sends them.
fn life(id: u64) -> [SocketRecord; 3] {
    let opened_at = id * 50_000;
    let loopback = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
    let mut comm = [0; 16];
    comm[..5].copy_from_slice(b"churn");
    let opened = SocketRecord {
        kind: kind::OPENED,
        at: opened_at + 40_123,
        id,
        opened_at,
        established_at: opened_at + 40_123,
        process_started_at: 77,
        tgid: 1234,
        tid: 1234,
        opener_tgid: 1234,
        netns: 4_026_531_840,
        local_address: loopback,
        remote_address: loopback,
        local_port: 40_000 + (id % 20_000) as u16,
        remote_port: 8080,
        role: role::CLIENT,
        comm,
        ..SocketRecord::new_zeroed()
    };
    let known =
        flag::BYTES_KNOWN | flag::IDLE_KNOWN | flag::SRTT_KNOWN | flag::RETRANSMITS_KNOWN | flag::KEEPALIVE_KNOWN;
    let closed_at = opened_at + 250_456;
    let released = SocketRecord {
        kind: kind::RELEASED,
        at: closed_at,
        flags: known,
        end_sign_at: closed_at + 1_000,
        released_at: closed_at,
        bytes_sent: 64,
        bytes_received: 1_024,
        srtt_us: 42,
        state_before_end: tcp_state::ESTABLISHED,
        state_at_end: tcp_state::FIN_WAIT1,
        ..opened
    };
    let ended_at = closed_at + 60_789;
    [opened, released, SocketRecord { kind: kind::ENDED, at: ended_at, ended_at, ..released }]
}

/// The items of a ring buffer: lives that overlap.
fn stream() -> Vec<SocketRecord> {
    let mut items = Vec::new();
    for id in 0..CONNECTIONS + OPEN_AT_ONCE {
        if id < CONNECTIONS {
            items.push(life(id + 1)[0]);
        }
        if id >= OPEN_AT_ONCE {
            items.extend_from_slice(&life(id + 1 - OPEN_AT_ONCE)[1..]);
        }
    }
    items
}

/// Runs the stream through decoder and correlator.
fn correlate(items: &[SocketRecord], emit: &mut impl FnMut(&Record)) {
    let mut correlator = Correlator::new(CLOCK, Limits::default());
    for item in items {
        take(item.as_bytes(), &mut correlator, emit);
    }
}

/// Decodes one item and correlates it.
fn take(item: &[u8], correlator: &mut Correlator, emit: &mut impl FnMut(&Record)) {
    lend(item, |item| match item {
        Item::Event(event) => correlator.apply(event, emit),
        Item::Hello(_) | Item::Dns(_) | Item::GetAddrInfo(_) | Item::Head(_) | Item::Joined(_) | Item::Mapped(_) => {}
    })
    .expect("an event");
}

/// As many connections are open while exchanges pass, in turn, and so many pass on each.
const OPEN: u64 = 1_000;
const EXCHANGES_EACH: u64 = 1_000;

/// The connections' beginnings, then their exchanges.
fn exchanges() -> (Vec<DetailedRecord>, Vec<ExchangeRecord>) {
    let opened = |id| DetailedRecord { socket: life(id)[0], ..DetailedRecord::new_zeroed() };
    let answered = |number: u64| {
        let (id, index) = (1 + number % OPEN, number / OPEN);
        let asked_at = 1_000_000_000 + number * 1_000;
        ExchangeRecord {
            kind: kind::ANSWERED,
            index: index as u32,
            at: asked_at + 234_567,
            id,
            asked_at,
            ready_at: life(id)[0].established_at,
            previous_at: if index == 0 { 0 } else { asked_at - 654_321 },
            sent_before: index * 32,
            received_before: index * 4_096,
            flags: exchange::flag::ANSWERING,
            reserved: 0,
        }
    };
    ((1..=OPEN).map(opened).collect(), (0..OPEN * EXCHANGES_EACH).map(answered).collect())
}

fn benchmarks(criterion: &mut Criterion) {
    let items = stream();
    let mut group = criterion.benchmark_group("user side");
    group.sample_size(10);
    group.throughput(Throughput::Elements(CONNECTIONS * EVENTS_PER_CONNECTION));
    group.bench_function("decode and correlate, events", |bencher| {
        bencher.iter(|| {
            correlate(&items, &mut |record| {
                black_box(record);
            })
        });
    });
    let (opened, answered) = exchanges();
    group.throughput(Throughput::Elements(OPEN * EXCHANGES_EACH));
    let begin = || {
        let mut correlator = Correlator::new(CLOCK, Limits::default());
        opened.iter().for_each(|item| take(item.as_bytes(), &mut correlator, &mut |_| {}));
        (correlator, Ndjson::default(), Vec::with_capacity(1 << 20))
    };
    group.bench_function("decode and correlate, exchanges", |bencher| {
        bencher.iter_batched_ref(
            begin,
            |(correlator, ..)| {
                for item in &answered {
                    take(item.as_bytes(), correlator, &mut |record| {
                        black_box(record);
                    });
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("decode, correlate and write, exchanges", |bencher| {
        bencher.iter_batched_ref(
            begin,
            |(correlator, writer, out)| {
                for item in &answered {
                    if out.len() > 1 << 19 {
                        out.clear();
                    }
                    take(item.as_bytes(), correlator, &mut |record| writer.record(record, out));
                }
            },
            BatchSize::LargeInput,
        );
    });
    let mut records = Vec::new();
    correlate(&items, &mut |record| records.push(record.clone()));
    for (name, pick) in [
        ("ndjson, connection lines", (|record| matches!(record, Record::Connection(_))) as fn(&&Record) -> bool),
        ("ndjson, open lines", |record| matches!(record, Record::Open(_))),
    ] {
        let picked: Vec<_> = records.iter().filter(pick).collect();
        group.throughput(Throughput::Elements(picked.len() as u64));
        group.bench_function(name, |bencher| {
            let start = || (Ndjson::default(), Vec::with_capacity(1 << 20));
            bencher.iter_batched_ref(
                start,
                |(writer, out)| {
                    for record in &picked {
                        if out.len() > 1 << 19 {
                            out.clear();
                        }
                        writer.record(record, out);
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);
