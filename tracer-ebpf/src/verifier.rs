//! What the compiler must not know, so that the verifier can.

/// Hides a number's value from the compiler: it does not unroll a loop that it bounds, and a bound checked on it is checked
/// on the register that is used. The verifier still knows all it knew.
#[inline(always)]
pub fn opaque(number: u32) -> u32 {
    let mut number = u64::from(number);
    // An instruction that does nothing: two pieces of source for one instruction are refused ("Invalid line_info").
    // SAFETY: one instruction on a register.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("{0} += 0", inout(reg) number, options(pure, nomem, nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        number = core::hint::black_box(number);
    }
    number as u32
}

/// A number below `2048`, for an index that is that small already. The compiler drops a mask that it can prove to change
/// nothing, and checks a bound on one register to use another: "R3 unbounded memory access, make sure to bounds check any
/// such access".
#[inline(always)]
pub fn below_2048(number: u32) -> usize {
    let mut number = u64::from(number);
    // SAFETY: one instruction on a register.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("{0} &= 2047", inout(reg) number, options(pure, nomem, nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        number &= 2047;
    }
    number as usize
}

/// The number, or `MOST` if that is less. The compiler compares a copy in another register than the one that is used, and the
/// verifiers of 5.10 and 6.1 then do not know its bound ("R2 min value is negative", "R2 unbounded memory access").
#[inline(always)]
pub fn at_most<const MOST: i32>(number: u64) -> u64 {
    const { assert!(MOST >= 0) };
    // SAFETY: instructions on one register.
    #[cfg(target_arch = "bpf")]
    let number = unsafe {
        let mut number = number;
        core::arch::asm!("if {0} <= {most} goto +1", "{0} = {most}", inout(reg) number, most = const MOST,
            options(pure, nomem, nostack));
        number
    };
    #[cfg(not(target_arch = "bpf"))]
    let number = number.min(MOST as u64);
    number
}

/// Hides from the compiler where a reference comes from. It otherwise keeps one copy for each way to get it, and picks one by
/// what it knows of the ways, which the verifier does not ("R1 invalid mem access 'scalar'").
#[inline(always)]
pub fn hide<T>(reference: &'static mut T) -> &'static mut T {
    let mut pointer = core::ptr::from_mut(reference);
    // SAFETY: one instruction on a register.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("{0} += 0", inout(reg) pointer, options(pure, nomem, nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        pointer = core::hint::black_box(pointer);
    }
    // SAFETY: the same reference, which is never null; the compiler would check it anew.
    unsafe {
        core::hint::assert_unchecked(!pointer.is_null());
        &mut *pointer
    }
}
