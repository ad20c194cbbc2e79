//! Names are looked up by the C library: `getaddrinfo` is called, and returns. So lookups are seen that send nothing to port 53 from
//! this process: in `/etc/hosts`, by nscd, by nss-resolve.
//!
//! The name is read at the return, as is the answer: by then the library has read it, so it is in memory.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated::bpf_probe_read_user_str as copy_user_text},
    programs::ProbeContext,
};
use tracer_ebpf::{
    Loss,
    getaddrinfo::{ADDRESSES, GetAddrInfoRecord, NAME_LEN},
    kind,
};

use super::{
    Outcome,
    user::{called_at, place, programs, result, stack},
};
use crate::{
    identity::{current_ids, current_name},
    kernel::{
        access::Probe,
        sock::{AF_INET, AF_INET6, v4_mapped, words},
    },
    maps::NAME_CALLS,
    output::{count, now, send_filled},
    selection::current_process_selected,
    user_stack::{is_under_way, word},
    verifier::{below, opaque},
};

/// Bit of `ai_flags`: the name is an address (`netdb.h`).
const AI_NUMERICHOST: i32 = 4;

programs! {
    /// `int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res)`
    fn getaddrinfo(ctx) {
        try_call(ctx, Arguments { name: ctx.arg(0)?, hints: ctx.arg(2)?, answer: ctx.arg(3)? })
    }

    /// Its return instructions.
    fn getaddrinfo_done(ctx) {
        try_return(ctx)
    }
}

/// A call that is under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NameCall {
    began_at: u64,
    arguments: Arguments,
    /// The top of the stack as the function was called.
    stack: u64,
    /// What lay there: where the call returns to.
    returns_to: u64,
}

/// Addresses of what a call is about.
#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    /// The name.
    name: u64,
    /// What kind of answer is wanted; 0 for any.
    hints: u64,
    /// Where the answer's address is put.
    answer: u64,
}

/// The beginning of `struct addrinfo`, of which hints use no more.
#[repr(C)]
#[derive(Clone, Copy)]
struct Hints {
    flags: i32,
    family: i32,
}

impl Hints {
    const ANY: Self = Self { flags: 0, family: 0 };
}

/// `struct addrinfo`, the same in all C libraries of Linux.
#[repr(C)]
#[derive(Clone, Copy)]
struct AddrInfo {
    flags: i32,
    family: i32,
    kind: i32,
    protocol: i32,
    length: u32,
    reserved: u32,
    address: u64,
    canonical_name: u64,
    next: u64,
}

#[inline(always)]
fn try_call(ctx: &ProbeContext, arguments: Arguments) -> Outcome {
    if arguments.name == 0 || !current_process_selected() {
        return None;
    }
    let stack = called_at(ctx, place(ctx));
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes its entry.
    if let Some(last) = unsafe { NAME_CALLS.get(thread) } {
        if is_under_way(last.stack, last.returns_to, stack) {
            // A library's own `getaddrinfo` calls that of the C library: what the application waits for is the outer one.
            return None;
        }
        // It was left by a jump.
        count(Loss::CallMissed);
    }
    let returns_to = word(stack)?;
    let call = NameCall { began_at: now(), arguments, stack, returns_to };
    NAME_CALLS.insert(thread, call, u64::from(BPF_ANY)).ok()
}

#[inline(always)]
fn try_return(ctx: &ProbeContext) -> Outcome {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes its entry.
    let call = unsafe { NAME_CALLS.get(thread) }.copied()?;
    // What is called within it returns further down the stack.
    if stack(ctx) != call.stack || word(call.stack) != Some(call.returns_to) {
        return None;
    }
    let _ = NAME_CALLS.remove(thread);
    send(&call, result(ctx) as i32)
}

#[inline(always)]
fn send(call: &NameCall, result: i32) -> Outcome {
    let Arguments { name, hints, answer } = call.arguments;
    let hints = if hints == 0 { Hints::ANY } else { read(hints)? };
    if hints.flags & AI_NUMERICHOST != 0 {
        return None;
    }
    let (tgid, tid) = current_ids();
    let (process_started_at, comm) = current_name::<Probe>();
    send_filled(|record: *mut GetAddrInfoRecord| {
        // SAFETY: memory of that size that is ours until it is sent, for which all bytes are valid.
        let record = unsafe { &mut *record };
        // SAFETY: there is room for so many bytes; the helper checks the source and fails on a bad one.
        let length = unsafe { copy_user_text(record.name.as_mut_ptr().cast(), NAME_LEN as u32, name as *const _) };
        if length < 0 {
            count(Loss::UnreadablePayload);
            return None;
        }
        record.kind = kind::GETADDRINFO;
        record.result = result;
        record.at = now();
        record.began_at = call.began_at;
        record.process_started_at = process_started_at;
        record.tgid = tgid;
        record.tid = tid;
        record.family = hints.family as u32;
        record.comm = comm;
        record.count = if result == 0 { copy_addresses(answer, record.addresses.as_mut_ptr().cast()) } else { 0 };
        Some(())
    })
}

/// Copies the addresses of an answer to where there is room for [`ADDRESSES`], and returns how many there are. What is in the program's
/// hands from one to the next is kept small: the verifier follows each state that it can be in.
#[inline(always)]
fn copy_addresses(answer: u64, addresses: *mut [u64; 2]) -> u32 {
    let mut entry = word(answer).unwrap_or(0);
    let mut copied = 0;
    while copied < opaque(ADDRESSES as u32) && entry != 0 {
        let Some((address, next)) = look(entry) else {
            count(Loss::UnreadablePayload);
            break;
        };
        // SAFETY: there are so many, and they are as aligned as words.
        unsafe { addresses.add(below::<{ ADDRESSES.next_power_of_two() as i32 }>(copied)).write(address) };
        entry = next;
        copied += 1;
    }
    copied
}

/// The address of an entry, `::` if it is of a family that is not known, and the next entry. `None` if they cannot be read.
#[inline(always)]
fn look(entry: u64) -> Option<([u64; 2], u64)> {
    /// Where addresses are in `sockaddr_in` and `sockaddr_in6`.
    const IN: u64 = 4;
    const IN6: u64 = 8;
    let entry: AddrInfo = read(entry)?;
    let address = match entry.family as u16 {
        AF_INET => words(v4_mapped(read(entry.address + IN)?)),
        AF_INET6 => read(entry.address + IN6)?,
        _ => [0; 2],
    };
    Some((address, entry.next))
}

#[inline(always)]
fn read<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails on a bad one; all bytes are valid for what is read here.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}
