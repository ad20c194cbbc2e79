//! The only place an event leaves the kernel side, and where losses are counted.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_ktime_get_boot_ns, bpf_ringbuf_query},
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
        add_one(counter);
    }
}

/// Adds one in one go: whoever interrupts or preempts this program on its processor may count at the same moment.
#[inline(always)]
fn add_one(counter: *mut u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: a map's value, live and aligned.
    unsafe {
        core::arch::asm!("lock *(u64 *)({counter} + 0) += {one}", counter = in(reg) counter, one = in(reg) 1_u64);
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: likewise.
    unsafe {
        *counter += 1;
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
fn send<T: 'static>(event: &T) {
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the map's address.
    let waiting = unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) };
    let wake = if waiting >= u64::from(config!(wake_bytes)) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    let Some(mut room) = EVENTS.reserve_untyped::<T>(0) else {
        count(Loss::RingFull);
        return;
    };
    copy(event, room.as_mut_ptr());
    room.submit(wake.into());
}

/// Word by word and volatile: the compiler would otherwise call its own memcpy, a loop over single bytes.
#[inline(always)]
fn copy<T>(from: &T, to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(size_of::<u64>()) && align_of::<T>() == align_of::<u64>()) };
    let (from, to) = (core::ptr::from_ref(from).cast::<u64>(), to.cast::<u64>());
    for index in 0..size_of::<T>() / size_of::<u64>() {
        // SAFETY: inside both, which are made of plain numbers and aligned to 8 bytes.
        unsafe { to.add(index).write_volatile(from.add(index).read_volatile()) };
    }
}
