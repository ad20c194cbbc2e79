//! The totals of a trace, by process name and destination.

use std::{net::SocketAddr, rc::Rc};

use foldhash::fast::RandomState;
use hashbrown::{Equivalent, HashMap};

use tracer_ebpf::role;

use super::{
    connection::Live,
    exchange::Counted,
    record::{Closer, Connection, Group, GroupExchanges, Nanos, Process, Role, Summary, WallTime},
    report,
    spread::Spread,
};

/// Running totals.
pub(super) struct Totals {
    connections: u64,
    open: u64,
    /// Where a group's tally is.
    groups: HashMap<Key, usize, RandomState>,
    tallies: Vec<Tally>,
    /// The last group of each role: most connections are of few.
    recent: [Option<Recent>; 3],
    other: Option<Tally>,
    max_groups: usize,
}

/// A group that takes no look-up.
struct Recent {
    process: Rc<Process>,
    destination: Destination,
    index: usize,
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
        Self {
            connections: 0,
            open: 0,
            groups: HashMap::default(),
            tallies: Vec::new(),
            recent: [None, None, None],
            other: None,
            max_groups,
        }
    }

    /// Counts a connection that is put out.
    pub fn add(&mut self, connection: &Connection) {
        self.connections += 1;
        self.open += u64::from(connection.open);
        self.tally(connection).add(connection);
    }

    /// Counts an exchange that has ended.
    #[inline(always)]
    pub fn add_exchange(&mut self, live: &mut Live, counted: Counted) {
        let place = live.detail().turn.group;
        let tally = match place.index().and_then(|index| self.tallies.get_mut(index)) {
            Some(tally) => tally,
            None => self.place(live),
        };
        tally.turns.get_or_insert_default().add(live, counted);
    }

    /// The group of a connection's exchanges, which the connection remembers.
    #[inline(never)]
    fn place(&mut self, live: &mut Live) -> &mut Tally {
        let process = Rc::clone(&live.process);
        let (local_port, remote) = (live.record.local_port, live.remote());
        let index = self.index(&process, report::role_of(live.record.role), local_port, remote);
        live.detail().turn.group = Place::new(index);
        match index {
            Some(index) => &mut self.tallies[index],
            None => self.other.get_or_insert_default(),
        }
    }

    /// Ends the count. Hooks, losses and remarks are left to be filled in.
    pub fn into_summary(self, began_at: WallTime, stopped_at: WallTime) -> Summary {
        let mut keys: Vec<_> = self.groups.into_iter().collect();
        keys.sort_unstable_by_key(|(_, index)| *index);
        let mut groups: Vec<Group> =
            self.tallies.into_iter().zip(keys).map(|(tally, (key, _))| tally.into_group(key)).collect();
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

    #[inline(always)]
    fn tally(&mut self, connection: &Connection) -> &mut Tally {
        let Connection { process, role, local, remote, .. } = connection;
        match self.index(process, *role, local.port(), *remote) {
            Some(index) => &mut self.tallies[index],
            None => self.other.get_or_insert_default(),
        }
    }

    /// Which tally is that of a group; `None` if it is one of those too many.
    #[inline(always)]
    fn index(
        &mut self,
        process: &Rc<Process>,
        role: Option<Role>,
        local_port: u16,
        remote: SocketAddr,
    ) -> Option<usize> {
        let destination = match role {
            Some(Role::Server) => Destination::LocalPort(local_port),
            Some(Role::Client) | None => Destination::Remote(remote),
        };
        let place = role.map_or(0, |role| 1 + role as usize);
        if let Some(recent) = &self.recent[place]
            && Rc::ptr_eq(&recent.process, process)
            && recent.destination == destination
        {
            return Some(recent.index);
        }
        let key = KeyRef { comm: &process.comm, role, destination };
        let index = match self.groups.get(&key) {
            Some(index) => *index,
            None if self.groups.len() >= self.max_groups => return None,
            None => {
                self.groups.insert(Key::from(&key), self.tallies.len());
                self.tallies.push(Tally::default());
                self.tallies.len() - 1
            }
        };
        self.recent[place] = Some(Recent { process: Rc::clone(process), destination, index });
        Some(index)
    }
}

/// Where a group's tally is, as a connection remembers it; 0 if it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(u16);

impl Place {
    fn new(index: Option<usize>) -> Self {
        Self(index.and_then(|index| u16::try_from(index + 1).ok()).unwrap_or(0))
    }

    #[inline]
    fn index(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
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
    bytes: (Option<u64>, Option<u64>),
    idle: Spread,
    closers: (u64, u64, u64),
    turns: Option<Box<Turns>>,
}

/// Totals of a group's exchanges.
#[derive(Default)]
struct Turns {
    count: u64,
    cold: u64,
    warm: u64,
    stale: u64,
    dns: Nanos,
    handshake: Nanos,
    cold_total: Spread,
    cold_first_byte: Spread,
    warm_first_byte: Spread,
}

impl Turns {
    #[inline(always)]
    fn add(&mut self, live: &Live, counted: Counted) {
        let is_cold = report::is_cold(live, counted.index) == Some(true);
        *(if is_cold { &mut self.cold } else { &mut self.warm }) += 1;
        self.stale += u64::from(counted.stale);
        match counted.first_byte {
            Some(first_byte) if is_cold => self.add_cold(live, first_byte),
            Some(first_byte) => self.warm_first_byte.add(first_byte),
            None => {}
        }
    }

    #[inline(never)]
    fn add_cold(&mut self, live: &Live, first_byte: Nanos) {
        self.cold_first_byte.add(first_byte);
        // A server waits for no setup.
        let setup = if live.record.role == role::CLIENT { report::setup(live).total } else { Some(0) };
        if let Some(setup) = setup {
            self.cold_total.add(setup.saturating_add(first_byte));
        }
    }

    fn into_group(self) -> GroupExchanges {
        let median = |spread: &Spread| spread.range().map(|(_, median, _)| median);
        GroupExchanges {
            count: self.count,
            cold: self.cold,
            warm: self.warm,
            stale: self.stale,
            cold_median: median(&self.cold_total),
            cold_first_byte_median: median(&self.cold_first_byte),
            warm_median: median(&self.warm_first_byte),
            dns: self.dns,
            handshake: self.handshake,
        }
    }
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
        add_known(&mut self.bytes.0, connection.bytes_sent);
        add_known(&mut self.bytes.1, connection.bytes_received);
        if let Some(exchanges) = &connection.exchanges {
            let turns = self.turns.get_or_insert_default();
            turns.count += u64::from(exchanges.count);
            let dns = connection.looked_up.as_ref().map_or(0, |looked_up| looked_up.cost);
            turns.dns = turns.dns.saturating_add(dns);
            let handshake = connection.tls.as_ref().and_then(|tls| tls.handshake);
            turns.handshake = turns.handshake.saturating_add(handshake.unwrap_or(0));
        }
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
            exchanges: self.turns.map(|turns| turns.into_group()),
            connect_median: self.connect.range().map(|(_, median, _)| median),
            bytes: self.bytes,
            idle: self.idle.range(),
            closers: self.closers,
        }
    }
}

/// Adds what is known; a sum of nothing known is not known either.
fn add_known(sum: &mut Option<u64>, bytes: Option<u64>) {
    if let Some(bytes) = bytes {
        *sum = Some(sum.unwrap_or(0).saturating_add(bytes));
    }
}
