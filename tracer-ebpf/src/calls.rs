//! Calls that are followed by one probe at the entry and one at the return: where fexit cannot be had, and the kernel has no
//! function to hook that runs once such a call has got what it waited for. The kernel follows only so many returns at a time,
//! those of calls that wait included, and does not say which ones it leaves out. So a call is kept from its entry to its
//! return. If its thread calls again before that, or ends, it was left out, and is counted.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_get_current_pid_tgid};
use tracer_ebpf::Loss;

use crate::{
    maps::{CALLS, Call},
    output::count,
};

/// The current thread begins a call.
#[inline(always)]
pub fn enters(call: Call) {
    count_if_left_out();
    if CALLS.insert(bpf_get_current_pid_tgid(), call, u64::from(BPF_ANY)).is_err() {
        count(Loss::CallMissed);
    }
}

/// Its call returns; `None` if the entry was not kept.
#[inline(always)]
pub fn returns() -> Option<Call> {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes its entry.
    let call = unsafe { CALLS.get(thread) }.copied()?;
    let _ = CALLS.remove(thread);
    Some(call)
}

/// The current thread ends.
#[inline(always)]
pub fn ends() {
    count_if_left_out();
}

#[inline(always)]
fn count_if_left_out() {
    if returns().is_some() {
        count(Loss::CallMissed);
    }
}
