//! The live connections, by socket number, and a short memory of those reported lately.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashlink::{
    LinkedHashMap,
    linked_hash_map::{Entry, OccupiedEntry},
};
use tracer_ebpf::{ExchangeRecord, SocketRecord};

use super::connection::Live;

/// How many reported connections are remembered, so that a late event of one does not make it appear again.
const REMEMBERED: usize = 4096;
/// From so many on, room is made for all of them: to grow step by step would copy them and touch new memory each time.
const MANY: usize = REMEMBERED / 16;

/// Live connections, oldest first, at most as many as allowed.
pub(super) struct Table {
    live: LinkedHashMap<u64, Live, RandomState>,
    reported: Memory,
    max: usize,
}

/// A socket's live connection in its place.
pub(super) struct Known<'t> {
    entry: OccupiedEntry<'t, u64, Live, RandomState>,
    reported: &'t mut Memory,
}

impl Known<'_> {
    /// The connection.
    pub fn live(&mut self) -> &mut Live {
        self.entry.get_mut()
    }

    /// Takes it out as one that has been reported, and remembers it as such.
    pub fn forget(self) {
        self.reported.insert(self.entry.get());
        self.entry.remove();
    }
}

/// The connections reported last: at least [`REMEMBERED`], at most twice as many.
#[derive(Default)]
struct Memory {
    newer: HashMap<u64, Reported, RandomState>,
    /// The full predecessor of `newer`; bounds the memory without a list of ages.
    older: HashMap<u64, Reported, RandomState>,
    /// No number is greater: those of new sockets mostly are.
    greatest: u64,
}

/// What is remembered of a socket's last reported connection.
#[derive(Clone, Copy)]
struct Reported {
    opened_at: u64,
    life: u32,
    /// How many of its exchanges were told as answered.
    answered: u32,
}

impl Memory {
    fn get(&self, id: u64) -> Option<Reported> {
        if id > self.greatest {
            return None;
        }
        self.newer.get(&id).or_else(|| self.older.get(&id)).copied()
    }

    fn insert(&mut self, live: &Live) {
        if self.newer.len() >= REMEMBERED {
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        if self.newer.len() == MANY {
            self.newer.reserve(REMEMBERED - MANY);
        }
        self.greatest = self.greatest.max(live.record.id);
        let (opened_at, life, answered) = (live.record.opened_at, live.life, live.answered());
        self.newer.insert(live.record.id, Reported { opened_at, life, answered });
    }
}

impl Table {
    pub fn new(max: usize) -> Self {
        Self { live: LinkedHashMap::with_hasher(RandomState::default()), reported: Memory::default(), max: max.max(1) }
    }

    /// Which of its socket's connections, from 0, a record begins, if none of them is live. `None` if it comes late,
    /// from one that was reported already.
    #[inline]
    pub fn next_life(&self, record: &SocketRecord) -> Option<u32> {
        match self.reported.get(record.id) {
            None => Some(0),
            Some(last) => (record.opened_at > last.opened_at).then(|| last.life.saturating_add(1)),
        }
    }

    /// A socket's live connection, to change or to take out.
    pub fn known(&mut self, id: u64) -> Option<Known<'_>> {
        match self.live.entry(id) {
            Entry::Occupied(entry) => Some(Known { entry, reported: &mut self.reported }),
            Entry::Vacant(_) => None,
        }
    }

    /// The live connection of a socket.
    pub fn get(&mut self, id: u64) -> Option<&mut Live> {
        self.live.get_mut(&id)
    }

    /// Whether the socket has had a connection that was reported lately.
    pub fn was_reported(&self, id: u64) -> bool {
        self.reported.get(id).is_some()
    }

    /// Whether the answer of an exchange was told with its connection. The event of an answer may come after the connection's last
    /// event, which tells of it too: a packet that ends the connection interrupts the hook that saw the answer.
    pub fn has_told(&self, answer: &ExchangeRecord) -> bool {
        let told = |last: Reported| answer.at >= last.opened_at && answer.index < last.answered;
        self.reported.get(answer.id).is_some_and(told)
    }

    /// Adds a live connection. Returns the oldest if there is no room for both. Inline, as each call would copy what it adds.
    #[inline(always)]
    pub fn insert(&mut self, live: Live) -> Option<Live> {
        let evicted = if self.live.len() >= self.max { self.live.pop_front() } else { None };
        self.live.insert(live.record.id, live);
        evicted.map(|(_, live)| live)
    }

    /// Takes out a live connection that is about to be reported, and remembers it as such.
    pub fn take(&mut self, id: u64) -> Option<Live> {
        let live = self.live.remove(&id)?;
        self.remember(&live);
        Some(live)
    }

    /// Takes out the oldest live connection, as [`take`](Self::take) does.
    pub fn take_oldest(&mut self) -> Option<Live> {
        let (_, live) = self.live.pop_front()?;
        self.remember(&live);
        Some(live)
    }

    /// All live connections, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Live> {
        self.live.values()
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Live> {
        self.live.values_mut()
    }

    /// Number of live connections.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Remembers a connection as reported.
    pub fn remember(&mut self, live: &Live) {
        self.reported.insert(live);
    }
}
