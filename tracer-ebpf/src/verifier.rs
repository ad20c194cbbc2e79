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

/// A number below `LIMIT`, a power of two, for an index that is that small already. The compiler drops a mask that it can prove
/// to change nothing, and checks a bound on one register to use another: "R3 unbounded memory access, make sure to bounds check
/// any such access".
#[inline(always)]
pub fn below<const LIMIT: i32>(number: u32) -> usize {
    const { assert!(LIMIT > 0 && LIMIT & (LIMIT - 1) == 0) };
    let mut number = u64::from(number);
    // SAFETY: one instruction on a register.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("{0} &= {mask}", inout(reg) number, mask = const LIMIT - 1, options(pure, nomem, nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        number &= (LIMIT - 1) as u64;
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

/// Reads `N` bytes at once, wherever they begin. The compiler takes BPF for a machine that cannot, reads single bytes and puts
/// them together, and the verifier has to follow each.
///
/// # Safety
/// There are 16 bytes.
#[inline(always)]
pub unsafe fn load<const N: usize>(from: *const u8) -> [u8; N] {
    const { assert!(N <= 16) };
    #[cfg(target_arch = "bpf")]
    let words = {
        let (mut low, mut high) = (0_u64, 0_u64);
        // SAFETY: loads of what the caller vouches for. Volatile, as hooks that interrupt may write.
        unsafe {
            core::arch::asm!("{0} = *(u64 *)({1} + 0)", out(reg) low, in(reg) from, options(nostack, readonly));
            if N > 8 {
                core::arch::asm!("{0} = *(u64 *)({1} + 8)", out(reg) high, in(reg) from, options(nostack, readonly));
            }
        }
        [low, high]
    };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller vouches for it.
    let words = unsafe { from.cast::<[u64; 2]>().read_unaligned() };
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = (words[index / 8] >> (index % 8 * 8)) as u8;
    }
    bytes
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
