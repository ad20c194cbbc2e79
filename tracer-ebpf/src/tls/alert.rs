//! Alerts that are sent in the clear (RFC 8446 6): those of a handshake that fails before it has keys.

use crate::tls::record::{ContentType, HEADER_LEN, Header};

/// Bytes of an alert in the clear, record header included.
pub const ALERT_LEN: usize = HEADER_LEN + 2;

/// An alert in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// [`WARNING`](Self::WARNING) or [`FATAL`](Self::FATAL).
    pub level: u8,
    /// Why; `names::AlertDescription` has the word.
    pub description: u8,
}

impl Alert {
    /// Level of an alert after which the connection goes on, or is closed in order.
    pub const WARNING: u8 = 1;
    /// Level of an alert that ends the connection.
    pub const FATAL: u8 = 2;

    /// Reads an alert record; `None` if it is something else. A protected alert is longer and is not taken for one.
    #[inline(always)]
    pub const fn parse(bytes: &[u8; ALERT_LEN]) -> Option<Self> {
        let [b0, b1, b2, b3, b4, level, description] = *bytes;
        match Header::parse(&[b0, b1, b2, b3, b4]) {
            Some(Header { content_type: ContentType::Alert, length: 2, .. })
                if level == Self::WARNING || level == Self::FATAL =>
            {
                Some(Self { level, description })
            }
            _ => None,
        }
    }
}
