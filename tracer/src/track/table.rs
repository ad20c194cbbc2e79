//! The live connections, by socket number, and a short memory of those reported lately.

use foldhash::fast::RandomState;
use hashlink::LinkedHashMap;
use tracer_ebpf::SocketRecord;

use super::connection::{Live, Relation};

/// How many reported connections are remembered, so that a late event of one does not make it appear again.
const REMEMBERED: usize = 4096;

/// Live connections, oldest first, at most as many as allowed.
pub(super) struct Table {
    live: LinkedHashMap<u64, Live, RandomState>,
    reported: LinkedHashMap<u64, Reported, RandomState>,
    max: usize,
}

/// What is remembered of a socket's last reported connection.
#[derive(Clone, Copy)]
struct Reported {
    opened_at: u64,
    life: u32,
}

impl Table {
    pub fn new(max: usize) -> Self {
        Self {
            live: LinkedHashMap::with_hasher(RandomState::default()),
            reported: LinkedHashMap::with_hasher(RandomState::default()),
            max: max.max(1),
        }
    }

    /// Which of its socket's connections, from 0, a record begins, if it is not of the live one. `None` if it comes late,
    /// from one that was reported already.
    pub fn next_life(&self, record: &SocketRecord) -> Option<u32> {
        if let Some(live) = self.live.get(&record.id) {
            return (live.relation(record) == Relation::Later).then(|| live.life.saturating_add(1));
        }
        match self.reported.get(&record.id) {
            None => Some(0),
            Some(last) => (record.opened_at > last.opened_at).then(|| last.life.saturating_add(1)),
        }
    }

    /// The live connection of a socket.
    pub fn get(&mut self, id: u64) -> Option<&mut Live> {
        self.live.get_mut(&id)
    }

    /// Whether the socket has had a connection that was reported lately.
    pub fn was_reported(&self, id: u64) -> bool {
        self.reported.contains_key(&id)
    }

    /// Adds a live connection. Returns the oldest if there is no room for both.
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

    /// Number of live connections.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Remembers a connection as reported.
    pub fn remember(&mut self, live: &Live) {
        let reported = Reported { opened_at: live.record.opened_at, life: live.life };
        self.reported.insert(live.record.id, reported);
        if self.reported.len() > REMEMBERED {
            self.reported.pop_front();
        }
    }
}
