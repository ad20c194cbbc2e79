//! Sessions of TLS libraries: which call a thread is in, and which connection a session belongs to.
//!
//! A session is joined to a connection once, by the best evidence there is, and on the way out: either the socket sends the very
//! bytes that the session has just encrypted, or it sends inside a call of the session that was given its descriptor. Nothing is
//! guessed; a session to which two connections answer is told of neither.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_get_current_pid_tgid};
use tracer_ebpf::{
    Loss, kind,
    ssl::{JoinedRecord, evidence},
    tls::record::{HEADER_LEN, Header},
};

use crate::{
    identity::{current_ids, current_name},
    kept::Kept,
    kernel::{
        access::{Access, Pointer, Probe},
        sock::Sock,
    },
    maps::{CIPHERTEXTS, LIBRARY_CALLS, SESSIONS, config},
    message::Source,
    output::{count, now, send_joined},
    socket::number_of,
};

/// Bytes of a record by which it is known again: its header, and as many of its body as no two records have in common. A
/// ClientHello and a ServerHello have 10 bytes of random numbers among them, what is encrypted is as good as random.
pub const MARK_LEN: usize = HEADER_LEN + 16;

/// How many sends of a connection are looked at for its session.
const TRIES: u8 = 64;
/// In place of the number of tries: it is joined.
const JOINED: u8 = u8::MAX;

/// In place of a connection's number: two answer to the session.
const AMBIGUOUS: u64 = u64::MAX;

/// A session object of a process.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SessionKey {
    /// Its address.
    pub ssl: u64,
    /// The process.
    pub tgid: u32,
    /// Explicit padding.
    pub reserved: u32,
}

/// What is known of a session.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Session {
    /// Tells it from others at the same address, before and after it: when it was made, or began anew.
    pub number: u64,
    /// The connection's number; 0 if it is not known, or [`AMBIGUOUS`].
    id: u64,
    /// `struct sock *` behind the descriptor that it was given; 0 if it was given none.
    sock: u64,
    /// Which way data passed last.
    pub direction: Direction,
    /// Whether what passes is HTTP.
    pub http: Http,
}

/// Which way data passed last.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// None has passed.
    None = 0,
    Out = 1,
    In = 2,
}

/// Whether what passes is HTTP, by how the first message began.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Http {
    Unknown = 0,
    Yes = 1,
    No = 2,
}

/// What a thread does with a session.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It reads.
    Read = 0,
    /// It hands over the socket's descriptor.
    SetDescriptor = 1,
    /// Anything else by which records may be sent.
    Other = 2,
}

/// The last call of a thread into a TLS library.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LibraryCall {
    /// The session.
    pub ssl: u64,
    /// Where a read puts what it reads.
    pub buffer: u64,
    /// Where it says how much that was, if not in its result.
    pub taken_at: u64,
    /// The top of the stack as the function was called.
    pub stack: u64,
    /// What lay there: where the call returns to. Of a session that is not joined.
    pub returns_to: u64,
    /// The library's number, if the kernel tells it, and the session is not joined.
    pub library: u64,
    /// What it does.
    pub what: What,
    /// One of [`family`](tracer_ebpf::ssl::family).
    pub family: u16,
    /// Whether the session's connection was known as the call began.
    pub is_joined: bool,
    /// Explicit padding.
    pub reserved: u8,
}

/// The first bytes of a record that a session has made, as they are known again on a socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Mark {
    bytes: [u64; 2],
    tgid: u32,
    /// Explicit padding.
    reserved: u32,
}

impl Mark {
    /// That of a record which begins so. `None` if it is none.
    #[inline(always)]
    fn of(record: &[u8; MARK_LEN], tgid: u32) -> Option<Self> {
        let (head, body) = record.split_first_chunk::<HEADER_LEN>()?;
        Header::parse(head)?;
        let (first, rest) = body.split_first_chunk()?;
        let bytes = [u64::from_ne_bytes(*first), u64::from_ne_bytes(*rest.first_chunk()?)];
        Some(Self { bytes, tgid, reserved: 0 })
    }
}

impl Session {
    /// One of which nothing is known yet.
    #[inline(always)]
    fn new() -> Self {
        Self { number: now(), id: 0, sock: 0, direction: Direction::None, http: Http::Unknown }
    }

    /// The connection's number, if it is known.
    #[inline(always)]
    pub fn id(&self) -> Option<u64> {
        if self.id == 0 || self.id == AMBIGUOUS { None } else { Some(self.id) }
    }

    /// Whether two connections answer to it.
    #[inline(always)]
    pub fn is_ambiguous(&self) -> bool {
        self.id == AMBIGUOUS
    }

    #[inline(always)]
    fn of(key: SessionKey) -> Option<&'static mut Self> {
        let session = SESSIONS.get_ptr_mut(key)?;
        // SAFETY: a map value that lives as long as the program runs. Libraries forbid the use of a session by two threads at once.
        Some(unsafe { &mut *session })
    }

    /// The current process's session at this address, if it is known.
    #[inline(always)]
    pub fn find(ssl: u64) -> Option<&'static mut Self> {
        Self::of(SessionKey { ssl, tgid: current_ids().0, reserved: 0 })
    }

    /// The same, made if it is new.
    #[inline(always)]
    pub fn find_or_make(ssl: u64) -> Option<&'static mut Self> {
        let key = SessionKey { ssl, tgid: current_ids().0, reserved: 0 };
        if let Some(session) = Self::of(key) {
            return Some(session);
        }
        // The map throws out the one unused for longest rather than refuse.
        let _ = SESSIONS.insert(key, Self::new(), u64::from(BPF_ANY));
        Self::of(key)
    }

    /// Forgets it: the library has freed it.
    #[inline(always)]
    pub fn forget(ssl: u64) {
        let _ = SESSIONS.remove(SessionKey { ssl, tgid: current_ids().0, reserved: 0 });
    }

    /// Whether it is still on this socket. One that has been joined goes by the connection's number: sockets' addresses are used
    /// again.
    #[inline(always)]
    pub fn is_of(&self, sock: Option<Sock<Probe>>) -> bool {
        let Some(sock) = sock else { return self.sock == 0 };
        self.sock == sock.pointer as u64 && self.id().is_none_or(|id| number_of(sock) == Some(id))
    }

    /// Begins anew, for another connection: on this socket, if that is known.
    #[inline(always)]
    pub fn renew(&mut self, sock: Option<Pointer>) {
        *self = Self { sock: sock.map_or(0, |sock| sock as u64), ..Self::new() };
    }
}

/// The last call of the current thread.
#[inline(always)]
pub fn last_call() -> Option<&'static mut LibraryCall> {
    let call = LIBRARY_CALLS.get_ptr_mut(bpf_get_current_pid_tgid())?;
    // SAFETY: a map value that lives as long as the program runs; only this thread uses it.
    Some(unsafe { &mut *call })
}

/// Notes that the current thread has called into a library.
#[inline(always)]
pub fn note_call(call: LibraryCall) {
    match last_call() {
        Some(last) => *last = call,
        None => {
            let _ = LIBRARY_CALLS.insert(bpf_get_current_pid_tgid(), call, u64::from(BPF_ANY));
        }
    }
}

/// Notes that the session that the current thread is in hands over a record, of which these are the first bytes.
#[inline(always)]
pub fn note_record(ssl: u64, record: &[u8; MARK_LEN]) -> Option<()> {
    let mark = Mark::of(record, current_ids().0)?;
    CIPHERTEXTS.insert(mark, ssl, u64::from(BPF_ANY)).ok()
}

/// Looks for the session of a connection that is about to send, unless it is known or was looked for often enough.
#[inline(always)]
pub fn join<A: Access>(kept: &mut Kept, sock: Sock<A>, source: Source<A>) -> Option<()> {
    if config!(ssl) == 0 || kept.session_tries >= TRIES {
        return None;
    }
    kept.session_tries += 1;
    let record = source.head::<MARK_LEN>()?;
    let tgid = current_ids().0;
    let mark = Mark::of(&record, tgid)?;
    // SAFETY: a u64 that only whole writes change.
    let by_ciphertext = unsafe { CIPHERTEXTS.get(mark) }.copied();
    let (ssl, by) = match by_ciphertext {
        Some(ssl) => (ssl, evidence::CIPHERTEXT),
        None => (last_call()?.ssl, evidence::DESCRIPTOR),
    };
    let session = Session::of(SessionKey { ssl, tgid, reserved: 0 })?;
    if by == evidence::DESCRIPTOR && session.sock != sock.pointer as u64 {
        return None;
    }
    let id = kept.detailed.socket.id;
    kept.session_tries = JOINED;
    if session.is_ambiguous() {
        return None;
    }
    let evidence = if session.id == 0 || session.id == id {
        session.id = id;
        by
    } else {
        session.id = AMBIGUOUS;
        count(Loss::AmbiguousSession);
        evidence::NONE
    };
    // The bytes may be sent by another thread than the one that was in the library.
    let (family, library) = match last_call() {
        Some(call) if call.ssl == ssl => (call.family, call.library),
        _ => (0, 0),
    };
    send_joined(&JoinedRecord {
        kind: kind::JOINED,
        evidence,
        at: now(),
        id,
        session: session.number,
        tgid,
        family: u32::from(family),
        process_started_at: current_name::<A>().0,
        library,
    });
    Some(())
}
