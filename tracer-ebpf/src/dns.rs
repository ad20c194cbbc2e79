//! DNS messages as they passed: what user space parses names and answers from.

use crate::{Address, COMM_LEN};

/// Most bytes of a message that are kept: what a resolver asks servers to send at most over UDP, so that it fits one packet
/// (the DNS flag day's 1,232).
pub const MESSAGE_LEN: usize = 1232;

/// The port of DNS.
pub const PORT: u16 = 53;

/// Bits of [`DnsRecord::flags`].
pub mod flag {
    /// The process sent it; otherwise it received it.
    pub const SENT: u32 = 1 << 0;
    /// A piece of a TCP stream, in which a length of two bytes stands before each message; otherwise a datagram.
    pub const TCP: u32 = 1 << 1;
}

shared! {
    /// A DNS message, or a piece of one, that a traced process sent to port 53 or received from there.
    pub struct DnsRecord {
        /// [`kind::DNS`](crate::kind::DNS).
        pub kind: u32,
        /// [`flag`] bits.
        pub flags: u32,
        /// When it passed.
        pub at: u64,
        /// `start_boottime` of the process.
        pub process_started_at: u64,
        /// Process.
        pub tgid: u32,
        /// Thread.
        pub tid: u32,
        /// Inode number of the network namespace.
        pub netns: u32,
        /// Valid bytes of `bytes`; those behind them mean nothing.
        pub length: u32,
        /// Bytes of the message that did not fit.
        pub left_out: u32,
        /// Local port.
        pub local_port: u16,
        /// The server's port.
        pub server_port: u16,
        /// The server.
        pub server: Address,
        /// Name of the process, zero padded; any bytes.
        pub comm: [u8; COMM_LEN],
        /// The message.
        pub bytes: [u8; MESSAGE_LEN],
    }
}

const _: () = assert!(size_of::<DnsRecord>() == 80 + MESSAGE_LEN && align_of::<DnsRecord>() == 8);
