//! The only place an event leaves the kernel side, and where losses are counted.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{
        bpf_ktime_get_boot_ns, bpf_ringbuf_discard, bpf_ringbuf_output, bpf_ringbuf_query, bpf_ringbuf_reserve,
        bpf_ringbuf_submit,
    },
};
use tracer_ebpf::{
    ExchangeRecord, HELLO_LEN, HelloRecord, Loss, ProcessRecord, SocketRecord, TlsRecord,
    http::{HEAD_LEN, HeadRecord},
    ssl::{JoinedRecord, MappedRecord},
};

use crate::{
    kept::{in_detail, kept},
    maps::{EVENTS, EXCHANGES, LOSSES, config},
};

/// How many exchanges of a connection pass between two looks at how much is waiting in the ring buffer.
const EXCHANGES_PER_LOOK: u32 = 8;

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

/// Sends a copy of a connection's record as an event of `kind`: in detail `exchanges` all of it.
#[inline(always)]
pub fn send_socket(record: &mut SocketRecord, kind: u32, at: u64) {
    record.kind = kind;
    record.at = at;
    if in_detail() {
        send(&kept(record).detailed);
    } else {
        send(record);
    }
}

/// Sends a record that is in no map: there is nothing but the life.
#[inline(always)]
pub fn send_life(record: &mut SocketRecord, kind: u32, at: u64) {
    record.kind = kind;
    record.at = at;
    send(record);
}

/// Sends word of an exchange, the `count`th of its connection, which `fill` writes in whole. On the ring buffer of the exchanges.
#[inline(always)]
pub fn send_exchange(count: u32, fill: impl FnOnce(&mut ExchangeRecord)) {
    let ring = exchanges_ring();
    let Some(room) = reserve::<ExchangeRecord>(ring) else { return };
    // SAFETY: memory of that size that is ours until it is sent, for which all bytes are valid.
    fill(unsafe { &mut *room });
    // One connection's many exchanges need not ask each time how much is waiting.
    let wake = if count % EXCHANGES_PER_LOOK == 1 { wake_up(ring) } else { u64::from(BPF_RB_NO_WAKEUP) };
    // SAFETY: what was reserved, once.
    unsafe { bpf_ringbuf_submit(room.cast(), wake) };
}

/// Sends word of a handshake, likewise.
#[inline(always)]
pub fn send_tls(record: &TlsRecord) {
    send_to(exchanges_ring(), record, Loss::ExchangeRingFull);
}

/// Sends a piece of a hello message, cut to what it holds, likewise.
#[inline(always)]
pub fn send_hello(record: &HelloRecord) {
    send_cut::<_, HELLO_LEN>(record, record.length);
}

/// Sends the beginning of an HTTP head, likewise.
#[inline(always)]
pub fn send_head(record: &HeadRecord) {
    send_cut::<_, HEAD_LEN>(record, record.length);
}

/// Sends a record that ends in `MOST` bytes, of which only so many are valid.
#[inline(always)]
fn send_cut<T, const MOST: usize>(record: &T, length: u32) {
    let head = (size_of::<T>() - MOST) as u32;
    let length = if length > MOST as u32 { MOST as u32 } else { length };
    let ring = exchanges_ring();
    // SAFETY: the map's address, and no more bytes than the record has.
    let outcome = unsafe {
        bpf_ringbuf_output(ring, core::ptr::from_ref(record).cast_mut().cast(), u64::from(head + length), wake_up(ring))
    };
    if outcome != 0 {
        count(Loss::ExchangeRingFull);
    }
}

/// Sends word of a TLS library's session, likewise.
#[inline(always)]
pub fn send_joined(record: &JoinedRecord) {
    send_to(exchanges_ring(), record, Loss::ExchangeRingFull);
}

/// Sends word of a mapping, and wakes user space at once: the process goes on meanwhile, and is soon through with its first call.
#[inline(always)]
pub fn send_mapped(record: &MappedRecord) {
    send_and_wake((&raw const EVENTS).cast_mut().cast(), record, Loss::RingFull, u64::from(BPF_RB_FORCE_WAKEUP));
}

/// Sends a process event.
#[inline(always)]
pub fn send_process(record: &ProcessRecord) {
    send(record);
}

/// Sends an event that `fill` writes where user space will read it; it may leave bytes as they are. Nothing is sent if it
/// returns `None`. On the ring buffer of the exchanges.
#[inline(always)]
pub fn send_filled<T: 'static>(fill: impl FnOnce(*mut T) -> Option<()>) -> Option<()> {
    let ring = exchanges_ring();
    let room = reserve::<T>(ring)?;
    let filled = fill(room);
    // SAFETY: what was reserved, once.
    unsafe {
        match filled {
            Some(()) => bpf_ringbuf_submit(room.cast(), wake_up(ring)),
            None => bpf_ringbuf_discard(room.cast(), u64::from(BPF_RB_NO_WAKEUP)),
        }
    }
    filled
}

/// Room for an event in the ring buffer of the exchanges; counts it where there is none.
#[inline(always)]
fn reserve<T: 'static>(ring: *mut c_void) -> Option<*mut T> {
    // SAFETY: the map's address, and a size that is a constant.
    let room = unsafe { bpf_ringbuf_reserve(ring, size_of::<T>() as u64, 0) };
    if room.is_null() {
        count(Loss::ExchangeRingFull);
        return None;
    }
    Some(room.cast())
}

/// Sends an event of a life or a process.
#[inline(always)]
fn send<T: 'static>(event: &T) {
    send_to((&raw const EVENTS).cast_mut().cast(), event, Loss::RingFull);
}

#[inline(always)]
fn exchanges_ring() -> *mut c_void {
    (&raw const EXCHANGES).cast_mut().cast()
}

/// Waking user space costs far more than the event itself, so it is left to the reader's timer until much is waiting.
#[inline(always)]
fn wake_up(ring: *mut c_void) -> u64 {
    // SAFETY: a ring buffer's address.
    let waiting = unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) };
    u64::from(if waiting >= u64::from(config!(wake_bytes)) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}

/// Copies `event` into a ring buffer.
#[inline(always)]
fn send_to<T: 'static>(ring: *mut c_void, event: &T, if_full: Loss) {
    let wake = wake_up(ring);
    send_and_wake(ring, event, if_full, wake);
}

#[inline(always)]
fn send_and_wake<T: 'static>(ring: *mut c_void, event: &T, if_full: Loss, wake: u64) {
    // aya's own method is bound to the type of one kind of event.
    // SAFETY: a ring buffer's address, and a size that is a constant.
    let room = unsafe { bpf_ringbuf_reserve(ring, size_of::<T>() as u64, 0) };
    if room.is_null() {
        count(if_full);
        return;
    }
    copy(event, room.cast());
    // SAFETY: what was reserved, once.
    unsafe { bpf_ringbuf_submit(room, wake) };
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
