//! The reader of HTTP heads: whatever passed, it neither panics nor keeps anything but short printable names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer::stage::http::read;

fuzz_target!(|data: &[u8]| {
    let Some(head) = read(data) else { return };
    let is_printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(head.host.iter().all(|host| host.len() <= 255 && is_printable(host)));
    assert!(head.connection.len() <= 8);
    assert!(head.connection.iter().all(|token| token.len() <= 64 && is_printable(token)));
    assert!(head.status.is_none_or(|status| (100..=999).contains(&status)));
});
