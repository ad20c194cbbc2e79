//! A connection's TLS handshake as its record headers show it, the same for every library.

/// Values of [`Handshake::phase`].
pub mod phase {
    /// No ClientHello has passed; the first bytes of what passes are looked at.
    pub const LOOKING: u8 = 0;
    /// A ClientHello has passed, no ServerHello yet.
    pub const CLIENT_HELLO: u8 = 1;
    /// A ServerHello has passed.
    pub const SERVER_HELLO: u8 = 2;
    /// The handshake is done: application data may pass.
    pub const DONE: u8 = 3;
    /// It failed by an alert in the clear.
    pub const FAILED: u8 = 4;
    /// Looked at often enough: not TLS, as far as can be seen.
    pub const PLAIN: u8 = 5;
}

/// Bits of [`Handshake::flags`].
pub mod flag {
    /// The server asked for another ClientHello (HelloRetryRequest).
    pub const RETRIED: u8 = 1 << 0;
    /// The client has changed its cipher.
    pub const CLIENT_CHANGED: u8 = 1 << 1;
    /// The server has changed its cipher.
    pub const SERVER_CHANGED: u8 = 1 << 2;
    /// The alert came from the client.
    pub const ALERT_FROM_CLIENT: u8 = 1 << 3;
    /// Other threads worked on it than the one that last sent or received: `cpu` and `runqueue` are lower bounds.
    pub const THREADS_CHANGED: u8 = 1 << 4;
    /// The kernel tells no processor times: `cpu` and `runqueue` are unknown.
    pub const CPU_UNKNOWN: u8 = 1 << 5;
    /// Application data passed before the handshake: TLS began in mid-stream (`STARTTLS` and the like).
    pub const MID_STREAM: u8 = 1 << 6;
    /// Record headers could not be followed: when the handshake ended is not known.
    pub const LOST_TRACK: u8 = 1 << 7;
}

shared! {
    /// What is known of a TLS handshake.
    pub struct Handshake {
        /// When the first byte of the (first) ClientHello passed; 0 if none has.
        pub started_at: u64,
        /// When it succeeded or failed; 0 before.
        pub ended_at: u64,
        /// Nanoseconds on a processor between the sends and receives of one thread.
        pub cpu: u64,
        /// Nanoseconds that the thread could have run and did not: queued, or throttled by its cgroup.
        pub runqueue: u64,
        /// One of [`phase`].
        pub phase: u8,
        /// [`flag`] bits.
        pub flags: u8,
        /// Level of the alert that ended it (RFC 8446, 6), 0 if none did.
        pub alert_level: u8,
        /// Its description.
        pub alert_description: u8,
        /// Explicit padding.
        pub reserved: u32,
    }
}

const _: () = assert!(size_of::<Handshake>() == 40 && align_of::<Handshake>() == 8);
