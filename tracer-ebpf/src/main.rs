//! The BPF object: module list and licence, no logic.
#![no_std]
#![no_main]
// Inline assembly for BPF is not stable; see `socket::full_barrier`.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod calls;
mod follow;
mod heads;
mod identity;
mod kept;
mod kernel;
mod maps;
mod message;
mod output;
mod overlap;
mod probes;
mod selection;
mod session;
mod socket;
mod user_stack;
mod verifier;

/// GPL-compatible, as helpers such as `bpf_probe_read_kernel` demand.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The verifier accepts no program that can reach this; it is here because `no_std` asks for it.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
