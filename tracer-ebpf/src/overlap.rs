//! What the kernel skips: it lets no program overlap with itself on one processor. A hook can be interrupted by packets, or
//! its task preempted, and the same hook then fires for another socket; the kernel skips the program and only counts it.
//! A task that was preempted in a program keeps it from all others of its processor until it runs again, which under load
//! is dozens of events later. So a hook has several programs, one after the other: each serves what those before it were
//! skipped for. Nothing is lost as long as one of them is free, so up to [`PROGRAMS`] - 1 tasks may be held up in one hook of
//! one processor at once.
//!
//! Turning preemption off inside a program (`bpf_preempt_disable`) does not help: whoever waits then takes the processor
//! at the moment that it is turned on again, which is still inside the program.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use tracer_ebpf::Loss;

use crate::{
    kernel::access::Pointer,
    maps::{SERVED, config},
    output::count,
    probes::Outcome,
};

/// Most programs of one hook. A change of state can be interrupted by packets once more than the others, so of six programs
/// it needs one for the task that is interrupted, one for the packets, and has four for tasks that are held up.
pub const PROGRAMS: u32 = 6;

/// Hooks that have several programs: indexes of [`SERVED`].
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Hook {
    State = 0,
    Connect = 1,
    Accept = 2,
    Close = 3,
    ConnectV4 = 4,
    ConnectV6 = 5,
    Send = 6,
    Receive = 7,
    UdpSend = 8,
    UdpV6Send = 9,
    UdpReceive = 10,
    UdpV6Receive = 11,
    Fork = 12,
    Exec = 13,
    Exit = 14,
    SendGoesOn = 15,
    SpliceRead = 16,
    Retransmit = 17,
    ReceiveReset = 18,
    SendReset = 19,
    Error = 20,
    Mapped = 21,
    Graft = 22,
}

impl Hook {
    /// Number of hooks.
    pub const COUNT: usize = 23;
}

/// One event of a hook, as its programs tell it from others: by where its arguments are, which is a place on the stack of
/// who triggered it and the same for all programs, by the socket, and for changes of state by the new one.
#[derive(Clone, Copy)]
pub struct Event {
    arguments: *mut c_void,
    sock: Pointer,
    state: u32,
}

impl Event {
    #[inline(always)]
    pub fn new(arguments: *mut c_void, sock: Pointer) -> Self {
        Self { arguments, sock, state: 0 }
    }

    #[inline(always)]
    pub fn of_state(arguments: *mut c_void, sock: Pointer, state: i32) -> Self {
        Self { arguments, sock, state: u32::from(state as u8) }
    }
}

/// Which program of a hook ran last for an event.
#[repr(C)]
#[derive(Clone, Copy)]
struct Mark {
    arguments: u64,
    sock: u64,
    /// The new state and, in the lowest eight bits, the program.
    state_and_program: u64,
}

impl Mark {
    #[inline(always)]
    fn state_and(event: Event, program: u32) -> u64 {
        u64::from(event.state) << 8 | u64::from(program)
    }

    /// Field by field: as a whole it would be put together on the stack first.
    ///
    /// # Safety
    /// `mark` is live. Volatile, because others write there too.
    #[inline(always)]
    unsafe fn write(mark: *mut Self, event: Event, program: u32) {
        // SAFETY: the caller's.
        unsafe {
            (&raw mut (*mark).arguments).write_volatile(event.arguments as u64);
            (&raw mut (*mark).sock).write_volatile(event.sock as u64);
            (&raw mut (*mark).state_and_program).write_volatile(Self::state_and(event, program));
        }
    }
}

const MARKS: usize = 1 << MARK_BITS;
const MARK_BITS: u32 = 9;

/// The marks of one hook, by the stack of who triggered it: events that are under way at once keep apart, on whatever processor a task
/// goes on that was preempted in between. There are so many because two stacks that share a mark cost more than a second look: an event
/// that leaves nothing in a record, and whose mark was written over, counts as one that the first program was skipped for, and hides one
/// that all of them were.
#[repr(transparent)]
pub struct Marks([Mark; MARKS]);

/// Does the work of an event if it [falls to](falls_to) the program. Large work is better done by the caller: as a closure it
/// becomes a function of its own.
#[inline(always)]
pub fn serve<const PROGRAM: u32>(
    hook: Hook,
    event: Event,
    is_served: impl FnOnce() -> bool,
    work: impl FnOnce() -> Outcome,
) -> Outcome {
    if falls_to::<PROGRAM>(hook, event, is_served) { work() } else { None }
}

/// The same for a hook that keeps nothing by which to tell that an event has been served, about the object that is `about`: where
/// other tasks have written over its mark meanwhile, it is served again.
#[inline(always)]
pub fn serve_by_mark<const PROGRAM: u32>(
    hook: Hook,
    ctx: &impl EbpfContext,
    about: Pointer,
    work: impl FnOnce() -> Outcome,
) -> Outcome {
    serve::<PROGRAM>(hook, Event::new(ctx.as_ptr(), about), || false, work)
}

/// Whether the work of an event is to be done by its hook's program number `PROGRAM`, counted from 1: unless one before it has
/// done so. A mark that another event wrote over leaves that open; then `is_served` tells from the record.
#[inline(always)]
pub fn falls_to<const PROGRAM: u32>(hook: Hook, event: Event, is_served: impl FnOnce() -> bool) -> bool {
    const { assert!(PROGRAM >= 1 && PROGRAM <= PROGRAMS) };
    if PROGRAM == 1 && !has_more(hook) {
        return true;
    }
    let Some(marks) = SERVED.get_ptr_mut(hook as u32) else { return PROGRAM == 1 };
    let mark = mark_of(marks, event);
    // SAFETY: inside the map's value; volatile, because others write here too.
    let is_marked = PROGRAM > 1 && unsafe { is_marked_before::<PROGRAM>(mark, event) };
    // SAFETY: likewise.
    unsafe { Mark::write(mark, event, PROGRAM) };
    if PROGRAM == 1 {
        return true;
    }
    if is_marked || is_served() {
        return false;
    }
    count(Loss::SkippedAndServed);
    true
}

/// Whether a hook has more programs than its first; a constant to the verifier. Packets interrupt changes of state
/// everywhere.
#[inline(always)]
fn has_more(hook: Hook) -> bool {
    matches!(hook, Hook::State) || config!(preemptible) != 0
}

/// Whether an earlier program has run for this event. The last program's mark is no such sign: it is left from an event
/// before, of the same task with the same socket's address.
#[inline(always)]
unsafe fn is_marked_before<const PROGRAM: u32>(mark: *mut Mark, event: Event) -> bool {
    // SAFETY: the caller's pointer is good; volatile, because others write there too.
    let (arguments, sock, state_and_program) = unsafe {
        (
            (&raw const (*mark).arguments).read_volatile(),
            (&raw const (*mark).sock).read_volatile(),
            (&raw const (*mark).state_and_program).read_volatile(),
        )
    };
    arguments == event.arguments as u64
        && sock == event.sock as u64
        && state_and_program.wrapping_sub(Mark::state_and(event, 0)) < u64::from(PROGRAM)
}

/// Stacks lie 16 KiB or more apart, so the bits above tell them from each other; Fibonacci hashing (Knuth, The Art of Computer
/// Programming, 6.4) spreads them. The verifier lets no pointer be shifted, but the distance of two is a number.
#[inline(always)]
fn mark_of(marks: *mut Marks, event: Event) -> *mut Mark {
    const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
    let stack = distance(event.arguments, marks.cast()) >> 14;
    let index = (stack.wrapping_mul(GOLDEN_RATIO) >> (u64::BITS - MARK_BITS)) as usize % MARKS;
    // SAFETY: the index is inside the array.
    unsafe { marks.cast::<Mark>().add(index) }
}

#[cfg(target_arch = "bpf")]
#[inline(always)]
fn distance(to: *mut c_void, from: *mut c_void) -> u64 {
    let mut distance = to as u64;
    // Written out, because the compiler would subtract half words.
    // SAFETY: a subtraction.
    unsafe { core::arch::asm!("{0} -= {1}", inout(reg) distance, in(reg) from, options(pure, nomem, nostack)) };
    distance
}

#[cfg(not(target_arch = "bpf"))]
fn distance(to: *mut c_void, from: *mut c_void) -> u64 {
    (to as u64).wrapping_sub(from as u64)
}

/// A hook's programs, which differ only in their number: `#[attribute] body(Context): 1 name, 2 name, ...`
macro_rules! programs {
    ($(#[$attribute:meta])* $body:ident($context:ty): $($number:literal $name:ident),+) => {
        $crate::overlap::programs!(@each [$(#[$attribute])*] $body $context, $($number $name),+);
    };
    (@each $attributes:tt $body:ident $context:ty, $($number:literal $name:ident),+) => {
        $($crate::overlap::programs!(@one $attributes $body $context, $number $name);)+
    };
    (@one [$(#[$attribute:meta])*] $body:ident $context:ty, $number:literal $name:ident) => {
        $(#[$attribute])*
        #[inline(always)]
        pub fn $name(ctx: $context) -> i32 {
            let _ = $body::<$number>(&ctx);
            0
        }
    };
}
pub(crate) use programs;
