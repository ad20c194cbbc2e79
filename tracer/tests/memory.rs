//! The memory that an open connection costs. A binary of its own: the counting allocator counts all that runs in it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use tracer::{
    stage::event::Event,
    track::{Clock, Correlator, Limits},
};
use tracer_ebpf::{SocketRecord, kind, role};
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

#[test]
fn an_open_connection_costs_little_memory() {
    let before = RESIDENT.load(Relaxed);
    let clock = Clock { boot_to_wall_ns: 0, tick_ns: 4_000_000, began_at: 1 };
    let mut correlator = Correlator::new(clock, Limits::default());
    let mut worst = 0;
    for id in 1..=CONNECTIONS {
        let record = SocketRecord {
            kind: kind::OPENED,
            id: id as u64,
            opened_at: id as u64,
            // As on a busy node: a few hundred processes.
            tgid: (id % 300) as u32,
            role: role::CLIENT,
            ..SocketRecord::new_zeroed()
        };
        correlator.apply(&Event::Socket(record), &mut |_| {});
        if id > CONNECTIONS / 2 {
            worst = worst.max((RESIDENT.load(Relaxed) - before) / id);
        }
    }
    assert_eq!(correlator.live(), CONNECTIONS);
    let each = (RESIDENT.load(Relaxed) - before) / CONNECTIONS;
    println!("{each} bytes for each of {CONNECTIONS} open connections, {worst} at worst on the way");
    assert!(worst <= MAX_BYTES_PER_CONNECTION, "{worst} bytes");
}
