//! The record of a socket: found, made, adopted, freed, and filled from the kernel's fields.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE},
    helpers::{bpf_map_update_elem, bpf_sk_storage_get},
};
use tracer_ebpf::{
    ID_COUNTED, Loss, SocketRecord, adopted,
    exchange::{self, Passed},
    flag, role, storage, tcp_state,
};

use crate::{
    follow::LOOKS,
    heads, identity,
    kept::{Kept, in_detail, kept},
    kernel::{
        access::{Access, Probe},
        sock::{Ends, Sock},
    },
    maps::{ADOPTED, NEXT_ID, SOCKETS, SOCKETS_DETAILED, SOCKETS_LRU, SOCKETS_LRU_DETAILED, config},
    output::count,
};

/// The record of a traced socket.
pub type Record = &'static mut SocketRecord;

/// A record of which nothing is known yet.
pub const EMPTY: SocketRecord = SocketRecord {
    kind: 0,
    flags: 0,
    at: 0,
    id: 0,
    opened_at: 0,
    established_at: 0,
    end_sign_at: 0,
    released_at: 0,
    ended_at: 0,
    bytes_sent: 0,
    bytes_received: 0,
    process_started_at: 0,
    tgid: 0,
    tid: 0,
    opener_tgid: 0,
    netns: 0,
    sent_idle_ticks: 0,
    received_idle_ticks: 0,
    srtt_us: 0,
    retransmits: 0,
    syn_retransmits: 0,
    error: 0,
    local_address: [0; 16],
    remote_address: [0; 16],
    local_port: 0,
    remote_port: 0,
    role: 0,
    state_before_end: 0,
    state_at_end: 0,
    unacknowledged: 0,
    comm: [0; 16],
};

/// A socket of which nothing is known yet.
static NOTHING_KEPT: [u64; size_of::<Kept>() / size_of::<u64>()] = [0; size_of::<Kept>() / size_of::<u64>()];

/// Whether records live in socket storage; a constant to the verifier. Helpers take only typed pointers.
#[inline(always)]
fn in_socket_storage<A: Access>() -> bool {
    A::TYPED && config!(storage) == storage::SOCKET
}

/// The record of a socket that is already traced. One that is being filled is none yet: where it is made for a connection that is
/// accepted nothing holds up its packets, whose hooks would tell of a connection without ends. What they have to tell is looked at when
/// it is filled.
#[inline(always)]
pub fn find<A: Access>(sock: Sock<A>) -> Option<Record> {
    let record = find_any(sock).filter(|record| is_filled(record))?;
    in_order();
    Some(record)
}

/// The record of a socket, if there is one.
#[inline(always)]
fn find_any<A: Access>(sock: Sock<A>) -> Option<Record> {
    let record = if in_socket_storage::<A>() {
        // Most sockets that nothing selects end here, which costs a sixth of asking the helper.
        if sock.has_storage() == Some(false) {
            return None;
        }
        storage_get(sock, 0)
    } else {
        lru_get(sock.pointer as u64)
    };
    // SAFETY: null, or a map value that lives as long as the program runs; the socket lock or the single owner of a
    // transition keeps writers apart, and each event is merged in user space with what came before.
    unsafe { record.as_mut() }
}

/// The record of a socket, made if there is none; counts it when that fails.
#[inline(always)]
pub fn find_or_create<A: Access>(sock: Sock<A>) -> Option<Record> {
    if in_socket_storage::<A>() {
        let record = storage_get(sock, u64::from(BPF_SK_STORAGE_GET_F_CREATE));
        if record.is_null() {
            count(Loss::NoRecord);
        }
        // SAFETY: as in `find`.
        return unsafe { record.as_mut() };
    }
    if let Some(record) = find_any(sock) {
        return Some(record);
    }
    if !lru_insert(sock.pointer as u64) {
        count(Loss::NoRecord);
        return None;
    }
    count(Loss::LruInserted);
    find_any(sock)
}

#[inline(always)]
fn storage_get<A: Access>(sock: Sock<A>, flags: u64) -> *mut SocketRecord {
    let map: *const c_void =
        if in_detail() { (&raw const SOCKETS_DETAILED).cast() } else { (&raw const SOCKETS).cast() };
    // aya's own method takes only the context of another program type.
    // SAFETY: the map's address, a typed socket pointer, no initial value (the kernel fills in zeros).
    unsafe { bpf_sk_storage_get(map.cast_mut(), sock.pointer.cast_mut(), core::ptr::null_mut(), flags) }.cast()
}

#[inline(always)]
fn lru_get(key: u64) -> *mut SocketRecord {
    let found = if in_detail() {
        SOCKETS_LRU_DETAILED.get_ptr_mut(key).map(<*mut Kept>::cast)
    } else {
        SOCKETS_LRU.get_ptr_mut(key)
    };
    found.unwrap_or(core::ptr::null_mut())
}

/// Makes an empty record in the LRU hash. From read-only data: as a local variable the value would not fit the stack.
#[inline(always)]
fn lru_insert(key: u64) -> bool {
    let map: *const c_void =
        if in_detail() { (&raw const SOCKETS_LRU_DETAILED).cast() } else { (&raw const SOCKETS_LRU).cast() };
    // SAFETY: the map's address, a live key, and a value at least as long as that map's values.
    let outcome = unsafe {
        bpf_map_update_elem(
            map.cast_mut(),
            (&raw const key).cast(),
            (&raw const NOTHING_KEPT).cast(),
            u64::from(BPF_NOEXIST),
        )
    };
    outcome == 0
}

/// Forgets a socket's record where the kernel does not do so by itself.
#[inline(always)]
pub fn remove<A: Access>(sock: Sock<A>) {
    if in_socket_storage::<A>() {
        return;
    }
    let key = sock.pointer as u64;
    let removed = if in_detail() { SOCKETS_LRU_DETAILED.remove(key) } else { SOCKETS_LRU.remove(key) };
    if removed.is_ok() {
        count(Loss::LruDeleted);
    }
}

/// The record of a traced socket, or of one that was open before the trace and is seen for the first time.
#[inline(always)]
pub fn find_or_adopt<A: Access>(sock: Sock<A>) -> Option<Record> {
    match find(sock) {
        Some(record) => Some(record),
        None => adopt(sock),
    }
}

/// Sockets that user space found open have a cookie (asking sock_diag makes one) and stand in ADOPTED.
#[inline(always)]
fn adopt<A: Access>(sock: Sock<A>) -> Option<Record> {
    let cookie = sock.cookie()?;
    if cookie == 0 {
        return None;
    }
    // SAFETY: a u64 that only whole writes change.
    let value = unsafe { ADOPTED.get(cookie) }.copied()?;
    let record = find_or_create(sock)?;
    record.flags = flag::PREEXISTING;
    record.tgid = adopted::tgid(value);
    record.opener_tgid = record.tgid;
    record.role = adopted::role(value);
    record.netns = sock.netns().unwrap_or(0);
    if let Some(ends) = sock.ends() {
        set_ends(record, &ends);
    }
    if in_detail() {
        kept(record).looks = LOOKS;
        // It may be in the middle of what it asks.
        heads::look_for(kept(record), heads::LATER_ASKS);
    }
    set_number(record, cookie);
    let _ = ADOPTED.remove(cookie);
    Some(record)
}

/// Fills a record for a connection that begins now, whatever it held before, but for the number: see [`is_now_filled`]. One that was
/// just made holds nothing.
#[inline(always)]
pub fn begin<A: Access>(record: &mut SocketRecord, sock: Sock<A>, ends: &Ends, role: u8, at: u64) {
    if is_filled(record) {
        clear(record);
    }
    fill(record, sock, ends, role, at);
}

/// Fills an empty record for a connection that begins now, but for the number.
#[inline(always)]
pub fn fill<A: Access>(record: &mut SocketRecord, sock: Sock<A>, ends: &Ends, role: u8, at: u64) {
    record.opened_at = at;
    record.role = role;
    record.netns = sock.netns().unwrap_or(0);
    set_ends(record, ends);
    identity::own::<A>(record);
    record.opener_tgid = record.tgid;
}

/// Whether a record has been filled.
#[inline(always)]
pub fn is_filled(record: &SocketRecord) -> bool {
    record.id != 0
}

/// Gives a record its number, which is the last that it gets: other hooks find it from here on.
#[inline(always)]
pub fn is_now_filled<A: Access>(record: &mut SocketRecord, sock: Sock<A>) {
    set_number(record, number(sock));
}

#[inline(always)]
fn set_number(record: &mut SocketRecord, id: u64) {
    in_order();
    // SAFETY: a field of a live value. What interrupts this processor sees it after all that was written before.
    unsafe { (&raw mut record.id).write_volatile(id) };
    in_order();
}

/// Forgets all that a record holds, its number first, so that no other hook finds what is left. Word by word and volatile: the compiler would otherwise call its own memset, a loop
/// over single bytes that costs 1,200 instructions.
#[inline(always)]
fn clear(record: &mut SocketRecord) {
    set_number(record, 0);
    if in_detail() { clear_words(kept(record)) } else { clear_words(record) }
}

#[inline(always)]
fn clear_words<T>(value: &mut T) {
    const { assert!(size_of::<T>().is_multiple_of(size_of::<u64>()) && align_of::<T>() == align_of::<u64>()) };
    let words = core::ptr::from_mut(value).cast::<u64>();
    for index in 0..size_of::<T>() / size_of::<u64>() {
        // SAFETY: inside the value, which is made of plain numbers and aligned to 8 bytes.
        unsafe { words.add(index).write_volatile(0) };
    }
}

#[inline(always)]
pub fn set_ends(record: &mut SocketRecord, ends: &Ends) {
    record.local_address = ends.local;
    record.remote_address = ends.remote;
    record.local_port = ends.local_port;
    record.remote_port = ends.remote_port;
}

/// The socket's cookie, or where there is none a number of our own.
#[inline(always)]
pub fn number<A: Access>(sock: Sock<A>) -> u64 {
    A::make_cookie(sock.pointer).unwrap_or_else(counted_number)
}

/// The number of the connection that a socket is traced as, for programs that cannot reach socket storage.
#[inline(always)]
pub fn number_of(sock: Sock<Probe>) -> Option<u64> {
    if config!(storage) == storage::SOCKET { sock.cookie() } else { find(sock).map(|record| record.id) }
}

/// CPU in the upper half, that CPU's counter in the lower: unique without locks.
#[inline(always)]
fn counted_number() -> u64 {
    // SAFETY: takes nothing.
    let cpu = u64::from(unsafe { aya_ebpf::helpers::bpf_get_smp_processor_id() });
    let Some(next) = NEXT_ID.get_ptr_mut(0) else { return ID_COUNTED };
    // SAFETY: the slot belongs to this CPU.
    let counted = unsafe {
        *next += 1;
        *next
    };
    ID_COUNTED | cpu << 40 | counted
}

/// Notes the first sign of the end, and how long the connection had been idle by then.
#[inline(always)]
pub fn end_begins<A: Access>(record: &mut SocketRecord, sock: Sock<A>, before: u8, after: u8, at: u64) {
    if record.end_sign_at != 0 {
        return;
    }
    record.end_sign_at = at;
    count_last_sent(record, sock, before);
    if in_detail() {
        let exchanges = &mut kept(record).detailed.exchanges;
        exchanges.last_before_end = exchanges.last_at;
    }
    record.state_before_end = before;
    record.state_at_end = after;
    let idle = sock.tcp().and_then(|tcp| Some((tcp.sent_idle()?, tcp.received_idle()?)));
    if let Some((sent, received)) = idle {
        record.sent_idle_ticks = sent;
        record.received_idle_ticks = received;
        record.flags |= flag::IDLE_KNOWN;
        if let Some(silence) = sock.tcp().and_then(|tcp| tcp.ack_age())
            && silence > sent
        {
            // What was sent last, again or for the first time, was sent after the last acknowledgment.
            record.unacknowledged = (silence.ilog2() + 1) as u8;
        }
    }
    if let Some(on) = sock.keepalive() {
        record.flags |= flag::KEEPALIVE_KNOWN | if on { flag::KEEPALIVE } else { 0 };
    }
}

/// Errors that end a TCP connection. Others may be reported for one that goes on (`IP_RECVERR`).
const FATAL_ERRORS: [u32; 4] = [EPIPE, ECONNRESET, ETIMEDOUT, ECONNREFUSED];
const EPIPE: u32 = 32;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;

/// Keeps the error of a connection that fails. By the time it ends, the application may have taken it away.
#[inline(always)]
pub fn note_fatal_error<A: Access>(record: &mut SocketRecord, sock: Sock<A>) {
    if let Some(error) = sock.error()
        && FATAL_ERRORS.contains(&error)
    {
        record.error = error;
    }
}

/// Begins to count the bytes of a connection and to look for TLS.
#[inline(always)]
pub fn begin_exchanges<A: Access>(record: &mut SocketRecord, sock: Sock<A>, at: u64) {
    if !in_detail() {
        return;
    }
    let kept = kept(record);
    kept.looks = LOOKS;
    heads::look_for(kept, heads::FIRST_ASK);
    let Some(tcp) = sock.tcp() else { return };
    let is_client = kept.detailed.socket.role == role::CLIENT;
    if let (Some(write_seq), Some(copied_seq)) = (tcp.write_seq(), tcp.copied_seq()) {
        // A SYN that is yet to be sent takes up one number; what the first byte received is numbered is known later.
        kept.detailed.exchanges.write_seq = if is_client { write_seq.wrapping_add(1) } else { write_seq };
        kept.detailed.exchanges.copied_seq = copied_seq;
        kept.detailed.exchanges.flags = exchange::flag::COUNTING_SENT | exchange::flag::COUNTING_RECEIVED;
    }
    if is_client && tcp.is_fast_open() == Some(true) {
        kept.detailed.socket.flags |= flag::FAST_OPEN;
        // The call that sends them came before the connection was known; this one is inside it.
        let first = Passed { at, asks: true, stale: false, received_before: 0 };
        kept.detailed.exchanges.pass(first, |_| {});
    }
}

/// The connection is ready for application data.
#[inline(always)]
pub fn ready<A: Access>(record: &mut SocketRecord, sock: Sock<A>, at: u64) {
    if !in_detail() {
        return;
    }
    let exchanges = &mut kept(record).detailed.exchanges;
    exchanges.ready_at = at;
    if let Some(copied_seq) = sock.tcp().and_then(|tcp| tcp.copied_seq()) {
        exchanges.copied_seq = copied_seq;
    }
}

/// Whether data can be sent in a state: no FIN of our own has gone.
#[inline(always)]
pub fn can_send(state: u8) -> bool {
    state == tcp_state::ESTABLISHED || state == tcp_state::CLOSE_WAIT
}

/// Brings the count of bytes sent up to date, before a FIN takes up a number.
#[inline(always)]
pub fn count_last_sent<A: Access>(record: &mut SocketRecord, sock: Sock<A>, state: u8) {
    if !in_detail() || !can_send(state) {
        return;
    }
    let exchanges = &mut kept(record).detailed.exchanges;
    if exchanges.flags & exchange::flag::COUNTING_SENT != 0
        && let Some(write_seq) = sock.tcp().and_then(|tcp| tcp.write_seq())
    {
        exchanges.count_sent(write_seq);
    }
}

/// Reads the totals that TCP kept.
#[inline(always)]
pub fn read_totals<A: Access>(record: &mut SocketRecord, sock: Sock<A>) {
    match sock.error() {
        // What was noted when it was reported stays.
        Some(0) | None => {}
        Some(error) => record.error = error,
    }
    let fin = sock.peer_fin();
    if fin == Some(true) {
        record.flags |= flag::PEER_FIN;
    }
    let Some(tcp) = sock.tcp() else { return };
    if let (Some(sent), Some(sequence), Some(fin)) = (tcp.bytes_sent(), tcp.sequence_received(), fin) {
        record.bytes_sent = sent;
        // The peer's FIN takes up one number of the sequence space.
        record.bytes_received = sequence.saturating_sub(u64::from(fin));
        record.flags |= flag::BYTES_KNOWN;
    }
    if let Some(srtt) = tcp.srtt_us() {
        record.srtt_us = srtt;
        record.flags |= flag::SRTT_KNOWN;
    }
    if let Some(again) = tcp.retransmits() {
        record.retransmits = again;
        record.flags |= flag::RETRANSMITS_KNOWN;
    }
    if tcp.is_mptcp() == Some(true) {
        // It is an upper layer protocol itself.
        record.flags |= flag::MPTCP;
    } else if tcp.has_upper_layer_protocol() == Some(true) {
        record.flags |= flag::KERNEL_TLS;
    }
}

/// Makes this processor's earlier writes visible to others before its later reads. BPF has no fence instruction and core no
/// atomic additions for it; a locked addition to any memory is a fence on x86-64, also without `fetch`, which 5.10 lacks. On 64-bit
/// Arm only one that fetches is: the kernel compiles the other to an addition that orders nothing.
#[inline(always)]
pub fn full_barrier() {
    let mut word = 0_u64;
    // SAFETY: adds to a live, aligned word of our own; memory counts as clobbered, so the compiler moves nothing across.
    #[cfg(all(target_arch = "bpf", not(bpf_target_arch = "aarch64")))]
    unsafe {
        core::arch::asm!("lock *(u64 *)({word} + 0) += {one}", word = in(reg) &raw mut word, one = in(reg) 1_u64);
    }
    // SAFETY: likewise; what was there before goes to a register that nothing else is in.
    #[cfg(all(target_arch = "bpf", bpf_target_arch = "aarch64"))]
    unsafe {
        core::arch::asm!(
            "{one} = atomic_fetch_add((u64 *)({word} + 0), {one})",
            word = in(reg) &raw mut word,
            one = inout(reg) 1_u64 => _,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    let _ = &mut word;
}

/// Keeps what this processor writes in its order for others, and what it reads. x86-64 does so by itself.
#[inline(always)]
fn in_order() {
    if cfg!(bpf_target_arch = "aarch64") {
        full_barrier();
    }
}
