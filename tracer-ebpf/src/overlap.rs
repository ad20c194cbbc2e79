//! What the kernel skips: it lets no program overlap with itself on one processor. A hook in process context can be
//! interrupted by packets, or its task preempted, and the same hook then fires for another socket; the kernel skips the
//! program and only counts it. So a hook has a second program, which runs after the first, and works where the first did
//! not run for this event. Where the kernel preempts there are a third and a fourth: under load, tasks that preempt each
//! other in one hook were seen two deep in one connect of sixty, three deep in one of seven hundred.

use tracer_ebpf::Loss;

use crate::{kernel::access::Pointer, maps::LAST_SERVED, output::count, probes::Outcome};

/// Hooks that have a second program: indexes of [`LAST_SERVED`].
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Hook {
    State = 0,
    Connect = 1,
    Accept = 2,
    Close = 3,
    ConnectV4 = 4,
    ConnectV6 = 5,
}

impl Hook {
    /// Number of hooks.
    pub const COUNT: usize = 6;
}

/// One event of a hook: a socket, and for changes of state the new one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Event {
    sock: u64,
    state: u64,
}

/// Kept apart: the verifier forbids sums of a pointer and a number that it does not know ("value -2147483648 makes
/// trusted_ptr_ pointer be out of bounds").
#[inline(always)]
pub fn event(sock: Pointer, state: i32) -> Event {
    Event { sock: sock as u64, state: u64::from(state as u8) }
}

/// The first program: leaves word on this processor which event it serves.
#[inline(always)]
pub fn first(hook: Hook, event: Event, work: impl FnOnce() -> Outcome) -> Outcome {
    let last = LAST_SERVED.get_ptr_mut(hook as u32)?;
    // SAFETY: the slot belongs to this processor, which a program never leaves; volatile, because who interrupts reads it.
    unsafe { last.write_volatile(event) };
    work()
}

/// The second program, and those after it. If the word is of another event, then either the first was skipped for this
/// one, or it did serve it and has served another before this program's turn came; `is_served` tells from the record.
#[inline(always)]
pub fn second(hook: Hook, event: Event, is_served: impl FnOnce() -> bool, work: impl FnOnce() -> Outcome) -> Outcome {
    let last = LAST_SERVED.get_ptr_mut(hook as u32)?;
    // SAFETY: the slot belongs to this processor.
    let word = unsafe { last.read_volatile() };
    if word.sock == event.sock && word.state == event.state || is_served() {
        return None;
    }
    // SAFETY: likewise.
    unsafe { last.write_volatile(event) };
    count(Loss::SkippedAndServed);
    work()
}
