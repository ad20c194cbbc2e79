//! The reader of programs and libraries: whatever a file holds, it neither panics nor takes long.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer::target::library::analyse;

use image::{GoText, Hash, Image};

#[path = "../../tracer/tests/library/image.rs"]
mod image;

const SSL: &[&str] = &["SSL_do_handshake", "SSL_read", "SSL_write"];
const GO: &[&str] = &["runtime.main", "crypto/tls.(*Conn).Write", "crypto/tls.(*Conn).Read"];

fuzz_target!(|data: &[u8]| {
    let Some((manner, data)) = data.split_first() else { return };
    let base = Image { soname: "libssl.so.3", constants: "\0OpenSSL 3.0.19 27 Jan 2026\0", ..Image::default() };
    let image = match manner % 4 {
        // As a file: this is about the headers.
        0 => return drop(analyse(&data.to_vec())),
        1 => Image { dynamic: SSL, full: SSL, ..base },
        2 => Image { dynamic: SSL, hash: Hash::SysV, go: Some((GO, GoText::InTable)), ..base },
        _ => Image { full: SSL, go: Some((GO, GoText::InModule)), ..base },
    };
    let mut bytes = image.build().0;
    for change in data.chunks_exact(6) {
        // A place, and what is written there.
        let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
        let length = 4.min(bytes.len() - place);
        bytes[place..place + length].copy_from_slice(&change[2..2 + length]);
    }
    drop(analyse(&bytes));
});
