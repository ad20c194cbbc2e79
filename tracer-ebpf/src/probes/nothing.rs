//! A program that does nothing: whether it can be attached tells whether the kernel has trampolines.

use aya_ebpf::{macros::fentry, programs::FEntryContext};

#[fentry]
pub fn nothing(_: FEntryContext) -> i32 {
    0
}
