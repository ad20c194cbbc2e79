//! Probes in user space, on functions of libraries and on their return instructions: what all of them need. None is a return probe of
//! the kernel's kind: those replace return addresses on the application's stack, which Go and `longjmp` do not survive.

use aya_ebpf::{EbpfContext as _, helpers::bpf_get_attach_cookie, programs::ProbeContext};
use tracer_ebpf::{MISSING, ssl::FRAME_MASK};

use crate::{
    kernel::registers::{self, Registers},
    maps::{NO_PROGRAMS, config, offset},
};

/// Declares programs for probes in user space, as functions of the registers. Each is on a stack of its task, see [`keep_stack_apart`].
macro_rules! programs {
    ($($(#[$attribute:meta])* fn $name:ident($ctx:ident) $body:block)*) => {$(
        $(#[$attribute])*
        #[aya_ebpf::macros::uprobe]
        pub fn $name(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            #[inline(always)]
            fn body($ctx: &aya_ebpf::programs::ProbeContext) -> $crate::probes::Outcome $body

            $crate::probes::user::keep_stack_apart(&ctx);
            let _ = body(&ctx);
            0
        }
    )*};
}
pub(super) use programs;

/// What user space said of the place that the probe is at, if the kernel tells: the library's number, and in the lower bits how far
/// the function has moved the stack pointer by then. Where the kernel does not tell, the probe is on the first instruction.
#[inline(always)]
pub fn place(ctx: &ProbeContext) -> u64 {
    if offset!(get_attach_cookie) == MISSING {
        return 0;
    }
    // SAFETY: the context that the kernel handed in.
    unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }
}

/// The top of the stack as the function was called whose entry is probed at this place: there lies where the call returns to.
#[inline(always)]
pub fn called_at(ctx: &ProbeContext, place: u64) -> u64 {
    stack(ctx).wrapping_add(place & FRAME_MASK)
}

/// Keeps the kernel from giving the program one stack per processor. From 6.13 on it does so for programs of this type, though nothing
/// keeps two tasks that preempt each other from being in one such program at once, if it is on a function in user space: on 7.2 one
/// thread's head was told of another's connection. A program with a tail call gets the task's own stack. It is never made: no
/// function is at that address.
#[inline(always)]
pub fn keep_stack_apart(ctx: &ProbeContext) {
    if config!(preemptible) != 0 && registers::instruction_pointer(registers(ctx)) == 1 {
        // SAFETY: the map is empty, so the call would return.
        unsafe { NO_PROGRAMS.tail_call(ctx, 0) };
    }
}

/// The thread's registers in user space.
#[inline(always)]
pub fn registers(ctx: &ProbeContext) -> &Registers {
    // SAFETY: the kernel hands them in.
    unsafe { &*ctx.regs }
}

/// Its stack pointer.
#[inline(always)]
pub fn stack(ctx: &ProbeContext) -> u64 {
    registers::stack_pointer(registers(ctx))
}

/// The result of the function that returns.
#[inline(always)]
pub fn result(ctx: &ProbeContext) -> u64 {
    registers::result(registers(ctx))
}
