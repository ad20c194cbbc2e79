//! A thread's registers in user space, and what the calling conventions keep in them: all that differs from processor to processor.

#[cfg(bpf_target_arch = "aarch64")]
pub use aarch64::*;
#[cfg(not(bpf_target_arch = "aarch64"))]
pub use x86_64::*;

#[cfg(not(bpf_target_arch = "aarch64"))]
mod x86_64 {
    use core::mem::offset_of;

    pub use aya_ebpf::bindings::pt_regs as Registers;

    /// Where the stack pointer is among them.
    pub const STACK_POINTER: u32 = offset_of!(Registers, rsp) as u32;
    /// How large a thread's stack in the kernel is, at whose end its registers in user space are kept; `None` if that depends on how the
    /// kernel was built.
    pub const THREAD_SIZE: Option<u64> = Some(16 * 1024);

    #[inline(always)]
    pub fn instruction_pointer(registers: &Registers) -> u64 {
        registers.rip
    }

    #[inline(always)]
    pub fn stack_pointer(registers: &Registers) -> u64 {
        registers.rsp
    }

    /// What a C function returns.
    #[inline(always)]
    pub fn result(registers: &Registers) -> u64 {
        registers.rax
    }

    /// The first three words that a Go function takes, from 1.17 on.
    #[inline(always)]
    pub fn go_arguments(registers: &Registers) -> (u64, u64, u64) {
        (registers.rax, registers.rbx, registers.rcx)
    }

    /// Go's `g`, the current goroutine.
    #[inline(always)]
    pub fn goroutine(registers: &Registers) -> u64 {
        registers.r14
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod aarch64 {
    use core::mem::offset_of;

    pub use aya_ebpf::bindings::user_pt_regs as Registers;

    /// Where the stack pointer is among them.
    pub const STACK_POINTER: u32 = offset_of!(Registers, sp) as u32;
    /// How large a thread's stack in the kernel is, at whose end its registers in user space are kept; `None` if that depends on how the
    /// kernel was built.
    pub const THREAD_SIZE: Option<u64> = None;

    #[inline(always)]
    pub fn instruction_pointer(registers: &Registers) -> u64 {
        registers.pc
    }

    #[inline(always)]
    pub fn stack_pointer(registers: &Registers) -> u64 {
        registers.sp
    }

    /// What a C function returns.
    #[inline(always)]
    pub fn result(registers: &Registers) -> u64 {
        registers.regs[0]
    }

    /// The first three words that a Go function takes, from 1.18 on.
    #[inline(always)]
    pub fn go_arguments(registers: &Registers) -> (u64, u64, u64) {
        (registers.regs[0], registers.regs[1], registers.regs[2])
    }

    /// Go's `g`, the current goroutine.
    #[inline(always)]
    pub fn goroutine(registers: &Registers) -> u64 {
        registers.regs[28]
    }
}
