//! Puts a connection's exchanges together.
//!
//! The event of an exchange comes when its answer begins, and tells the counts as it began, which are those at the end of the
//! exchange before it. So an exchange is complete when the next one is answered, or by the counts of a later event of the
//! connection's life.

use tracer_ebpf::{
    ExchangeRecord,
    exchange::{
        Exchanges,
        flag::{GREETING, MAYBE_TICKETS, STALE},
    },
};

use super::{clock::span, record::Nanos, summary::Place};

/// Set beside the kernel's flags when there is an exchange at all.
const BEGUN: u8 = 1 << 6;
/// Set when an exchange before the present one was stale.
const WAS_STALE: u8 = 1 << 7;
/// The kernel's flags that are kept.
const KEPT: u32 = STALE | GREETING | MAYBE_TICKETS;
const _: () = assert!(KEPT < BEGUN as u32);

/// The newest HTTP heads belong to an exchange that many have followed.
const FAR_BEHIND: i8 = i8::MIN;

/// An idle time that is not known.
const UNKNOWN: Nanos = Nanos::MAX;

/// A connection's present exchange. Every open connection has one, so it is kept small.
#[derive(Default)]
pub(super) struct Turn {
    asked_at: u64,
    answered_at: u64,
    /// Before it.
    idle: Nanos,
    /// Between any two so far.
    max_idle: Nanos,
    sent_before: u64,
    received_before: u64,
    index: u32,
    flags: u8,
    /// How many exchanges after this one begins the newest with HTTP heads; [`FAR_BEHIND`] if that is long ago. A byte, so that
    /// connections without any pay nothing.
    heads: i8,
    /// The summary's group that they are counted in.
    pub group: Place,
}

/// An exchange whose end is known, or that ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turned {
    /// Which, from 0.
    pub index: u32,
    /// First byte of the ask, boot clock; of a greeting, when the connection was ready; 0 if unknown.
    pub asked_at: u64,
    /// Time without application data before it; of the first, since the connection was ready.
    pub idle: Option<Nanos>,
    /// First byte of the answer, boot clock; 0 if there was none.
    pub answered_at: u64,
    /// How it ended.
    pub end: End,
    /// The answering side spoke first.
    pub greeting: bool,
    /// Begun when the peer had closed.
    pub stale: bool,
    /// The answer may be session tickets.
    pub maybe_tickets: bool,
}

/// How an exchange stood at its end, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Last application data, boot clock.
    pub last_at: Option<u64>,
    /// Payload that the owner sent.
    pub sent: Option<u64>,
    /// Payload that it received.
    pub received: Option<u64>,
}

/// What the summary counts of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// Which, from 0.
    pub index: u32,
    /// From the ask to the first byte of the answer.
    pub first_byte: Option<Nanos>,
    /// Begun when the peer had closed.
    pub stale: bool,
}

impl Turned {
    /// From the ask to the first byte of the answer.
    pub fn first_byte(&self) -> Option<Nanos> {
        span(self.asked_at, self.answered_at)
    }

    /// What the summary counts of it.
    pub fn counted(&self) -> Counted {
        Counted { index: self.index, first_byte: self.first_byte(), stale: self.stale }
    }

    /// From the ask to the last byte of the answer.
    pub fn duration(&self) -> Option<Nanos> {
        let until = self.end.last_at.filter(|_| self.answered_at != 0)?;
        // The answer's first byte is application data as well.
        span(self.asked_at, until.max(self.answered_at))
    }
}

impl Turn {
    /// Takes in that an exchange was answered. Returns what `ended` makes of the one that has ended by that. An event of an earlier
    /// exchange says nothing new.
    #[inline(always)]
    pub fn answered<R>(&mut self, record: &ExchangeRecord, ended: impl FnOnce(&Self, End) -> R) -> Option<R> {
        if self.has_begun() && record.index <= self.index {
            if record.index == self.index && self.answered_at == 0 {
                self.answered_at = record.at;
                self.flags |= kept(record.flags);
            }
            return None;
        }
        let before = self.has_begun().then(|| {
            ended(self, self.ended_by(record.index, record.previous_at, record.sent_before, record.received_before))
        });
        let idle = idle(record.asked_at, record.previous_at, record.ready_at);
        *self = Self {
            asked_at: record.asked_at,
            answered_at: record.at,
            idle,
            max_idle: self.max_idle.max(if record.previous_at != 0 { known(idle).unwrap_or(0) } else { 0 }),
            sent_before: record.sent_before,
            received_before: record.received_before,
            index: record.index,
            flags: kept(record.flags) | BEGUN | self.past(),
            heads: self.heads_before(record.index),
            group: self.group,
        };
        before
    }

    /// Takes in how the connection's exchanges stand. Returns the one that has ended by that.
    pub fn see(&mut self, exchanges: &Exchanges) -> Option<Turned> {
        self.max_idle = self.max_idle.max(exchanges.max_idle);
        let index = exchanges.count.checked_sub(1)?;
        if self.has_begun() && index <= self.index {
            if index == self.index {
                self.answered_at = if self.answered_at != 0 { self.answered_at } else { exchanges.answered_at };
                self.flags |= kept(exchanges.flags);
            }
            return None;
        }
        let end = self.ended_by(index, exchanges.previous_at, exchanges.sent_before, exchanges.received_before);
        let before = self.with(end);
        *self = Self {
            asked_at: exchanges.asked_at,
            answered_at: exchanges.answered_at,
            idle: idle(exchanges.asked_at, exchanges.previous_at, exchanges.ready_at),
            max_idle: self.max_idle,
            sent_before: exchanges.sent_before,
            received_before: exchanges.received_before,
            index,
            flags: kept(exchanges.flags) | BEGUN | self.past(),
            heads: self.heads_before(index),
            group: self.group,
        };
        before
    }

    /// The present exchange, if its connection ends with these counts. Counts of an earlier exchange tell nothing.
    pub fn last(&self, exchanges: Option<&Exchanges>) -> Option<Turned> {
        let end = match exchanges {
            Some(now) if now.count == self.index.saturating_add(1) => {
                self.until((now.last_at != 0).then_some(now.last_at), Some(now.sent), Some(now.received))
            }
            _ => End::default(),
        };
        self.with(end)
    }

    /// The present exchange, if its connection stands like this.
    pub fn standing(&self, last_at: Option<u64>, sent: Option<u64>, received: Option<u64>) -> Option<Turned> {
        self.with(self.until(last_at, sent, received))
    }

    /// Exchanges begun, as far as is known.
    pub fn count(&self) -> u32 {
        if self.has_begun() { self.index.saturating_add(1) } else { 0 }
    }

    /// When the last sign of the present exchange came; 0 before the first.
    pub fn seen_at(&self) -> u64 {
        self.asked_at.max(self.answered_at)
    }

    /// Whether the present exchange was answered.
    pub fn is_answered(&self) -> bool {
        self.answered_at != 0
    }

    /// Exchanges answered, as far as is known: a further one begins only after an answer.
    pub fn answered_count(&self) -> u32 {
        if self.is_answered() { self.count() } else { self.count().saturating_sub(1) }
    }

    /// Longest time without application data between two exchanges; 0 if there was none.
    pub fn max_idle(&self) -> Nanos {
        self.max_idle
    }

    /// Whether any exchange was begun when the peer had closed.
    pub fn was_stale(&self) -> bool {
        self.flags & (STALE as u8 | WAS_STALE) != 0
    }

    /// The exchange with the newest HTTP heads; without any heads the first. `None` if many have followed it.
    pub fn newest_heads(&self) -> Option<u32> {
        if self.heads == FAR_BEHIND { None } else { self.index.checked_add_signed(self.heads.into()) }
    }

    /// Notes which exchange has the newest HTTP heads. `false` if it is too far from the present one.
    pub fn note_heads(&mut self, index: u32) -> bool {
        let ahead = i8::try_from(i64::from(index) - i64::from(self.index)).ok().filter(|ahead| *ahead != FAR_BEHIND);
        self.heads = ahead.unwrap_or(self.heads);
        ahead.is_some()
    }

    /// Where the newest HTTP heads stand, seen from a later exchange.
    #[inline(always)]
    fn heads_before(&self, later: u32) -> i8 {
        let steps = i8::try_from(later - self.index).unwrap_or(i8::MAX);
        if self.heads == FAR_BEHIND { FAR_BEHIND } else { self.heads.saturating_sub(steps) }
    }

    fn has_begun(&self) -> bool {
        self.flags & BEGUN != 0
    }

    /// What the next exchange must know of this one.
    fn past(&self) -> u8 {
        if self.was_stale() { WAS_STALE } else { 0 }
    }

    /// How the present exchange ended by one that began with these counts. If that is not the next one, they tell nothing.
    #[inline(always)]
    fn ended_by(&self, next: u32, last_at: u64, sent: u64, received: u64) -> End {
        match next == self.index.wrapping_add(1) {
            true => self.until((last_at != 0).then_some(last_at), Some(sent), Some(received)),
            false => End::default(),
        }
    }

    /// What passed until these counts.
    #[inline(always)]
    fn until(&self, last_at: Option<u64>, sent: Option<u64>, received: Option<u64>) -> End {
        End {
            last_at,
            sent: sent.map(|sent| sent.saturating_sub(self.sent_before)),
            received: received.map(|received| received.saturating_sub(self.received_before)),
        }
    }

    fn with(&self, end: End) -> Option<Turned> {
        self.has_begun().then(|| self.turned(end))
    }

    /// The present exchange, if it ended so; there must be one.
    #[inline(always)]
    pub fn turned(&self, end: End) -> Turned {
        Turned {
            index: self.index,
            asked_at: self.asked_at,
            idle: known(self.idle),
            answered_at: self.answered_at,
            end,
            greeting: self.is_flagged(GREETING),
            stale: self.is_flagged(STALE),
            maybe_tickets: self.is_flagged(MAYBE_TICKETS),
        }
    }

    /// What the summary counts of the present exchange; there must be one.
    #[inline(always)]
    pub fn counted(&self) -> Counted {
        let first_byte = span(self.asked_at, self.answered_at);
        Counted { index: self.index, first_byte, stale: self.is_flagged(STALE) }
    }

    fn is_flagged(&self, bit: u32) -> bool {
        self.flags & bit as u8 != 0
    }
}

fn kept(flags: u32) -> u8 {
    (flags & KEPT) as u8
}

fn known(idle: Nanos) -> Option<Nanos> {
    (idle != UNKNOWN).then_some(idle)
}

/// Since the last application data, or since the connection was ready.
fn idle(asked_at: u64, previous_at: u64, ready_at: u64) -> Nanos {
    span(if previous_at != 0 { previous_at } else { ready_at }, asked_at).unwrap_or(UNKNOWN)
}
