//! All parsers in one call, for fuzzing.

use core::fmt::{self, Write};

use crate::tls::{
    alert::Alert,
    hello::{ClientHello, ServerHello, resumed},
    names::{AlertDescription, CipherSuite, Version},
};

/// Runs every parser and every name over `bytes`, as a client's copy, as a server's copy, and cut into one of each at the
/// place that the first two bytes say. Returns how many bytes of text came of it. This is the entry for fuzzing.
pub fn digest(bytes: &[u8]) -> usize {
    // Writing to it cannot fail.
    let mut text = Length(0);
    let cut = bytes.first_chunk().map_or(0, |head| usize::from(u16::from_be_bytes(*head)) % bytes.len());
    let (front, back) = bytes.split_at(cut);
    for (client, server) in [(bytes, bytes), (front, back)] {
        let (client, server) = (ClientHello::parse(client), ServerHello::parse(server));
        if let (Ok(client), Ok(server)) = (&client, &server) {
            let names = (server.version.map(Version), server.cipher_suite.map(CipherSuite));
            let _ = write!(text, "{names:?} {:?}", resumed(client, server));
        }
        let _ = write!(text, "{client:?} {server:?}");
    }
    if let Some(alert) = bytes.first_chunk().and_then(Alert::parse) {
        let _ = write!(text, "{alert:?} {}", AlertDescription(alert.description));
    }
    text.0
}

/// Text that is counted and forgotten.
struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}
