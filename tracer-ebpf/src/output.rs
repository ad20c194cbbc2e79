//! The only place an event leaves the kernel side, and where losses are counted.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_ktime_get_boot_ns, bpf_ringbuf_output, bpf_ringbuf_query},
};
use tracer_ebpf::{Loss, ProcessRecord, SocketRecord};

use crate::maps::{EVENTS, LOSSES, config};

/// Nanoseconds of `CLOCK_BOOTTIME`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes nothing, reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Adds one to a loss counter of this CPU.
#[inline(always)]
pub fn count(cause: Loss) {
    if let Some(counter) = LOSSES.get_ptr_mut(cause as u32) {
        // SAFETY: the slot belongs to this CPU, and BPF programs are not migrated.
        unsafe { *counter += 1 };
    }
}

/// Sends a copy of a connection's record as an event of `kind`.
#[inline(always)]
pub fn send_socket(record: &mut SocketRecord, kind: u32, at: u64) {
    record.kind = kind;
    record.at = at;
    send(record);
}

/// Sends a process event.
#[inline(always)]
pub fn send_process(record: &ProcessRecord) {
    send(record);
}

/// Copies `event` into the ring buffer. Waking user space costs far more than the event itself, so it is left to the
/// reader's timer until much is waiting.
#[inline(always)]
fn send<T>(event: &T) {
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the map's address.
    let waiting = unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) };
    let wake = if waiting >= u64::from(config!(wake_bytes)) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    let bytes = core::ptr::from_ref(event).cast_mut().cast();
    // SAFETY: the map's address and a live value of the given size.
    let result = unsafe { bpf_ringbuf_output(ring, bytes, size_of::<T>() as u64, wake.into()) };
    if result != 0 {
        count(Loss::RingFull);
    }
}
