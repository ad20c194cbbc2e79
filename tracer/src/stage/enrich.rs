//! What `/proc` knows: each process is looked up once, before its first connection.

use aya::maps::{HashMap, MapData};
use foldhash::fast::RandomState;
use hashbrown::HashSet;
use tracer_ebpf::{ProcessRecord, SocketRecord, kind};

use super::event::{Event, Identity, UserEvent};
use crate::target::{
    process,
    throttling::{Throttled, Throttling},
};

/// Processes that take no look-up at all.
const RECENT: usize = 8;

/// A process: number and start time.
type Key = (u32, u64);

/// Finds out who is behind a number.
#[derive(Default)]
pub struct Enricher {
    /// The last process of each remainder of its number: most events come from few.
    recent: [Option<Key>; RECENT],
    known: HashSet<Key, RandomState>,
    /// Becomes `known`'s predecessor when that is full; bounds the memory without a list of uses.
    older: HashSet<Key, RandomState>,
    /// Most processes remembered as looked up, in each of the two.
    generation: usize,
    /// The cgroups with a quota of those that were looked up.
    throttling: Throttling,
    /// The host's numbers, where this is another PID namespace.
    host_pids: Option<HashMap<MapData, u32, u32>>,
}

impl Enricher {
    /// One that remembers no more processes than are known further on: of one that was forgotten there, it is told again who it is.
    pub fn remembering(most: usize) -> Self {
        Self { generation: most.div_ceil(2), ..Self::default() }
    }

    /// Tells the host's numbers too from now on.
    pub fn name_host_pids(&mut self, host_pids: HashMap<MapData, u32, u32>) {
        self.host_pids = Some(host_pids);
    }

    /// What was learnt may have been forgotten further on: each process is looked up again.
    pub fn forget_all(&mut self) {
        self.recent = Default::default();
        (self.known, self.older) = Default::default();
    }

    /// The event that names a connection's process, if it has not been looked up yet.
    #[inline(always)]
    pub fn identify(&mut self, record: &SocketRecord) -> Option<Event> {
        self.identify_process((record.tgid, record.process_started_at))
    }

    /// The same for a process: number and start time.
    #[inline(always)]
    pub fn identify_process(&mut self, key: (u32, u64)) -> Option<Event> {
        if self.recent[place(key)] == Some(key) { None } else { self.look_up(key) }
    }

    #[inline(never)]
    fn look_up(&mut self, key: Key) -> Option<Event> {
        if !self.learn(key) {
            return None;
        }
        let mut identity = process::identity(key.0).filter(|identity| same_process(identity, key))?;
        identity.host_pid = self.host_pids.as_ref().and_then(|host_pids| host_pids.get(&key.0, 0).ok());
        if identity.quota.is_some()
            && let Some(quota) = process::quota(key.0)
        {
            self.throttling.watch(quota);
        }
        Some(Event::User(Box::new(UserEvent::Identity(identity))))
    }

    /// The events that tell by how much cgroups with a quota were throttled, if that is news.
    pub fn throttled(&mut self, at: u64) -> impl Iterator<Item = UserEvent> + use<> {
        self.throttling.take_news().into_iter().map(
            move |(cgroup, Throttled { periods, throttled_periods, throttled })| UserEvent::Throttled {
                at,
                cgroup,
                periods,
                throttled_periods,
                throttled,
            },
        )
    }

    /// A process that runs another program is another process to its reader.
    pub fn forget(&mut self, record: &ProcessRecord) {
        if record.kind == kind::EXEC {
            let key = (record.tgid, record.process_started_at);
            self.known.remove(&key);
            self.older.remove(&key);
            self.recent[place(key)] = None;
        }
    }

    /// Whether `key` is new; it is known from here on.
    fn learn(&mut self, key: Key) -> bool {
        self.recent[place(key)] = Some(key);
        if self.known.contains(&key) {
            return false;
        }
        let new = !self.older.remove(&key);
        if self.known.len() >= self.generation {
            self.older = std::mem::take(&mut self.known);
        }
        self.known.insert(key);
        new
    }
}

fn place((pid, _): Key) -> usize {
    pid as usize % RECENT
}

/// The number may have been given to another process since. An adopted socket's record has no start time.
fn same_process(identity: &Identity, (_, started_at): Key) -> bool {
    started_at == 0 || identity.started_at.abs_diff(started_at) <= process::start_precision()
}
