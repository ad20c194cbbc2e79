//! A connection's TLS handshake as its record headers show it, the same for every library.

use super::record::{ContentType, Header};

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
    /// Record headers could not be followed to the end: when the handshake ended is not known.
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

/// Types of handshake messages (RFC 8446, 4).
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// Level of an alert that ends the connection, and the description of an orderly end (RFC 8446, 6).
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
/// Length of an encrypted alert in TLS 1.3: level and description, content type, authentication tag (RFC 8446, 5.2).
pub const ENCRYPTED_ALERT: u16 = 2 + 1 + 16;
/// The first bytes of the random number that marks a ServerHello as a HelloRetryRequest (RFC 8446, 4.1.3).
const RETRY_REQUEST: [u8; 8] = [0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11];
/// Bytes of a record's body that are looked at: a hello message up to the first half of its random number.
pub const BODY_LEN: usize = 16;

/// What a record's header alone tells.
impl Header {
    /// Whether a ClientHello may begin here.
    #[inline(always)]
    pub fn may_be_client_hello(self) -> bool {
        // A message has a head of four bytes.
        self.content_type == ContentType::Handshake && self.length >= 4
    }

    /// Whether it is an alert for certain.
    #[inline(always)]
    pub fn is_alert(self) -> bool {
        self.content_type == ContentType::Alert
    }

    /// Whether it may be an encrypted alert of TLS 1.3.
    #[inline(always)]
    pub fn may_be_alert(self) -> bool {
        self.is_application_data() && self.length == ENCRYPTED_ALERT
    }

    /// Whether it holds application data, or what looks like it.
    #[inline(always)]
    pub fn is_application_data(self) -> bool {
        self.content_type == ContentType::ApplicationData
    }
}

/// What a record means to the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing that ends it.
    Goes,
    /// It has succeeded; in TLS 1.3, where session tickets may follow, `tickets`.
    Done {
        /// Whether what the server sends next may be session tickets.
        tickets: bool,
    },
    /// It has failed.
    Failed,
    /// It was none: what follows a ClientHello is no TLS.
    Foreign,
}

impl Handshake {
    /// Whether a handshake is under way.
    #[inline(always)]
    pub fn is_under_way(&self) -> bool {
        self.phase == phase::CLIENT_HELLO || self.phase == phase::SERVER_HELLO
    }

    /// Takes in a record by its header and the first bytes of its body, of which `known` are valid.
    ///
    /// The end, whichever side looks: in TLS 1.3 the client's first protected record after the ServerHello, its Finished (the
    /// change of cipher before it is for show); up to TLS 1.2 the record after both sides have changed their ciphers.
    #[inline(always)]
    pub fn record(&mut self, at: u64, from_client: bool, header: Header, body: &[u8; BODY_LEN], known: u32) -> Step {
        let message = if known == 0 { 0 } else { body[0] };
        match self.phase {
            phase::LOOKING if from_client && header.may_be_client_hello() && message == CLIENT_HELLO => {
                self.phase = phase::CLIENT_HELLO;
                self.started_at = at;
                Step::Goes
            }
            phase::CLIENT_HELLO | phase::SERVER_HELLO => self.next_record(from_client, header, body, known, message),
            _ => Step::Goes,
        }
    }

    #[inline(always)]
    fn next_record(
        &mut self,
        from_client: bool,
        header: Header,
        body: &[u8; BODY_LEN],
        known: u32,
        message: u8,
    ) -> Step {
        match header.content_type {
            ContentType::Alert => self.alert(from_client, header, body, known),
            ContentType::Handshake if self.phase == phase::CLIENT_HELLO && !from_client => {
                if message != SERVER_HELLO && known != 0 {
                    return self.foreign();
                }
                self.server_hello(body, known);
                Step::Goes
            }
            ContentType::ChangeCipherSpec if self.phase == phase::SERVER_HELLO => {
                self.flags |= if from_client { flag::CLIENT_CHANGED } else { flag::SERVER_CHANGED };
                Step::Goes
            }
            ContentType::Handshake => {
                let both = flag::CLIENT_CHANGED | flag::SERVER_CHANGED;
                if self.flags & both == both { self.done(false) } else { Step::Goes }
            }
            // No handshake message is that short. Its level and description cannot be read.
            ContentType::ApplicationData if self.phase == phase::SERVER_HELLO && header.length == ENCRYPTED_ALERT => {
                self.alert_from(from_client)
            }
            ContentType::ApplicationData if self.phase == phase::SERVER_HELLO && from_client => self.done(true),
            _ => Step::Goes,
        }
    }

    #[inline(always)]
    fn server_hello(&mut self, body: &[u8; BODY_LEN], known: u32) {
        // Type 1, length 3, version 2, then the random number.
        let mut is_retry = known >= 14;
        let mut index = 0;
        while index < RETRY_REQUEST.len() {
            is_retry &= body[6 + index] == RETRY_REQUEST[index];
            index += 1;
        }
        if is_retry {
            self.flags |= flag::RETRIED;
        } else {
            self.phase = phase::SERVER_HELLO;
        }
    }

    /// An alert in the clear has a body of two bytes. A warning does not end the handshake, but for the orderly end.
    #[inline(always)]
    fn alert(&mut self, from_client: bool, header: Header, body: &[u8; BODY_LEN], known: u32) -> Step {
        let is_clear = header.length == 2 && known >= 2;
        if is_clear && body[0] != FATAL && body[1] != CLOSE_NOTIFY {
            return Step::Goes;
        }
        if is_clear {
            (self.alert_level, self.alert_description) = (body[0], body[1]);
        }
        self.alert_from(from_client)
    }

    /// What passed for a ClientHello was none.
    #[inline(always)]
    pub fn foreign(&mut self) -> Step {
        self.phase = phase::PLAIN;
        self.started_at = 0;
        self.flags = 0;
        Step::Foreign
    }

    #[inline(always)]
    fn done(&mut self, tickets: bool) -> Step {
        self.phase = phase::DONE;
        Step::Done { tickets }
    }

    #[inline(always)]
    fn alert_from(&mut self, client: bool) -> Step {
        if client {
            self.flags |= flag::ALERT_FROM_CLIENT;
        }
        self.phase = phase::FAILED;
        Step::Failed
    }
}
