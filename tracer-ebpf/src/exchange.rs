//! A connection's exchanges, told by the direction of its bytes alone: no protocol is parsed.
//!
//! The side that asks is the client, the side that answers the server. An exchange begins with the first byte that the
//! asking side sends after it was answered; a further byte of the asking side before an answer belongs to the same
//! exchange. Where the answering side speaks first (SSH, SMTP, MySQL), its greeting is an exchange with an empty ask, counted
//! from when the connection was ready.
//!
//! The state is kept in the kernel, one for each socket, and it is pure: the hooks hand in what passed and when.

/// Bits of [`Exchanges::flags`]. All but [`DIRECTION`](flag::ANSWERING) are of the present exchange.
pub mod flag {
    /// The last byte was of the answering side.
    pub const ANSWERING: u32 = 1 << 0;
    /// The asking side began when the peer had closed already: it wrote to a dead connection.
    pub const STALE: u32 = 1 << 1;
    /// The answering side spoke first.
    pub const GREETING: u32 = 1 << 2;
    /// A TLS alert may have been the last that passed, held back until it is known whether data follows: see
    /// [`Exchanges::held_at`].
    pub const HELD: u32 = 1 << 3;
    /// The held bytes were of the asking side.
    pub const HELD_ASK: u32 = 1 << 4;
    /// [`Exchanges::answered_at`] may be that of session tickets, which cannot be told from data.
    pub const MAYBE_TICKETS: u32 = 1 << 5;
}

shared! {
    /// The present exchange, and what came before it.
    pub struct Exchanges {
        /// When the connection was ready for application data: established, accepted, or its TLS handshake done; 0 if that
        /// was before the trace.
        pub ready_at: u64,
        /// First byte of the present ask; 0 before the first exchange. Of a greeting: `ready_at`.
        pub asked_at: u64,
        /// First byte of the present answer; 0 before it.
        pub answered_at: u64,
        /// Last application data either way, TLS alerts left out; 0 before the first.
        pub last_at: u64,
        /// Last application data before the present exchange; 0 if there was none.
        pub previous_at: u64,
        /// Longest time without application data between two exchanges so far.
        pub max_idle: u64,
        /// When bytes passed that may be a TLS alert ([`flag::HELD`]).
        pub held_at: u64,
        /// Payload bytes handed to TCP, TLS records as such.
        pub sent: u64,
        /// Payload bytes taken from TCP.
        pub received: u64,
        /// `sent` as the present exchange began.
        pub sent_before: u64,
        /// `received` as the present exchange began.
        pub received_before: u64,
        /// TCP's number of the next byte to be sent, as last seen.
        pub write_seq: u32,
        /// TCP's number of the next byte to be taken, as last seen.
        pub copied_seq: u32,
        /// Exchanges begun.
        pub count: u32,
        /// [`flag`] bits.
        pub flags: u32,
    }
}

const _: () = assert!(size_of::<Exchanges>() == 104 && align_of::<Exchanges>() == 8);
