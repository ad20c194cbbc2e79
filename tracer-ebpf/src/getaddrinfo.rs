//! Calls of the C library's `getaddrinfo`: what the probes on it tell user space.

use crate::{Address, COMM_LEN};

/// Most bytes of a name that are kept, its terminating zero included. DNS knows none of more than 253 letters.
pub const NAME_LEN: usize = 256;
/// Most entries of an answer whose addresses are kept. Where the caller wants sockets of any kind, each address has three entries.
pub const ADDRESSES: usize = 32;

shared! {
    /// A call of `getaddrinfo` has returned. On the ring buffer of the exchanges.
    pub struct GetAddrInfoRecord {
        /// [`kind::GETADDRINFO`](crate::kind::GETADDRINFO).
        pub kind: u32,
        /// What it returned: 0, or one of the negative `EAI_*`.
        pub result: i32,
        /// When it returned.
        pub at: u64,
        /// When it was called.
        pub began_at: u64,
        /// `start_boottime` of the process.
        pub process_started_at: u64,
        /// Process.
        pub tgid: u32,
        /// Thread.
        pub tid: u32,
        /// The family asked for: `AF_INET`, `AF_INET6`, or 0 for any.
        pub family: u32,
        /// Valid entries of `addresses`; those behind them mean nothing.
        pub count: u32,
        /// Name of the process, zero padded; any bytes.
        pub comm: [u8; COMM_LEN],
        /// The addresses of the answer's first entries, as they come; `::` for one of another family.
        pub addresses: [Address; ADDRESSES],
        /// The name that was looked up, zero terminated; what is behind that means nothing.
        pub name: [u8; NAME_LEN],
    }
}

const _: () = assert!(size_of::<GetAddrInfoRecord>() == 64 + 16 * ADDRESSES + NAME_LEN);
const _: () =
    assert!(align_of::<GetAddrInfoRecord>() == 8 && core::mem::offset_of!(GetAddrInfoRecord, addresses) == 64);
