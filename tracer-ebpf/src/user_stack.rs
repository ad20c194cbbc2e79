//! A thread's stack in user space: what lies there, and which calls are under way.

use aya_ebpf::helpers::bpf_probe_read_user;

/// A word of the process's memory.
#[inline(always)]
pub fn word(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}

/// Whether a call is under way on the current thread that began with the stack at `called_at`, if it is at `stack` now: the stack has
/// grown since, and the call's return address is where it was.
#[inline(always)]
pub fn is_under_way(called_at: u64, returns_to: u64, stack: u64) -> bool {
    stack < called_at && word(called_at) == Some(returns_to)
}
