//! The memory that an open connection costs. A binary of its own: the counting allocator counts all that runs in it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use tracer::{
    stage::event::{Event, UserEvent},
    track::{
        Clock, Correlator, Limits,
        record::{Hello, HttpHead, HttpMethod},
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

#[test]
fn an_open_connection_costs_little_memory_in_either_detail() {
    let known: Vec<_> = (0..300).map(said).collect();
    let plain: &dyn Fn(usize) -> Vec<Event> = &|id| vec![Event::Socket(opened(id))];
    for (detail, events) in [("connections", plain), ("exchanges", &busy), ("HTTP", &|id| heads(id, &known))] {
        let (each, worst) = cost(events);
        println!("{detail}: {each} bytes for each of {CONNECTIONS} open connections, {worst} at worst on the way");
        assert!(worst <= MAX_BYTES_PER_CONNECTION, "{detail}: {worst} bytes");
    }
}
