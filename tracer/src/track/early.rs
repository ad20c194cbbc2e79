//! Events of connections that are not known yet: sockets older than the trace are listed while their events already come.

use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tracer_ebpf::{ExchangeRecord, TlsRecord};

use crate::track::record::{Hello, HttpHead};

/// Most events that wait, in each of two generations.
const GENERATION: usize = 4_096;

/// One event that waits.
pub(super) enum Early {
    /// An exchange was answered.
    Exchange(ExchangeRecord),
    /// A handshake ended.
    Tls(TlsRecord),
    /// What its hellos say.
    Hello(Rc<Hello>),
    /// An HTTP head: when it passed, the number of its exchange, and whether the owner sent it.
    Http(u64, Option<u32>, bool, Rc<HttpHead>),
    /// Which TLS library works on it.
    Library(Option<Rc<str>>),
}

/// The events that wait, by connection. Of those too many, the oldest are lost.
#[derive(Default)]
pub(super) struct Waiting {
    newer: HashMap<u64, Vec<Early>, RandomState>,
    older: HashMap<u64, Vec<Early>, RandomState>,
    /// How many are in `newer`.
    count: usize,
    lost: u64,
}

impl Waiting {
    /// Keeps an event.
    pub fn push(&mut self, id: u64, event: Early) {
        if self.count >= GENERATION {
            let dropped = std::mem::replace(&mut self.older, std::mem::take(&mut self.newer));
            self.count = 0;
            self.lose(dropped.values().map(|events| events.len() as u64).sum());
        }
        self.newer.entry(id).or_default().push(event);
        self.count += 1;
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.newer.is_empty() && self.older.is_empty()
    }

    /// Takes a connection's events out, oldest first.
    pub fn take(&mut self, id: u64) -> Vec<Early> {
        let mut events = self.older.remove(&id).unwrap_or_default();
        let newer = self.newer.remove(&id).unwrap_or_default();
        self.count -= newer.len();
        events.extend(newer);
        events
    }

    /// Counts events that belong to no connection.
    pub fn lose(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
    }

    /// How many were lost since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Gives up on all that still wait.
    pub fn give_up(&mut self) {
        let waiting = self.newer.values().chain(self.older.values()).map(|events| events.len() as u64).sum();
        self.lose(waiting);
        (self.newer, self.older, self.count) = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_what_is_dropped_is_counted() {
        let mut waiting = Waiting::default();
        let total = 10 * GENERATION as u64;
        for id in 0..total {
            waiting.push(id % 5_000, Early::Hello(Rc::default()));
            let kept: usize = waiting.newer.values().chain(waiting.older.values()).map(Vec::len).sum();
            assert!(kept <= 2 * GENERATION);
        }
        let mut kept = 0;
        for id in 0..5_000 {
            kept += waiting.take(id).len() as u64;
        }
        assert_eq!(kept + waiting.take_lost(), total);
        waiting.push(1, Early::Hello(Rc::default()));
        waiting.give_up();
        assert_eq!((waiting.take_lost(), waiting.take_lost()), (1, 0));
    }
}
