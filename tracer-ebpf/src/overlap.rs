//! What the kernel skips: it lets no program overlap with itself on one processor. A hook in process context can be
//! interrupted by packets, or its task preempted, and the same hook then fires for another socket; the kernel skips the
//! program and only counts it. So a hook has a second program, which works where the first is at work already.

use tracer_ebpf::Loss;

use crate::{maps::BUSY, output::count, probes::Outcome};

/// Which of a hook's programs runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The one that does the work.
    First,
    /// The one for what the first was skipped for.
    Second,
}

/// Hooks that have a second program: indexes of [`BUSY`].
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Hook {
    State = 0,
    Connect = 1,
    Accept = 2,
    Close = 3,
}

impl Hook {
    /// Number of hooks.
    pub const COUNT: usize = 4;
}

/// The first program: marks this processor while it works.
#[inline(always)]
pub fn first(hook: Hook, work: impl FnOnce() -> Outcome) -> Outcome {
    let busy = BUSY.get_ptr_mut(hook as u32)?;
    // SAFETY: the slot belongs to this processor, which a program never leaves; volatile, because who interrupts reads it.
    unsafe { busy.write_volatile(1) };
    let outcome = work();
    // SAFETY: likewise.
    unsafe { busy.write_volatile(0) };
    outcome
}

/// The second program: works only where the first is at work on this processor, and so was most likely skipped for this
/// event. Most likely, because the first may have served this event, its task have been preempted before the second's turn,
/// and another task be at work in the first now: what must not be done twice has to be looked at in the socket's record.
#[inline(always)]
pub fn second(hook: Hook, work: impl FnOnce() -> Outcome) -> Outcome {
    let busy = BUSY.get_ptr_mut(hook as u32)?;
    // SAFETY: the slot belongs to this processor.
    if unsafe { busy.read_volatile() } == 0 {
        return None;
    }
    count(Loss::SkippedAndServed);
    work()
}
