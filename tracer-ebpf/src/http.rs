//! HTTP heads as they passed: what user space reads the method, the status and a few headers from.

/// Most bytes of a message that are kept. The lines that are of interest come early in most heads, and those that are cut
/// off are left out.
pub const HEAD_LEN: usize = 1024;

/// [`HeadRecord::index`] where it is not known which exchange the head belongs to.
pub const INDEX_UNKNOWN: u32 = u32::MAX;

/// Bits of [`HeadRecord::flags`].
pub mod flag {
    /// The owner sent it; otherwise it received it.
    pub const SENT: u32 = 1 << 0;
}

shared! {
    /// The first bytes of a message that begins like an HTTP head. On the ring buffer of the exchanges, cut to what it holds.
    pub struct HeadRecord {
        /// [`kind::HEAD`](crate::kind::HEAD).
        pub kind: u32,
        /// Valid bytes of `bytes`; the event ends behind them.
        pub length: u32,
        /// When it passed.
        pub at: u64,
        /// The connection's number; 0 if it is not known.
        pub id: u64,
        /// Number of the TLS library's session; 0 if it was seen on TCP.
        pub session: u64,
        /// Process.
        pub tgid: u32,
        /// [`flag`] bits.
        pub flags: u32,
        /// Which of the connection's exchanges it begins or answers, from 0; [`INDEX_UNKNOWN`] if that is not known.
        pub index: u32,
        /// Explicit padding.
        pub reserved: u32,
        /// The message's first bytes.
        pub bytes: [u8; HEAD_LEN],
    }
}

const _: () = assert!(size_of::<HeadRecord>() == 48 + HEAD_LEN && align_of::<HeadRecord>() == 8);

/// How a message begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With a method of HTTP/1, other than CONNECT.
    Request,
    /// With CONNECT: if the answer says yes, what follows is another protocol's.
    Connect,
    /// With the version of a status line of HTTP/1.
    Status,
    /// With the preface of HTTP/2.
    Http2,
}

/// What a message may be by its first 8 bytes; `None` if it is no head. Few instructions, as each connection's first message
/// is asked: words are compared, and those of the usual methods first.
#[inline(always)]
pub const fn beginning(first: [u8; 8]) -> Option<Beginning> {
    const GET: u64 = word(b"GET ");
    const PUT: u64 = word(b"PUT ");
    const POST: u64 = word(b"POST ");
    const HEAD: u64 = word(b"HEAD ");
    const PATCH: u64 = word(b"PATCH ");
    const TRACE: u64 = word(b"TRACE ");
    const DELETE: u64 = word(b"DELETE ");
    const STATUS: u64 = word(b"HTTP/1.");
    const OPTIONS: u64 = word(b"OPTIONS ");
    const CONNECT: u64 = word(b"CONNECT ");
    const PREFACE: u64 = word(b"PRI * HT");
    let all = u64::from_le_bytes(first);
    match all & low(4) {
        GET | PUT => return Some(Beginning::Request),
        _ => {}
    }
    match all & low(5) {
        POST | HEAD => return Some(Beginning::Request),
        _ => {}
    }
    match all & low(7) {
        STATUS => return Some(Beginning::Status),
        DELETE => return Some(Beginning::Request),
        _ => {}
    }
    match all & low(6) {
        PATCH | TRACE => return Some(Beginning::Request),
        _ => {}
    }
    match all {
        OPTIONS => Some(Beginning::Request),
        CONNECT => Some(Beginning::Connect),
        PREFACE => Some(Beginning::Http2),
        _ => None,
    }
}

/// Whether a message may be a head by its first 8 bytes: a request line with one of the methods of RFC 9110 or PATCH, a status
/// line of HTTP/1, or the preface of HTTP/2.
#[inline(always)]
pub const fn may_be_head(first: [u8; 8]) -> bool {
    beginning(first).is_some()
}

/// The first bytes of a message that begins so, as one word.
const fn word(text: &[u8]) -> u64 {
    let mut word = 0;
    let mut index = 0;
    while index < text.len() {
        word |= (text[index] as u64) << (8 * index);
        index += 1;
    }
    word
}

/// The bits of a word's first so many bytes.
const fn low(bytes: u32) -> u64 {
    u64::MAX >> (64 - 8 * bytes)
}
