//! TLS libraries in processes: what the probes on them tell user space.

/// Libraries whose sessions are told apart by the same rules.
pub mod family {
    /// OpenSSL and what has its interface (BoringSSL, LibreSSL).
    pub const OPENSSL: u32 = 1;
    /// GnuTLS.
    pub const GNUTLS: u32 = 2;
    /// Go's `crypto/tls`.
    pub const GO: u32 = 3;
}

/// By what it is known which socket a session belongs to, best first.
pub mod evidence {
    /// The socket sent the bytes that the session had just encrypted.
    pub const CIPHERTEXT: u32 = 1;
    /// The session was given the socket's descriptor.
    pub const DESCRIPTOR: u32 = 2;
    /// The socket sends inside a call of the session, on the same thread, and no other socket has.
    pub const NESTING: u32 = 3;
    /// Two sockets answer to it: which one it belongs to is not known, and nothing more is told of it.
    pub const NONE: u32 = 4;
}

/// Of the number that user space gives to the place of a probe, so many low bits tell how many bytes the function has moved the stack
/// pointer by there; the others are the library's number.
pub const FRAME_BITS: u32 = 16;
/// Those bits.
pub const FRAME_MASK: u64 = (1 << FRAME_BITS) - 1;

shared! {
    /// It has become known which connection a session of a TLS library belongs to. On the ring buffer of the exchanges.
    pub struct JoinedRecord {
        /// [`kind::JOINED`](crate::kind::JOINED).
        pub kind: u32,
        /// One of [`evidence`].
        pub evidence: u32,
        /// When.
        pub at: u64,
        /// The connection's number.
        pub id: u64,
        /// Number of the library's session: no two of a process have the same.
        pub session: u64,
        /// Process.
        pub tgid: u32,
        /// One of [`family`].
        pub family: u32,
        /// Number that user space gave the library as it put the probes on it; 0 if the kernel does not tell (before 5.15).
        pub library: u64,
    }

    /// A process has mapped a file as code: at its start, or later by `dlopen`. On the ring buffer of the lifecycles.
    pub struct MappedRecord {
        /// [`kind::MAPPED`](crate::kind::MAPPED).
        pub kind: u32,
        /// Process.
        pub tgid: u32,
        /// When.
        pub at: u64,
    }

    /// A file, as the kernel tells it from others: a key of the map of files that are not to be told of again.
    #[derive(Hash)]
    pub struct FileKey {
        /// Inode number.
        pub inode: u64,
        /// Device as the kernel writes it: the major number above 20 bits of minor number.
        pub device: u32,
        /// Explicit padding.
        pub reserved: u32,
    }
}

const _: () = assert!(size_of::<JoinedRecord>() == 48 && size_of::<MappedRecord>() == 16 && size_of::<FileKey>() == 16);
