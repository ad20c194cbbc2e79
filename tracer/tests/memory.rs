//! The memory that an open connection costs. A binary of its own: the counting allocator counts all that runs in it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    rc::Rc,
    sync::Mutex,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use tracer::{
    findings::{Findings, When},
    memory::Budget,
    stage::event::{Event, Identity, UserEvent},
    track::{
        Clock, Correlator, Limits,
        record::{Hello, HttpHead, HttpMethod, Record},
    },
};
use tracer_ebpf::{
    DetailedRecord, ExchangeRecord, SocketRecord, TlsRecord, kind, role,
    tls::handshake::{Handshake, phase},
};
use zerocopy::FromZeros;

/// What the system's allocator adds to each piece, at most.
const OVERHEAD: usize = 16;
/// The promise of docs/benchmarks.md.
const MAX_BYTES_PER_CONNECTION: usize = 400;
const CONNECTIONS: usize = 100_000;

static RESIDENT: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        RESIDENT.fetch_add(layout.size() + OVERHEAD, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        RESIDENT.fetch_sub(layout.size() + OVERHEAD, Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// All tests of a binary share the counter.
static ALONE: Mutex<()> = Mutex::new(());

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn opened(id: usize) -> SocketRecord {
    SocketRecord {
        kind: kind::OPENED,
        id: id as u64,
        opened_at: id as u64,
        // As on a busy node: a few hundred processes.
        tgid: (id % 300) as u32,
        role: role::CLIENT,
        ..SocketRecord::new_zeroed()
    }
}

/// What an open connection costs when each has had these events: at the end, and at worst on the way.
fn cost(events: impl Fn(usize) -> Vec<Event>) -> (usize, usize) {
    let clock = Clock { boot_to_wall_ns: 0, tick_ns: 4_000_000, began_at: 1 };
    let before = RESIDENT.load(Relaxed);
    let mut correlator = Correlator::new(clock, Limits::default());
    let mut worst = 0;
    for id in 1..=CONNECTIONS {
        for event in events(id) {
            correlator.apply(&event, &mut |_| {});
        }
        if id > CONNECTIONS / 2 {
            worst = worst.max((RESIDENT.load(Relaxed) - before) / id);
        }
    }
    assert_eq!(correlator.live(), CONNECTIONS);
    ((RESIDENT.load(Relaxed) - before) / CONNECTIONS, worst)
}

/// An open TLS connection in detail `exchanges`, one of many to a few hundred servers, that has had exchanges.
fn busy(id: usize) -> Vec<Event> {
    let handshake = Handshake { started_at: 5, ended_at: 6, phase: phase::DONE, ..Handshake::new_zeroed() };
    let hello = Hello { sni: Some(format!("server-{}.example", id % 300)), ..Hello::default() };
    let exchange = |index| ExchangeRecord {
        kind: kind::ANSWERED,
        id: id as u64,
        at: u64::MAX / 2,
        index,
        ..ExchangeRecord::new_zeroed()
    };
    let id = id as u64;
    let tls = TlsRecord { kind: kind::TLS, reserved: 0, at: u64::MAX / 2, id, handshake };
    vec![
        Event::Detailed(Box::new(DetailedRecord { socket: opened(id as usize), ..DetailedRecord::new_zeroed() })),
        Event::User(Box::new(UserEvent::Hello { at: u64::MAX / 2, id, hello: hello.into() })),
        Event::Tls(tls),
        Event::Exchange(exchange(0)),
        Event::Exchange(exchange(1)),
    ]
}

/// The same, with the heads of HTTP to a few hundred servers. As the reader of heads shares those that say the same of late, so
/// does this.
fn heads(id: usize, known: &[(Rc<HttpHead>, Rc<HttpHead>)]) -> Vec<Event> {
    let (request, response) = &known[id % known.len()];
    let head = |index, sent, head: &Rc<HttpHead>| {
        Event::User(Box::new(UserEvent::Http { at: u64::MAX / 2, id: id as u64, index, sent, head: Rc::clone(head) }))
    };
    let both = |index| [head(index, true, request), head(index, false, response)];
    busy(id).into_iter().chain(both(Some(0))).chain(both(Some(1))).chain([head(Some(2), true, request)]).collect()
}

fn said(server: usize) -> (Rc<HttpHead>, Rc<HttpHead>) {
    let host = Some(format!("server-{server}.example"));
    let request = HttpHead { method: Some(HttpMethod::Get), host, ..HttpHead::default() };
    let response = HttpHead { status: Some(200), connection: vec!["keep-alive".to_owned()], ..HttpHead::default() };
    (request.into(), response.into())
}

/// After so many events of lives a trace looks at its memory.
const STEP: usize = 1_024;

/// A connection of a process of its own, with names that no other has, as long as they can be.
fn hostile(id: usize) -> Vec<Event> {
    let long = |what: &str, length: usize| format!("{what}-{id}-{}", "x".repeat(length));
    let identity = Identity {
        pid: id as u32,
        host_pid: None,
        started_at: id as u64,
        comm: format!("p{id}"),
        exe: Some(long("/exe", 4_000)),
        container: Some(long("container", 200)),
        quota: None,
    };
    let record = SocketRecord { tgid: id as u32, process_started_at: id as u64, ..opened(id) };
    let hello = Hello {
        sni: Some(long("server", 200)),
        alpn_offered: Some((0..40).map(|_| long("protocol", 100)).collect()),
        ..Hello::default()
    };
    vec![
        Event::User(Box::new(UserEvent::Identity(identity))),
        Event::Detailed(Box::new(DetailedRecord { socket: record, ..DetailedRecord::new_zeroed() })),
        Event::User(Box::new(UserEvent::Hello { at: u64::MAX / 2, id: id as u64, hello: hello.into() })),
    ]
}

/// Opens so many connections and closes none, as a trace does it: after each batch of events what is too much is forgotten. Returns the
/// most memory that was in use, and how many of the connections were forgotten, remembered and told.
fn flood(budget: Budget, connections: usize, events: impl Fn(usize) -> Vec<Event>) -> (usize, u64, usize) {
    let clock = Clock { boot_to_wall_ns: 0, tick_ns: 4_000_000, began_at: 1 };
    let before = RESIDENT.load(Relaxed);
    let used = || RESIDENT.load(Relaxed) - before;
    let mut correlator = Correlator::new(clock, budget.limits(usize::MAX));
    let mut findings = Findings::new(When::AtOnce, None).with_most_groups(budget.finding_groups());
    let (mut most, mut forgotten) = (0, 0);
    for id in 1..=connections {
        let mut take = |record: &Record| {
            if let Record::Loss(loss) = record {
                forgotten += loss.count;
            }
            findings.observe(record, &mut |_| {});
        };
        for event in events(id) {
            correlator.apply(&event, &mut take);
        }
        if id % STEP == 0 {
            most = most.max(used());
            while used() > budget.bytes() && correlator.make_room(&mut take) {}
        }
    }
    let live = correlator.live();
    let mut told = 0;
    let stop = Event::User(Box::new(UserEvent::Stop { at: u64::MAX / 2 }));
    correlator.apply(&stop, &mut |record| {
        told += u64::from(matches!(record, Record::Connection(_)));
        if let Record::Summary(summary) = record {
            // Those of the tables' own bounds are told at their first, and at the stop.
            forgotten = summary.losses.iter().map(|loss| loss.count).sum();
        }
    });
    assert_eq!(told, live as u64, "what is remembered is told");
    (most, forgotten, live)
}

#[test]
fn whatever_comes_memory_stays_within_what_is_allowed_and_what_is_forgotten_is_counted() {
    let _alone = ALONE.lock();
    for mib in [Budget::LEAST_MIB, 64] {
        let budget = Budget::of_mib(mib);
        let plain: &dyn Fn(usize) -> Vec<Event> = &busy;
        for (what, connections, events) in [("many", 400_000, plain), ("hostile", 60_000, &hostile)] {
            let (most, forgotten, live) = flood(budget, connections, events);
            println!("{mib} MiB, {what}: at most {} KiB; {forgotten} of {connections} forgotten", most >> 10);
            // So many of the worst may come before it is noticed.
            assert!(most <= budget.bytes() + STEP * (12 << 10), "{what}: {most} bytes of {mib} MiB");
            assert!(forgotten > 0 && live > 1_000, "{what}: {forgotten} forgotten, {live} remembered");
            assert_eq!(forgotten + live as u64, connections as u64, "{what}");
        }
    }
}

#[test]
fn an_open_connection_costs_little_memory_in_either_detail() {
    let _alone = ALONE.lock();
    let known: Vec<_> = (0..300).map(said).collect();
    let plain: &dyn Fn(usize) -> Vec<Event> = &|id| vec![Event::Socket(opened(id))];
    for (detail, events) in [("connections", plain), ("exchanges", &busy), ("HTTP", &|id| heads(id, &known))] {
        let (each, worst) = cost(events);
        println!("{detail}: {each} bytes for each of {CONNECTIONS} open connections, {worst} at worst on the way");
        assert!(worst <= MAX_BYTES_PER_CONNECTION, "{detail}: {worst} bytes");
    }
}
