//! The totals of a trace, by process name and destination.

use std::net::SocketAddr;

use foldhash::fast::RandomState;
use hashbrown::{Equivalent, HashMap};
use sketches_ddsketch::{Config, DDSketch};

use super::record::{Closer, Connection, Group, Nanos, Role, Summary, WallTime};

/// Medians are within this share of the true value.
const MEDIAN_ERROR: f64 = 0.01;
/// Bounds the memory of one median to 8 kB; with the error above it spans nine powers of ten.
const MEDIAN_BINS: u32 = 1024;
/// Smaller durations count as this, in nanoseconds.
const MEDIAN_SMALLEST: f64 = 1_000.0;

/// Running totals.
pub(super) struct Totals {
    connections: u64,
    open: u64,
    groups: HashMap<Key, Tally, RandomState>,
    other: Option<Tally>,
    max_groups: usize,
}

/// What a group has in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    comm: String,
    role: Option<Role>,
    destination: Destination,
}

/// A [`Key`] that borrows, for a look-up that copies no string.
#[derive(Hash)]
struct KeyRef<'c> {
    comm: &'c str,
    role: Option<Role>,
    destination: Destination,
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.destination == key.destination && self.role == key.role && self.comm == key.comm
    }
}

/// Where a group's connections go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Destination {
    Remote(SocketAddr),
    LocalPort(u16),
}

impl Totals {
    pub fn new(max_groups: usize) -> Self {
        Self { connections: 0, open: 0, groups: HashMap::default(), other: None, max_groups }
    }

    /// Counts a connection that is put out.
    pub fn add(&mut self, connection: &Connection) {
        self.connections += 1;
        self.open += u64::from(connection.open);
        self.tally(connection).add(connection);
    }

    /// Ends the count. Hooks, losses and remarks are left to be filled in.
    pub fn into_summary(self, began_at: WallTime, stopped_at: WallTime) -> Summary {
        let mut groups: Vec<Group> = self.groups.into_iter().map(|(key, tally)| tally.into_group(key)).collect();
        groups.sort_by(|a, b| {
            let by_name = || (&a.comm, &a.destination).cmp(&(&b.comm, &b.destination));
            b.connections.cmp(&a.connections).then_with(by_name)
        });
        let other = |tally: Tally| tally.into_named("other".into(), None, "other".into());
        Summary {
            began_at,
            stopped_at,
            connections: self.connections,
            open: self.open,
            groups,
            other: self.other.map(other),
            hooks: Vec::new(),
            losses: Vec::new(),
            remarks: Vec::new(),
        }
    }

    fn tally(&mut self, connection: &Connection) -> &mut Tally {
        let destination = match connection.role {
            Some(Role::Server) => Destination::LocalPort(connection.local.port()),
            Some(Role::Client) | None => Destination::Remote(connection.remote),
        };
        let key = KeyRef { comm: &connection.process.comm, role: connection.role, destination };
        let full = self.groups.len() >= self.max_groups;
        if full && !self.groups.contains_key(&key) {
            return self.other.get_or_insert_default();
        }
        self.groups.entry_ref(&key).or_default()
    }
}

impl From<&KeyRef<'_>> for Key {
    fn from(key: &KeyRef<'_>) -> Self {
        Self { comm: key.comm.to_owned(), role: key.role, destination: key.destination }
    }
}

/// Totals of one group.
#[derive(Default)]
struct Tally {
    connections: u64,
    open: u64,
    failed: u64,
    setup: Nanos,
    connect: Spread,
    bytes: (u64, u64),
    idle: Spread,
    closers: (u64, u64, u64),
}

impl Tally {
    fn add(&mut self, connection: &Connection) {
        let failed = !connection.established && !connection.open;
        self.connections += 1;
        self.open += u64::from(connection.open);
        self.failed += u64::from(failed);
        self.setup = self.setup.saturating_add(connection.connect.unwrap_or(0));
        if let Some(connect) = connection.connect.filter(|_| !failed) {
            self.connect.add(connect);
        }
        self.bytes.0 = self.bytes.0.saturating_add(connection.bytes_sent.unwrap_or(0));
        self.bytes.1 = self.bytes.1.saturating_add(connection.bytes_received.unwrap_or(0));
        let Some(close) = &connection.close else {
            return;
        };
        if let Some(idle) = connection.idle_before_close {
            self.idle.add(idle);
        }
        match close.closer {
            Closer::Local => self.closers.0 += 1,
            Closer::Peer => self.closers.1 += 1,
            Closer::None => self.closers.2 += 1,
        }
    }

    fn into_group(self, key: Key) -> Group {
        let destination = match key.destination {
            Destination::Remote(address) => address.to_string(),
            Destination::LocalPort(port) => port.to_string(),
        };
        self.into_named(key.comm, key.role, destination)
    }

    fn into_named(self, comm: String, role: Option<Role>, destination: String) -> Group {
        Group {
            comm,
            role,
            destination,
            connections: self.connections,
            open: self.open,
            failed: self.failed,
            setup: self.setup,
            connect_median: self.connect.range().map(|(_, median, _)| median),
            bytes: self.bytes,
            idle: self.idle.range(),
            closers: self.closers,
        }
    }
}

/// Smallest, median and largest of any number of durations, in bounded memory: the ends exact, the median nearly so.
#[derive(Default)]
struct Spread(Option<Box<Sketch>>);

struct Sketch {
    smallest: Nanos,
    largest: Nanos,
    all: DDSketch,
}

impl Spread {
    fn add(&mut self, value: Nanos) {
        let sketch = self.0.get_or_insert_with(|| {
            let all = DDSketch::new(Config::new(MEDIAN_ERROR, MEDIAN_BINS, MEDIAN_SMALLEST));
            Box::new(Sketch { smallest: value, largest: value, all })
        });
        sketch.smallest = sketch.smallest.min(value);
        sketch.largest = sketch.largest.max(value);
        sketch.all.add(value as f64);
    }

    fn range(&self) -> Option<(Nanos, Nanos, Nanos)> {
        let Sketch { smallest, largest, all } = self.0.as_deref()?;
        let median = all.quantile(0.5).ok().flatten()?;
        // A float beyond the range of u64 saturates; NaN gives 0.
        Some((*smallest, (median as u64).clamp(*smallest, *largest), *largest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_exact_ends_and_a_near_median() {
        let mut spread = Spread::default();
        assert_eq!(spread.range(), None);
        for value in 1..=1001u64 {
            spread.add(value * 1_000_000);
        }
        let (smallest, median, largest) = spread.range().expect("not empty");
        assert_eq!((smallest, largest), (1_000_000, 1_001_000_000));
        assert!(median.abs_diff(501_000_000) <= 501_000_000 / 100, "{median}");
    }

    #[test]
    fn a_spread_takes_any_value() {
        let mut spread = Spread::default();
        for value in [0, 1, u64::MAX] {
            spread.add(value);
        }
        let (smallest, _, largest) = spread.range().expect("not empty");
        assert_eq!((smallest, largest), (0, u64::MAX));
    }
}
