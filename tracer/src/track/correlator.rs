//! Events in, records out.

use std::net::SocketAddr;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use tracer_ebpf::{ProcessRecord, SocketRecord, flag, kind, role};

use super::{
    clock::Clock,
    connection::{Live, Relation},
    dns::{Finished, Lookups},
    losses::Losses,
    process::Processes,
    record::{Hook, Lookup, Loss, Record},
    report::{self, Occasion},
    summary::Totals,
    table::Table,
};
use crate::stage::{
    dns::DnsMessage,
    event::{EventRef, OpenSocket, UserEvent},
};

/// The most hooks and remarks kept for the summary; a recording could hold any number.
const MAX_HOOKS: usize = 256;
const MAX_REMARKS: usize = 64;
/// The most network namespaces whose survey is believed; a recording could name any number.
const MAX_NAMESPACES: usize = 65_536;

/// How much the correlator may remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, about 300 bytes each. Beyond, the oldest is dropped and counted as a loss.
    pub max_connections: usize,
    /// Processes. Beyond, those unused for longest are forgotten.
    pub max_processes: usize,
    /// Groups of the summary. Connections of further groups are counted in one, `other`.
    pub max_groups: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_connections: 262_144, max_processes: 32_768, max_groups: 1_024 }
    }
}

/// Turns the event stream into records: each connection once, and one summary at the end.
pub struct Correlator {
    clock: Clock,
    table: Table,
    processes: Processes,
    lookups: Lookups,
    totals: Totals,
    losses: Losses,
    hooks: Vec<Hook>,
    remarks: Vec<String>,
    /// Dropped for want of room since that was last put out as a loss.
    dropped: u64,
    /// Live connections by their ends, made when the sockets' present states come in as the trace stops.
    by_ends: Option<HashMap<Ends, u64, RandomState>>,
    /// Connections that were shown as the trace stops, and the namespaces of which all were.
    shown: HashSet<u64, RandomState>,
    surveyed: Vec<u32>,
    /// Whether releases are seen; without, a connection's life ends with TCP.
    sees_releases: bool,
    /// The latest boot-clock time that an event bore.
    latest_at: u64,
    stopped: bool,
}

/// Network namespace (0 if unknown), local and remote end.
type Ends = (u32, SocketAddr, SocketAddr);

impl Correlator {
    /// A correlator that has seen nothing yet.
    pub fn new(clock: Clock, limits: Limits) -> Self {
        Self {
            clock,
            table: Table::new(limits.max_connections),
            processes: Processes::new(limits.max_processes),
            lookups: Lookups::default(),
            totals: Totals::new(limits.max_groups),
            losses: Losses::default(),
            hooks: Vec::new(),
            remarks: Vec::new(),
            dropped: 0,
            by_ends: None,
            shown: HashSet::default(),
            surveyed: Vec::new(),
            sees_releases: true,
            latest_at: clock.began_at,
            stopped: false,
        }
    }

    /// Takes in one event and puts out the records that follow from it. After the stop nothing follows any more.
    pub fn apply<'e>(&mut self, event: impl Into<EventRef<'e>>, emit: &mut impl FnMut(&Record)) {
        if self.stopped {
            return;
        }
        match event.into() {
            EventRef::Socket(record) => self.socket(record, emit),
            EventRef::Process(record) => self.process(record),
            EventRef::User(event) => self.user(event, emit),
        }
    }

    /// Stops at the latest time seen, if no stop came: a recording may have been cut short.
    pub fn finish(&mut self, emit: &mut impl FnMut(&Record)) {
        if !self.stopped {
            self.stop(self.latest_at, emit);
        }
    }

    /// Adds a remark on the input to the summary.
    pub fn remark(&mut self, remark: String) {
        if self.remarks.len() < MAX_REMARKS {
            self.remarks.push(remark);
        }
    }

    /// Number of connections that are not reported yet.
    pub fn live(&self) -> usize {
        self.table.len()
    }

    fn socket(&mut self, record: &SocketRecord, emit: &mut impl FnMut(&Record)) {
        self.saw(record.at);
        if self.lookups.waits() {
            self.give_up_lookups(emit);
        }
        let life = match self.table.known(record.id) {
            Some(mut known) => match known.live().relation(record) {
                Relation::Same => {
                    let live = known.live();
                    if live.merge(record) {
                        live.process = self.processes.owner(&live.record);
                    }
                    announce(live, record.kind, self.clock, emit);
                    if live.is_complete(self.sees_releases) {
                        put_out(live, Occasion::Complete, self.clock, &mut self.totals, emit);
                        if let Some(by_ends) = &mut self.by_ends {
                            by_ends.remove(&ends(live));
                        }
                        known.forget();
                    }
                    return;
                }
                Relation::Later => {
                    let life = known.live().life.saturating_add(1);
                    self.report(record.id, Occasion::Superseded, emit);
                    Some(life)
                }
                Relation::Earlier => None,
            },
            None => self.table.next_life(record),
        };
        if let Some(life) = life {
            self.begin(record, life, emit);
        }
    }

    /// Takes in the first record of a connection.
    fn begin(&mut self, record: &SocketRecord, life: u32, emit: &mut impl FnMut(&Record)) {
        let mut live = Live::new(record, self.processes.owner(record), life);
        if record.role == role::CLIENT && record.opened_at != 0 && record.flags & flag::PREEXISTING == 0 {
            let process = (record.opener_tgid, record.process_started_at);
            let pays = record.flags & flag::NO_SYN == 0;
            live.looked_up = self.lookups.connected(process, live.remote().ip(), record.opened_at, pays).map(Box::new);
        }
        announce(&mut live, record.kind, self.clock, emit);
        if live.is_complete(self.sees_releases) {
            self.table.remember(&live);
            put_out(&live, Occasion::Complete, self.clock, &mut self.totals, emit);
        } else {
            self.insert(live, emit);
        }
    }

    fn process(&mut self, record: &ProcessRecord) {
        self.saw(record.at);
        self.processes.change(record);
    }

    fn user(&mut self, event: &UserEvent, emit: &mut impl FnMut(&Record)) {
        match event {
            UserEvent::Identity(identity) => self.processes.identify(identity),
            UserEvent::Dns(message) => self.dns(message, emit),
            UserEvent::Adopted(socket) => self.adopt(socket, emit),
            UserEvent::Present(socket) => self.see_present(socket),
            UserEvent::Lost { at, place, cause, count } => {
                self.saw(*at);
                self.report_dropped(*at, emit);
                self.lose(*at, place, cause, *count, emit);
            }
            UserEvent::Surveyed { netns } => self.surveyed = netns.iter().take(MAX_NAMESPACES).copied().collect(),
            UserEvent::Hooks(hooks) => {
                let is_release = |hook: &&Hook| hook.name == "tcp_close";
                self.sees_releases = hooks.iter().find(is_release).is_none_or(|hook| hook.backend.is_some());
                self.hooks = hooks.iter().take(MAX_HOOKS).cloned().collect();
            }
            UserEvent::Stop { at } => self.stop(*at, emit),
        }
    }

    fn dns(&mut self, message: &DnsMessage, emit: &mut impl FnMut(&Record)) {
        self.saw(message.at);
        if let Some(finished) = self.lookups.message(message) {
            self.report_lookup(finished, emit);
        }
        self.give_up_lookups(emit);
    }

    /// Reports lookups that have waited for too long.
    fn give_up_lookups(&mut self, emit: &mut impl FnMut(&Record)) {
        while let Some(finished) = self.lookups.expired(self.latest_at) {
            self.report_lookup(finished, emit);
        }
    }

    fn report_lookup(&mut self, finished: Finished, emit: &mut impl FnMut(&Record)) {
        let Finished { query, answer, retries } = finished;
        let (answered_at, answer) = answer.unzip();
        let lookup = Lookup {
            process: self.processes.named(query.pid, query.process_started_at, &query.comm),
            tid: query.tid,
            netns: (query.netns != 0).then_some(query.netns),
            server: query.server,
            tcp: query.tcp,
            name: query.name,
            record_type: query.record_type,
            asked_at: self.clock.wall_of(query.at),
            latency: answered_at.map(|at| at.saturating_sub(query.at)),
            rcode: answer.as_ref().map(|answer| answer.rcode.clone()),
            answers: answer.map(|answer| answer.addresses).unwrap_or_default(),
            retries,
        };
        emit(&Record::Lookup(lookup));
    }

    /// Takes in a socket that was open before the trace, unless its events came first.
    fn adopt(&mut self, socket: &OpenSocket, emit: &mut impl FnMut(&Record)) {
        self.saw(socket.at);
        if self.table.was_reported(socket.cookie) {
            return;
        }
        let process = self.processes.find(socket.pid, socket.process_started_at);
        if let Some(live) = self.table.get(socket.cookie) {
            if live.record.flags & flag::PREEXISTING != 0 {
                live.complement(socket, process);
            }
            return;
        }
        let mut live = Live::adopted(socket, process);
        live.announced = true;
        emit(&Record::Open(report::opening(&live, self.clock)));
        self.insert(live, emit);
    }

    /// Takes in how an open socket stands as the trace stops. Without cookies its number says nothing, so its ends do.
    fn see_present(&mut self, socket: &OpenSocket) {
        self.saw(socket.at);
        let by_ends =
            self.by_ends.get_or_insert_with(|| self.table.iter().map(|live| (ends(live), live.record.id)).collect());
        let id = [socket.netns, 0].into_iter().find_map(|netns| by_ends.get(&(netns, socket.local, socket.remote)));
        if let Some(live) = id.and_then(|id| self.table.get(*id))
            && live.record.ended_at == 0
        {
            live.see_present(socket);
            self.shown.insert(live.record.id);
        }
    }

    fn stop(&mut self, at: u64, emit: &mut impl FnMut(&Record)) {
        self.stopped = true;
        self.by_ends = None;
        self.report_dropped(at, emit);
        while let Some(finished) = self.lookups.next_unanswered() {
            self.report_lookup(finished, emit);
        }
        let unasked = self.lookups.take_unasked();
        if unasked > 0 {
            self.lose(at, "user", "dns_unasked", unasked, emit);
        }
        let surveyed: HashSet<u32, RandomState> = std::mem::take(&mut self.surveyed).into_iter().collect();
        let shown = std::mem::take(&mut self.shown);
        let mut unseen_ends = 0;
        while let Some(live) = self.table.take_oldest() {
            let gone =
                live.record.ended_at == 0 && surveyed.contains(&live.record.netns) && !shown.contains(&live.record.id);
            unseen_ends += u64::from(gone);
            let occasion = if gone { Occasion::Gone } else { Occasion::Stopped(at) };
            put_out(&live, occasion, self.clock, &mut self.totals, emit);
        }
        if unseen_ends > 0 {
            self.lose(at, "kernel", "end_unseen", unseen_ends, emit);
        }
        let totals = std::mem::replace(&mut self.totals, Totals::new(0));
        let mut summary = totals.into_summary(self.clock.wall_of(self.clock.began_at), self.clock.wall_of(at));
        summary.hooks = std::mem::take(&mut self.hooks);
        summary.losses = std::mem::take(&mut self.losses).into_totals();
        summary.remarks = std::mem::take(&mut self.remarks);
        emit(&Record::Summary(Box::new(summary)));
    }

    fn insert(&mut self, live: Live, emit: &mut impl FnMut(&Record)) {
        if let Some(by_ends) = &mut self.by_ends {
            by_ends.insert(ends(&live), live.record.id);
        }
        if let Some(evicted) = self.table.insert(live) {
            self.forget_ends(&evicted);
            self.dropped = self.dropped.saturating_add(1);
            // Said at once when it begins, and with the next losses while it goes on.
            if self.dropped == 1 && !self.losses.has("user", "table_full") {
                self.report_dropped(self.latest_at, emit);
            }
        }
    }

    fn report(&mut self, id: u64, occasion: Occasion, emit: &mut impl FnMut(&Record)) {
        if let Some(live) = self.table.take(id) {
            self.forget_ends(&live);
            put_out(&live, occasion, self.clock, &mut self.totals, emit);
        }
    }

    fn forget_ends(&mut self, live: &Live) {
        if let Some(by_ends) = &mut self.by_ends {
            by_ends.remove(&ends(live));
        }
    }

    fn report_dropped(&mut self, at: u64, emit: &mut impl FnMut(&Record)) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            self.lose(at, "user", "table_full", dropped, emit);
        }
    }

    fn lose(&mut self, at: u64, place: &str, cause: &str, count: u64, emit: &mut impl FnMut(&Record)) {
        let loss = Loss { at: self.clock.wall_of(at), place: place.into(), cause: cause.into(), count };
        self.losses.add(&loss);
        emit(&Record::Loss(loss));
    }

    fn saw(&mut self, at: u64) {
        self.latest_at = self.latest_at.max(at);
    }
}

/// Puts out the `open` record, once.
fn announce(live: &mut Live, kind: u32, clock: Clock, emit: &mut impl FnMut(&Record)) {
    if kind == kind::OPENED && !live.announced {
        live.announced = true;
        emit(&Record::Open(report::opening(live, clock)));
    }
}

/// Puts out the `connection` record.
fn put_out(live: &Live, occasion: Occasion, clock: Clock, totals: &mut Totals, emit: &mut impl FnMut(&Record)) {
    let record = Record::Connection(report::connection(live, occasion, clock));
    if let Record::Connection(connection) = &record {
        totals.add(connection);
    }
    emit(&record);
}

fn ends(live: &Live) -> Ends {
    (live.record.netns, live.local(), live.remote())
}
