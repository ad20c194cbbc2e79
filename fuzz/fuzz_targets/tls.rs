//! The parsers of hellos and alerts: whatever passed, they neither panic nor read beyond it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    tracer_ebpf::tls::digest(data);
});
