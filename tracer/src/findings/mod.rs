//! Findings: what is wrong, said as an expert would. Pure functions over the records that the correlator puts out; no clock, no
//! I/O, bounded memory. `seen/` keeps what the rules need, `rules/` has one rule a file.

pub mod finding;
pub mod known_timeouts;
mod rules;
mod seen;
mod sketch;

use std::collections::{BTreeMap, BTreeSet};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use self::{
    finding::Finding,
    rules::{Circumstances, Looks, RULES},
    seen::{Group, Groups, group::Key},
};
use crate::track::record::{
    Connection, ConnectionId, Exchange, Lookup, LookupWay, Loss, Nanos, Record, Role, Throttling, WallTime,
};

/// The most groups unless told otherwise. A group is some 200 kB at most, where every duration has spread over its whole range, and mostly
/// a tenth of that.
const MOST_GROUPS: usize = 512;
/// How often groups are looked at while a trace goes on, by the records' time.
const LOOK_EVERY: Nanos = 1_000_000_000;
/// A finding is told again when there is so many times as much of it.
const GROWN: u64 = 10;
/// Connections whose group takes no key to find.
const RECENT: usize = 256;
/// The most cgroups with a quota.
const MOST_CGROUPS: usize = 512;
/// The most causes of losses that caveats name.
const MOST_LOSSES: usize = 16;

/// When findings are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Each as soon as it holds, and again when it has grown tenfold.
    AtOnce,
    /// All at the end, the dearest first.
    AtTheEnd,
}

/// Reads records, and tells what is wrong.
pub struct Findings {
    when: When,
    began_at: Option<WallTime>,
    now: WallTime,
    groups: Groups,
    /// The groups of the latest connections, by the last digits of the socket's number: a key takes longer to make than all else.
    recent: Vec<Option<(ConnectionId, usize)>>,
    /// Groups that were heard of since they were last looked at.
    changed: BTreeSet<usize>,
    looked_at: WallTime,
    losses: Vec<(String, u64)>,
    /// The latest of each cgroup, by its number.
    throttling: BTreeMap<u64, Throttling>,
    /// How much of each there was when it was told.
    told: HashMap<(&'static str, usize), u64, RandomState>,
    /// Records that are kept together with those of other destinations.
    together: u64,
    /// Exchanges were not looked at for a while.
    was_lowered: bool,
}

impl Findings {
    /// Findings of a trace that began then.
    pub fn new(when: When, began_at: Option<WallTime>) -> Self {
        let now = began_at.unwrap_or(WallTime(0));
        Self {
            when,
            began_at,
            now,
            groups: Groups::new(MOST_GROUPS),
            recent: vec![None; RECENT],
            changed: BTreeSet::new(),
            looked_at: now,
            losses: Vec::new(),
            throttling: BTreeMap::new(),
            told: HashMap::default(),
            together: 0,
            was_lowered: false,
        }
    }

    /// The same with another bound on the groups.
    #[must_use]
    pub fn with_most_groups(self, most_groups: usize) -> Self {
        Self { groups: Groups::new(most_groups), ..self }
    }

    /// The names of all rules.
    pub fn rules() -> impl Iterator<Item = &'static str> {
        RULES.iter().map(|(name, ..)| *name)
    }

    /// What was not looked at by destination, for the summary.
    pub fn remark(&self) -> Option<String> {
        let of = "process names and destinations beyond the first";
        let own = self.groups.most_own();
        (self.together > 0)
            .then(|| format!("findings take {} records of {of} {own} together, as destination `other`", self.together))
    }

    /// How many were told.
    pub fn count(&self) -> usize {
        self.told.len()
    }

    /// Takes in a record; findings that follow from it come before what follows the record.
    pub fn observe(&mut self, record: &Record, tell: &mut impl FnMut(Finding)) {
        match record {
            Record::Open(connection) => self.pass(connection.opened_at),
            Record::Connection(connection) => self.connection(connection),
            Record::Exchange(exchange) => self.exchange(exchange),
            Record::Lookup(lookup) => self.lookup(lookup),
            Record::Throttling(throttling) => {
                self.pass(Some(throttling.at));
                if self.throttling.len() < MOST_CGROUPS || self.throttling.contains_key(&throttling.cgroup) {
                    self.throttling.insert(throttling.cgroup, *throttling);
                }
            }
            Record::Loss(loss) => {
                self.pass(Some(loss.at));
                if loss.place != Loss::OUTPUT {
                    self.lose(format!("{} in the {}", loss.cause, loss.place), loss.count);
                }
            }
            Record::Detail(change) => {
                self.pass(Some(change.at));
                self.was_lowered |= change.lowered;
            }
            Record::Summary(summary) => {
                self.began_at = Some(summary.began_at);
                self.pass(Some(summary.stopped_at));
                self.conclude(tell);
            }
        }
        self.look_if_due(tell);
    }

    /// Takes in that it is so late by now, though there may be no record to tell it.
    pub fn pass_to(&mut self, now: WallTime, tell: &mut impl FnMut(Finding)) {
        if !self.changed.is_empty() {
            self.pass(Some(now));
            self.look_if_due(tell);
        }
    }

    fn look_if_due(&mut self, tell: &mut impl FnMut(Finding)) {
        if self.when == When::AtOnce && self.now.0.saturating_sub(self.looked_at.0) >= LOOK_EVERY {
            self.look(tell);
        }
    }

    fn pass(&mut self, at: Option<WallTime>) {
        self.now = self.now.max(at.unwrap_or(self.now));
    }

    fn connection(&mut self, connection: &Connection) {
        self.pass(connection.closed_at.or(connection.opened_at));
        if let Some(group) = self.group_of(connection.id, || Key::of_connection(connection)) {
            group.add_connection(connection);
        }
        self.recent[recent(connection.id)] = None;
        if connection.role == Some(Role::Client) {
            let place = self.groups.place(Key::of_connect(connection));
            if let Some(group) = self.group_in(place) {
                group.connects.add(connection);
            }
        }
    }

    fn exchange(&mut self, exchange: &Exchange) {
        self.pass(exchange.began_at);
        if let Some(group) = self.group_of(exchange.connection, || Key::of_exchange(exchange)) {
            group.add_exchange(exchange);
        }
    }

    fn lookup(&mut self, lookup: &Lookup) {
        self.pass(Some(lookup.asked_at));
        let destination = match lookup.way {
            LookupWay::Port53 { server, .. } => format!("dns {server}"),
            LookupWay::GetAddrInfo => "getaddrinfo".into(),
        };
        let key = Key { comm: lookup.process.comm.clone(), role: None, destination };
        let place = self.groups.place(key);
        self.count_together(place);
        if let Some(group) = self.group_in(place) {
            group.lookups.add(lookup);
        }
    }

    fn lose(&mut self, what: String, count: u64) {
        if let Some((_, sum)) = self.losses.iter_mut().find(|(known, _)| *known == what) {
            *sum = sum.saturating_add(count);
        } else if self.losses.len() < MOST_LOSSES {
            self.losses.push((what, count));
        }
    }

    /// The group of a connection, which has changed now.
    fn group_of(&mut self, id: ConnectionId, key: impl FnOnce() -> Key) -> Option<&mut Group> {
        let place = match self.recent[recent(id)] {
            Some((of, place)) if of == id => place,
            _ => {
                let place = self.groups.place(key());
                self.recent[recent(id)] = Some((id, place));
                place
            }
        };
        self.count_together(place);
        self.group_in(place)
    }

    /// The group in a place, which has changed now.
    fn group_in(&mut self, place: usize) -> Option<&mut Group> {
        self.changed.insert(place);
        self.groups.get_mut(place)
    }

    fn count_together(&mut self, place: usize) {
        self.together += u64::from(self.groups.is_other(place));
    }

    /// Looks at the groups that have changed.
    fn look(&mut self, tell: &mut impl FnMut(Finding)) {
        self.looked_at = self.now;
        for place in std::mem::take(&mut self.changed) {
            for finding in self.judge(place) {
                let told = self.told.entry((finding.rule, place)).or_insert(0);
                if *told == 0 || finding.weight() >= told.saturating_mul(GROWN) {
                    *told = finding.weight().max(1);
                    tell(finding);
                }
            }
        }
    }

    /// Tells what is left to tell.
    fn conclude(&mut self, tell: &mut impl FnMut(Finding)) {
        self.groups.iter_mut().for_each(|group| group.stale.conclude());
        if self.when == When::AtOnce {
            self.changed = (0..self.groups.len()).collect();
            return self.look(tell);
        }
        let all = |place| self.judge(place).into_iter().map(move |finding| (place, finding));
        let mut findings: Vec<_> = (0..self.groups.len()).flat_map(all).collect();
        findings.sort_by(|(_, a), (_, b)| {
            let by_name = || (a.rule, &a.comm, &a.destination).cmp(&(b.rule, &b.comm, &b.destination));
            (b.severity, b.cost).cmp(&(a.severity, a.cost)).then_with(by_name)
        });
        self.told.extend(findings.iter().map(|(place, finding)| ((finding.rule, *place), finding.weight())));
        findings.into_iter().for_each(|(_, finding)| tell(finding));
    }

    /// What every rule that may says of a group.
    fn judge(&self, place: usize) -> Vec<Finding> {
        let Some((key, group)) = self.groups.get(place) else { return Vec::new() };
        let lost = self.losses.iter().map(|(what, count)| format!("{count} events were lost: {what}"));
        let unseen = self.was_lowered.then(|| "exchanges were not looked at for a while: --max-overhead".to_owned());
        let losses: Vec<_> = lost.chain(unseen).collect();
        let observed = self.began_at.map_or(0, |began| self.now.0.saturating_sub(began.0));
        let circumstances =
            Circumstances { key, now: self.now, observed, losses: &losses, throttling: &self.throttling };
        let may = |looks: Looks| !key.is_other() || looks == Looks::AtEach;
        RULES.iter().filter(|(_, looks, _)| may(*looks)).filter_map(|(.., rule)| rule(group, &circumstances)).collect()
    }
}

/// Where a connection's group is kept.
fn recent(id: ConnectionId) -> usize {
    id.socket as usize % RECENT
}
