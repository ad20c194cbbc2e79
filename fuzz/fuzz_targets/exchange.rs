//! The count of exchanges: whatever passes, no count or time runs backwards, and each exchange is told once.
#![no_main]

use libfuzzer_sys::fuzz_target;

use model::{Client, Op};

#[path = "../../tracer-ebpf/tests/exchange/model.rs"]
mod model;

fuzz_target!(|data: &[u8]| {
    let mut at = 1_000;
    let mut client = Client::ready(at);
    for item in data.chunks_exact(4) {
        let [what, later, high, low] = *item else { continue };
        at += u64::from(later);
        let bytes = 1 + u32::from(u16::from_be_bytes([high, low]));
        client.apply(Op::ALL[usize::from(what) % Op::ALL.len()], at, bytes);
    }
});
