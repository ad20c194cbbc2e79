//! Sessions of TLS libraries: which call a thread is in, and which connection a session belongs to.
//!
//! A session is joined to a connection once, by the best evidence there is, and on the way out: either the socket sends the very
//! bytes that the session has just encrypted, or it sends inside a call of the session that was given its descriptor, or inside a call
//! of one that was given none while no other socket does. Nothing is guessed; of a session to which two connections answer nothing more is told.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_get_current_pid_tgid};
use tracer_ebpf::{
    Loss, kind,
    ssl::{JoinedRecord, evidence, family},
    tls::record::{ContentType, HEADER_LEN, Header},
};

use crate::{
    identity::current_ids,
    kept::Kept,
    kernel::{
        access::{Access, Pointer, Probe},
        sock::Sock,
        task::user_stack,
    },
    maps::{CIPHERTEXTS, LIBRARY_CALLS, SESSIONS, config},
    message::Source,
    output::{count, now, send_joined},
    socket::number_of,
    user_stack::is_under_way,
};

/// Bytes of a record by which it is known again: its header, and as many of its body as no two records have in common, see
/// [`Mark::of`].
pub const MARK_LEN: usize = HEADER_LEN + 16;

/// How many sends of a connection are looked at for its session.
const TRIES: u8 = 64;
/// In place of the number of tries: it is joined.
const JOINED: u8 = u8::MAX;

/// Bits of a session's number that are its thread's.
const THREAD_BITS: u32 = 13;

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

impl SessionKey {
    /// The current process's object at this address.
    #[inline(always)]
    pub fn of_current(ssl: u64) -> Self {
        Self { ssl, tgid: current_ids().0, reserved: 0 }
    }
}

/// What is known of a session.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Session {
    /// Tells it from others of its process, also from those at the same address before and after it.
    pub number: u64,
    /// The connection's number; 0 if it is not known, or [`AMBIGUOUS`].
    id: u64,
    /// `struct sock *` behind the descriptor that it was given; 0 if it was given none.
    sock: u64,
    /// The number of the connection that this was traced as then; 0 if it was not yet. Addresses of sockets are used again.
    of_sock: u64,
    /// The library's number, if the kernel tells it.
    pub library: u64,
    /// Which way data passed last.
    pub direction: Direction,
    /// Whether what passes is HTTP.
    pub http: Http,
    /// One of [`family`](tracer_ebpf::ssl::family); 0 until a call has told.
    pub family: u32,
    /// Explicit padding.
    reserved: u32,
}

/// Which way data passed last.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// None has passed.
    None = 0,
    Out = 1,
    In = 2,
    /// Out, and since then a read was begun whose return has not been seen. It may have taken something.
    OutThenRead = 3,
    /// In, and likewise.
    InThenRead = 4,
}

impl Direction {
    /// Where the return of a read may not be seen: what it is from the beginning of the read on.
    #[inline(always)]
    pub fn reading(self) -> Self {
        match self {
            Self::Out => Self::OutThenRead,
            Self::In => Self::InThenRead,
            other => other,
        }
    }

    /// What it is at the return of a read, before what that took is looked at.
    #[inline(always)]
    pub fn has_read(self) -> Self {
        match self {
            Self::OutThenRead => Self::Out,
            Self::InThenRead => Self::In,
            other => other,
        }
    }
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
    /// It reads, and has not returned.
    Read = 0,
    /// Anything else.
    Other = 1,
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
    /// What lay there: where the call returns to.
    pub returns_to: u64,
    /// What it does.
    pub what: What,
    /// Whether the session's connection was known as the call began.
    pub is_joined: bool,
    /// Explicit padding.
    pub reserved: [u8; 3],
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
    /// That of a record which begins so. `None` if it is none, or if another may begin so too: a ClientHello and a ServerHello have 10
    /// bytes of random numbers among these, and what is encrypted is as good as random, but certificates and the like are not.
    #[inline(always)]
    fn of(record: &[u8; MARK_LEN], tgid: u32) -> Option<Self> {
        let (head, body) = record.split_first_chunk::<HEADER_LEN>()?;
        let is_unlike_others = match Header::parse(head)?.content_type {
            ContentType::ApplicationData => true,
            ContentType::Handshake => is_random_hello(body),
            _ => false,
        };
        if !is_unlike_others {
            return None;
        }
        let (first, rest) = body.split_first_chunk()?;
        let bytes = [u64::from_ne_bytes(*first), u64::from_ne_bytes(*rest.first_chunk()?)];
        Some(Self { bytes, tgid, reserved: 0 })
    }
}

/// Whether the body of a handshake record begins with a ClientHello or a ServerHello. A HelloRetryRequest is a ServerHello whose random
/// number is always the same (RFC 8446 4.1.3).
#[inline(always)]
fn is_random_hello(body: &[u8]) -> bool {
    const CLIENT_HELLO: u8 = 1;
    const SERVER_HELLO: u8 = 2;
    let [message, _, _, _, _, _, a, b, c, d, ..] = *body else { return false };
    message == CLIENT_HELLO || message == SERVER_HELLO && [a, b, c, d] != [0xcf, 0x21, 0xad, 0x74]
}

impl Session {
    /// One of which nothing is known yet.
    #[inline(always)]
    fn new() -> Self {
        // When it was made, and by which thread: the clock may stand still for a while.
        let number = now() << THREAD_BITS | u64::from(current_ids().1) & ((1 << THREAD_BITS) - 1);
        Self {
            number,
            id: 0,
            sock: 0,
            of_sock: 0,
            library: 0,
            direction: Direction::None,
            http: Http::Unknown,
            family: 0,
            reserved: 0,
        }
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
        Self::of(SessionKey::of_current(ssl))
    }

    /// The same, made if it is new.
    #[inline(always)]
    pub fn find_or_make(ssl: u64) -> Option<&'static mut Self> {
        let key = SessionKey::of_current(ssl);
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
        let _ = SESSIONS.remove(SessionKey::of_current(ssl));
    }

    /// Whether it is still on this socket. One that has been joined goes by the connection's number: sockets' addresses are used
    /// again.
    #[inline(always)]
    pub fn is_of(&self, sock: Option<Sock<Probe>>) -> bool {
        let Some(sock) = sock else { return self.sock == 0 };
        self.sock == sock.pointer as u64 && self.of_sock == number_of(sock).unwrap_or(0)
    }

    /// By what it is known, without looking at bytes, that the socket that sends is this session's, of which this was the thread's last
    /// call.
    #[inline(always)]
    fn evidence_of_call(&self, call: &LibraryCall, sock: u64, id: u64) -> Option<u32> {
        if self.sock == 0 {
            // The application sends by a function of its own, or the session is older than the trace. OpenSSL's records would be known.
            let is_nested = || is_under_way(call.stack, call.returns_to, user_stack().unwrap_or(u64::MAX));
            return (self.family == family::GNUTLS && is_nested()).then_some(evidence::NESTING);
        }
        let is_on_it = self.sock == sock && (self.of_sock == 0 || self.of_sock == id);
        (is_on_it && self.id().is_none_or(|known| known == id)).then_some(evidence::DESCRIPTOR)
    }

    /// Begins anew, for another connection: on this socket, if that is known.
    #[inline(always)]
    pub fn renew(&mut self, sock: Option<Pointer>) {
        let of_sock = sock.and_then(|sock| number_of(Sock::new(sock))).unwrap_or(0);
        let (family, library) = (self.family, self.library);
        *self = Self { sock: sock.map_or(0, |sock| sock as u64), of_sock, family, library, ..Self::new() };
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
    let id = kept.detailed.socket.id;
    let (session, by) = match by_ciphertext {
        Some(ssl) => {
            // It is sent once. What goes through a proxy of the same process is sent again.
            let _ = CIPHERTEXTS.remove(mark);
            (Session::find(ssl)?, evidence::CIPHERTEXT)
        }
        None => {
            let call = last_call()?;
            let session = Session::find(call.ssl)?;
            let by = session.evidence_of_call(call, sock.pointer as u64, id)?;
            (session, by)
        }
    };
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
    send_joined(&JoinedRecord {
        kind: kind::JOINED,
        evidence,
        at: now(),
        id,
        session: session.number,
        tgid,
        family: session.family,
        library: session.library,
    });
    Some(())
}
