//! What is kept of a socket in detail `exchanges`: the record that events are copies of, and behind it what only the hooks
//! need to go on.

use tracer_ebpf::{DetailedRecord, KEPT_LEN, SocketRecord, detail, tls::walk::Walk};

use crate::maps::config;

/// The value of the maps of sockets in detail `exchanges`. The record of its life comes first, so a pointer to one is a
/// pointer to the other.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Kept {
    /// What events are copies of.
    pub detailed: DetailedRecord,
    /// Where the records of TLS stand, from the server and from the client.
    pub walks: [Walk; 2],
    /// The thread at the handshake's last send or receive.
    pub sample: Sample,
    /// Lengths of alerts' bodies that are still to be received, or 0.
    pub alert_remaining: u16,
    /// How often the beginning of TLS is still looked for.
    pub looks: u8,
    /// How many records of the server may still be session tickets.
    pub tickets: u8,
    /// How many pieces of the hello messages may still be sent to user space, from the server and from the client.
    pub pieces: [u8; 2],
    /// Whether it is TLS 1.3, known when the handshake is done.
    pub is_tls13: bool,
    /// How often the session of a TLS library was looked for, see `session`.
    pub session_tries: u8,
    /// Where the search for HTTP heads stands, see `heads`; 0 if nothing is looked for.
    pub heads: u8,
    /// Explicit padding.
    pub reserved: [u8; 7],
    /// What was last looked at on its way out, where the hook has several programs.
    pub last_send: LastSend,
}

/// A call to send.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LastSend {
    /// TCP's number of its first byte.
    pub write_seq: u32,
    /// Its bytes, modulo 2^32.
    pub length: u32,
}

impl LastSend {
    /// `None` where TCP's number is not known.
    #[inline(always)]
    pub fn new(write_seq: Option<u32>, length: u64) -> Option<Self> {
        Some(Self { write_seq: write_seq?, length: length as u32 })
    }
}

const _: () = assert!(size_of::<Kept>() == KEPT_LEN);

/// A thread's own counters at one moment.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sample {
    /// Nanoseconds that it had run, on a scale whose zero does not matter.
    pub ran: u64,
    /// Nanoseconds that it had waited to run.
    pub waited: u64,
    /// The thread; 0 if there is no sample.
    pub tid: u32,
    /// Explicit padding.
    pub reserved: u32,
}

/// Whether sends and receives are hooked; a constant to the verifier.
#[inline(always)]
pub fn in_detail() -> bool {
    config!(detail) == detail::EXCHANGES
}

/// All that is kept of a socket whose record was found.
#[inline(always)]
pub fn kept(record: &mut SocketRecord) -> &mut Kept {
    // SAFETY: in detail `exchanges` every record that was found or made in a map is the first member of a `Kept` (see
    // `socket`), and nothing else is handed in. The verifier checks each access.
    unsafe { &mut *core::ptr::from_mut(record).cast() }
}
