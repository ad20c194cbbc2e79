//! A connection's exchanges, told by the direction of its bytes alone: no protocol is parsed.
//!
//! The side that asks is the client, the side that answers the server. An exchange begins with the first byte that the
//! asking side sends after it was answered; a further byte of the asking side before an answer belongs to the same
//! exchange. Where the answering side speaks first (SSH, SMTP, MySQL), its greeting is an exchange with an empty ask, counted
//! from when the connection was ready.
//!
//! The state is kept in the kernel, one for each socket, and it is pure: the hooks hand in what passed and when.

/// Bits of [`Exchanges::flags`]. The `COUNTING` ones are of the connection, the others are of the present exchange.
pub mod flag {
    /// The last byte was of the answering side.
    pub const ANSWERING: u32 = 1 << 0;
    /// The asking side began when the peer had closed already: it wrote to a dead connection.
    pub const STALE: u32 = 1 << 1;
    /// The answering side spoke first.
    pub const GREETING: u32 = 1 << 2;
    /// What passed last may have been a TLS alert, or the header of a ClientHello. It is held back until it is known whether data follows: see
    /// [`Exchanges::held_at`](super::Exchanges::held_at).
    pub const HELD: u32 = 1 << 3;
    /// The held bytes were of the asking side.
    pub const HELD_ASK: u32 = 1 << 4;
    /// [`Exchanges::answered_at`](super::Exchanges::answered_at) may be that of session tickets, which cannot be told from
    /// data: it stands only if nothing else comes.
    pub const MAYBE_TICKETS: u32 = 1 << 5;
    /// `write_seq` is set.
    pub const COUNTING_SENT: u32 = 1 << 6;
    /// `copied_seq` is set.
    pub const COUNTING_RECEIVED: u32 = 1 << 7;
    /// Those that are of the connection.
    pub(super) const OF_CONNECTION: u32 = COUNTING_SENT | COUNTING_RECEIVED;
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
        /// `last_at` at the first sign of the connection's end: data may go on the other way after it.
        pub last_before_end: u64,
        /// Longest time without application data between two exchanges so far.
        pub max_idle: u64,
        /// When bytes passed that may be a TLS alert ([`flag::HELD`]).
        pub held_at: u64,
        /// `sent` before those bytes.
        pub held_sent: u64,
        /// `received` before those bytes.
        pub held_received: u64,
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

const _: () = assert!(size_of::<Exchanges>() == 128 && align_of::<Exchanges>() == 8);

/// Bytes that passed, application data as far as is known.
#[derive(Clone, Copy)]
pub struct Passed {
    /// When.
    pub at: u64,
    /// Whether the side that asks sent them.
    pub asks: bool,
    /// Whether the peer had closed before.
    pub stale: bool,
    /// [`Exchanges::received`] before them.
    pub received_before: u64,
}

impl Exchanges {
    /// Counts what was handed to TCP up to now. TCP's own numbers wrap around; one call moves them by less than that.
    #[inline(always)]
    pub fn count_sent(&mut self, write_seq: u32) {
        self.sent = self.sent.wrapping_add(u64::from(write_seq.wrapping_sub(self.write_seq)));
        self.write_seq = write_seq;
    }

    /// Counts what was taken from TCP up to now, in a call that handed over `copied` bytes. `false` if nothing was taken. The
    /// peer's FIN takes up a number too.
    #[inline(always)]
    pub fn count_received(&mut self, copied_seq: u32, copied: u32) -> bool {
        let taken = u64::from(copied_seq.wrapping_sub(self.copied_seq));
        let copied = u64::from(copied);
        let bytes = if taken == copied + 1 { copied } else { taken };
        self.received = self.received.wrapping_add(bytes);
        self.copied_seq = copied_seq;
        taken != 0
    }

    /// Takes in application data. `answered` is called when an answer has begun, with all that [`ExchangeRecord`] tells.
    ///
    /// [`ExchangeRecord`]: crate::ExchangeRecord
    #[inline(always)]
    pub fn pass(&mut self, passed: Passed, answered: impl Fn(&Self)) {
        let Passed { at, asks, .. } = passed;
        self.unhold(&answered);
        if asks {
            self.ask(passed, self.sent, &answered);
        } else {
            self.answer(at, self.sent, passed.received_before, &answered);
        }
        self.last_at = at;
    }

    /// Takes in bytes that may be a TLS alert: only if data follows were they data themselves.
    #[inline(always)]
    pub fn hold(&mut self, passed: Passed) {
        if self.flags & flag::HELD != 0 {
            // Farewells come in pairs: of both sides, and from Java two at a time.
            return;
        }
        self.held_at = passed.at;
        self.held_sent = self.sent;
        self.held_received = passed.received_before;
        self.flags |= flag::HELD | if passed.asks { flag::HELD_ASK } else { 0 };
    }

    /// Takes in that what was sent at a former moment by the asking side was data after all.
    #[inline(always)]
    pub fn held_ask(&mut self, at: u64) {
        self.held_at = at;
        // Nothing had passed before it in the direction of the first ask; what had before a later one is not known any more.
        (self.held_sent, self.held_received) = if self.count == 0 { (0, 0) } else { (self.sent, self.received) };
        self.flags |= flag::HELD | flag::HELD_ASK;
    }

    /// Takes in bytes of the answering side that may be TLS session tickets, which no application asked for: the answer's
    /// first byte only if no other follows.
    #[inline(always)]
    pub fn maybe_tickets(&mut self, at: u64, answered: impl Fn(&Self)) {
        self.unhold(&answered);
        if self.count != 0 && (self.answered_at == 0 || self.flags & flag::MAYBE_TICKETS != 0) {
            self.answered_at = at;
            self.flags |= flag::MAYBE_TICKETS | flag::ANSWERING;
            self.last_at = at;
        }
    }

    /// What is held was no data. Returns when it passed, if anything is held.
    #[inline(always)]
    pub fn drop_held(&mut self) -> Option<u64> {
        if self.flags & flag::HELD == 0 {
            return None;
        }
        self.flags &= !(flag::HELD | flag::HELD_ASK);
        Some(self.held_at)
    }

    #[inline(always)]
    fn unhold(&mut self, answered: &impl Fn(&Self)) {
        if self.flags & flag::HELD == 0 {
            return;
        }
        let (at, asks) = (self.held_at, self.flags & flag::HELD_ASK != 0);
        let (sent_before, received_before) = (self.held_sent, self.held_received);
        self.flags &= !(flag::HELD | flag::HELD_ASK);
        if asks {
            self.ask(Passed { at, asks, stale: false, received_before }, sent_before, answered);
        } else {
            self.answer(at, sent_before, received_before, answered);
        }
        self.last_at = at;
    }

    #[inline(always)]
    fn ask(&mut self, passed: Passed, sent_before: u64, answered: &impl Fn(&Self)) {
        if self.count != 0 && self.flags & flag::ANSWERING == 0 {
            return;
        }
        if self.flags & flag::MAYBE_TICKETS != 0 {
            // Nothing else has come: it was the answer.
            answered(self);
        }
        self.begin(passed.at, sent_before, passed.received_before, if passed.stale { flag::STALE } else { 0 });
    }

    #[inline(always)]
    fn answer(&mut self, at: u64, sent_before: u64, received_before: u64, answered: &impl Fn(&Self)) {
        if self.count == 0 {
            self.begin(self.ready_at, sent_before, received_before, flag::GREETING);
        }
        if self.answered_at == 0 || self.flags & flag::MAYBE_TICKETS != 0 {
            self.answered_at = at;
            self.flags &= !flag::MAYBE_TICKETS;
            answered(self);
        }
        self.flags |= flag::ANSWERING;
    }

    #[inline(always)]
    fn begin(&mut self, at: u64, sent_before: u64, received_before: u64, flags: u32) {
        if self.last_at != 0 && at > self.last_at {
            let idle = at - self.last_at;
            if idle > self.max_idle {
                self.max_idle = idle;
            }
        }
        self.previous_at = self.last_at;
        self.asked_at = at;
        self.answered_at = 0;
        self.sent_before = sent_before;
        self.received_before = received_before;
        self.count = self.count.wrapping_add(1);
        self.flags = self.flags & flag::OF_CONNECTION | flags;
    }
}
