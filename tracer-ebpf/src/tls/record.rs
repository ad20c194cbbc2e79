//! The header of a TLS record (RFC 8446 5.1).
//!
//! Fit for the kernel side: no loop, no slice, no panic.

/// Bytes of a record header.
pub const HEADER_LEN: usize = 5;

/// Most bytes in a record: 2^14 of plaintext and 256 of protection (RFC 8446 5.2). TLS 1.2 would allow 2^14 + 2048 for
/// compression, which nobody uses; its ciphers add less than 256.
pub const MAX_LENGTH: u16 = (1 << 14) + 256;

/// What a record holds.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// The sender's next records are protected (TLS 1.2), or a dummy for middleboxes (TLS 1.3).
    ChangeCipherSpec = 20,
    /// An alert; protected ones of TLS 1.3 look like application data.
    Alert = 21,
    /// A handshake message, or part of one, or several.
    Handshake = 22,
    /// Application data, and in TLS 1.3 everything that is protected.
    ApplicationData = 23,
    /// RFC 6520.
    Heartbeat = 24,
}

impl ContentType {
    /// The type with this number, if it is one.
    #[inline(always)]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            20 => Some(Self::ChangeCipherSpec),
            21 => Some(Self::Alert),
            22 => Some(Self::Handshake),
            23 => Some(Self::ApplicationData),
            24 => Some(Self::Heartbeat),
            _ => None,
        }
    }
}

/// A plausible record header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the record holds.
    pub content_type: ContentType,
    /// Version as written, 0x0300 to 0x0304. It tells little: TLS 1.3 writes 0x0303, and 0x0301 in a first ClientHello.
    pub version: u16,
    /// Bytes that follow the header, 1 to [`MAX_LENGTH`].
    pub length: u16,
}

impl Header {
    /// Reads a header; `None` if these bytes cannot be one.
    ///
    /// An SSLv2-style hello (RFC 5246 E.2) has no record header and is not recognised. Empty records are not either, though
    /// old TLS allows them for application data: nothing is in them, and without them fewer other bytes pass for a header.
    #[inline(always)]
    pub const fn parse(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let [content_type, major, minor, high, low] = *bytes;
        let length = u16::from_be_bytes([high, low]);
        if major != 3 || minor > 4 || length == 0 || length > MAX_LENGTH {
            return None;
        }
        match ContentType::from_byte(content_type) {
            Some(content_type) => Some(Self { content_type, version: u16::from_be_bytes([major, minor]), length }),
            None => None,
        }
    }
}
