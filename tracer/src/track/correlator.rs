//! Events in, records out.

use std::{net::SocketAddr, rc::Rc};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use tracer_ebpf::{
    DetailedRecord, ExchangeRecord, ProcessRecord, SocketRecord, TlsRecord, exchange::Exchanges, flag, kind, role,
};

use super::{
    clock::Clock,
    close::Verdict,
    connection::{Live, Relation},
    dns::{Finished, Lookups},
    early::{Early, Waiting},
    exchange::{Counted, Turn, Turned},
    http::Heads,
    losses::Losses,
    lowered::Lowered,
    process::Processes,
    record::{DetailChange, Hello, Hook, HttpHead, Lookup, LookupWay, Loss, Record, Throttling, WallTime},
    report::{self, Occasion, Standing, Together},
    shared::Shared,
    summary::Totals,
    table::Table,
    tls,
};
use crate::stage::{
    dns::DnsMessage,
    event::{EventRef, OpenSocket, UserEvent},
    getaddrinfo::Resolved,
};

/// The most hooks and remarks kept for the summary; a recording could hold any number.
const MAX_HOOKS: usize = 256;
const MAX_REMARKS: usize = 64;
/// When memory is full, one in so many of what takes it is forgotten at a time.
const SHARE_TO_FORGET: usize = 8;
/// The most network namespaces whose survey is believed; a recording could name any number.
const MAX_NAMESPACES: usize = 65_536;

/// How much the correlator may remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, about 300 bytes each, 400 in detail `exchanges`. Beyond, the oldest is dropped and counted as a loss.
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

/// Where records go, borrowed from some members of the correlator only.
macro_rules! out {
    ($correlator:ident, $emit:expr) => {
        Out {
            clock: $correlator.clock,
            totals: &mut $correlator.totals,
            exchanges: $correlator.puts_out_exchanges,
            lowered: &$correlator.lowered,
            half_seen: &mut $correlator.half_seen,
            now: $correlator.latest_at,
            emit: $emit,
        }
    };
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
    /// When exchanges were not looked at.
    lowered: Lowered,
    /// Exchanges that may have gone on then, since that was last put out as a loss.
    half_seen: u64,
    /// Live connections by their ends, made when the sockets' present states come in as the trace stops.
    by_ends: Option<HashMap<Ends, u64, RandomState>>,
    /// Connections that were shown as the trace stops, and the namespaces of which all were.
    shown: HashSet<u64, RandomState>,
    surveyed: Vec<u32>,
    /// Events of connections that are not known yet.
    waiting: Waiting,
    /// Whether anybody wants the records of exchanges.
    puts_out_exchanges: bool,
    /// What the TLS of many connections has in common.
    shared: tls::Shared,
    /// The same of HTTP heads.
    heads: Shared<Heads>,
    /// Whether the trace has detail `exchanges`.
    sees_exchanges: bool,
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
            lowered: Lowered::default(),
            half_seen: 0,
            by_ends: None,
            shown: HashSet::default(),
            surveyed: Vec::new(),
            waiting: Waiting::default(),
            puts_out_exchanges: true,
            shared: tls::Shared::default(),
            heads: Shared::default(),
            sees_exchanges: false,
            sees_releases: true,
            latest_at: clock.began_at,
            stopped: false,
        }
    }

    /// Whether each exchange is to be put out, or only counted.
    pub fn put_out_exchanges(&mut self, puts_out: bool) {
        self.puts_out_exchanges = puts_out;
    }

    /// Takes in one event and puts out the records that follow from it. After the stop nothing follows any more.
    #[inline(always)]
    pub fn apply<'e>(&mut self, event: impl Into<EventRef<'e>>, emit: &mut impl FnMut(&Record)) {
        if self.stopped {
            return;
        }
        match event.into() {
            EventRef::Socket(record) => self.socket::<false>(record, None, emit),
            EventRef::Detailed(record) => self.detailed(record, emit),
            EventRef::Exchange(record) => self.exchange(record, emit),
            EventRef::Tls(record) => self.tls(record),
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

    /// A time of the boot clock as the records bear it.
    pub fn wall(&self, at: u64) -> WallTime {
        self.clock.wall_of(at)
    }

    /// Most processes that are remembered.
    pub fn max_processes(&self) -> usize {
        self.processes.max()
    }

    /// Number of connections that are not reported yet.
    pub fn live(&self) -> usize {
        self.table.len()
    }

    /// Forgets part of what is remembered, the oldest first, because it takes more memory than is allowed. What is lost by that is
    /// told and counted. Returns whether there was anything to forget.
    pub fn make_room(&mut self, emit: &mut impl FnMut(&Record)) -> bool {
        let forgotten = self.table.len().div_ceil(SHARE_TO_FORGET);
        for _ in 0..forgotten {
            if let Some(oldest) = self.table.take_oldest() {
                self.forget_ends(&oldest);
            }
        }
        if forgotten > 0 {
            self.lose(self.latest_at, "user", "memory_full", forgotten as u64, emit);
        }
        self.processes.forget_oldest(SHARE_TO_FORGET) || forgotten > 0
    }

    /// Takes in what the kernel says of a connection's life in detail `exchanges`.
    #[inline(never)]
    fn detailed(&mut self, record: &DetailedRecord, emit: &mut impl FnMut(&Record)) {
        self.sees_exchanges = true;
        self.socket::<true>(&record.socket, Some(record), emit);
    }

    /// Takes in what the kernel says of a connection's life. What there is `more` of it comes in detail `exchanges`: a path
    /// of its own, so that the other does not pay for it.
    #[inline(always)]
    fn socket<const DETAILED: bool>(
        &mut self,
        record: &SocketRecord,
        more: Option<&DetailedRecord>,
        emit: &mut impl FnMut(&Record),
    ) {
        let more = if DETAILED { more } else { None };
        self.saw(record.at);
        if self.lookups.waits() {
            self.give_up_lookups(emit);
        }
        let life = match self.table.known(record.id) {
            Some(mut known) => match known.live().relation(record) {
                Relation::Same => {
                    let live = known.live();
                    if live.merge(record) {
                        live.belong_to(self.processes.owner(&live.record));
                    }
                    announce(live, record.kind, self.clock, emit);
                    let mut out = out!(self, emit);
                    if let Some(more) = more {
                        let turned = live.see_detail(more, &mut self.shared);
                        out.turned(live, turned);
                    }
                    if live.is_complete(self.sees_releases) {
                        let exchanges = DETAILED.then(|| more.map(|more| &more.exchanges));
                        out.connection(live, exchanges, Occasion::Complete);
                        if let Some(by_ends) = &mut self.by_ends {
                            by_ends.remove(&ends(live));
                        }
                        known.forget();
                    } else if let Some(more) = more {
                        live.keep(&more.exchanges);
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
            self.begin::<DETAILED>(record, more, life, emit);
        }
    }

    /// Takes in the first record of a connection.
    #[inline(never)]
    fn begin<const DETAILED: bool>(
        &mut self,
        record: &SocketRecord,
        more: Option<&DetailedRecord>,
        life: u32,
        emit: &mut impl FnMut(&Record),
    ) {
        let more = if DETAILED { more } else { None };
        let mut live = Live::new(record, self.processes.owner(record), life);
        if record.role == role::CLIENT && record.opened_at != 0 && record.flags & flag::PREEXISTING == 0 {
            let process = (record.opener_tgid, record.process_started_at);
            let pays = record.flags & flag::NO_SYN == 0;
            live.looked_up = self.lookups.connected(process, live.remote().ip(), record.opened_at, pays).map(Rc::new);
        }
        announce(&mut live, record.kind, self.clock, emit);
        if DETAILED && !self.waiting.is_empty() {
            self.see_early(&mut live, emit);
        }
        let mut out = out!(self, emit);
        if let Some(more) = more {
            let turned = live.see_detail(more, &mut self.shared);
            out.turned(&mut live, turned);
        }
        if live.is_complete(self.sees_releases) {
            self.table.remember(&live);
            let exchanges = DETAILED.then(|| more.map(|more| &more.exchanges));
            out.connection(&mut live, exchanges, Occasion::Complete);
        } else {
            if let Some(more) = more {
                live.keep(&more.exchanges);
            }
            self.insert(live, emit);
        }
    }

    /// Takes in that an exchange was answered.
    #[inline(never)]
    fn exchange(&mut self, record: &ExchangeRecord, emit: &mut impl FnMut(&Record)) {
        self.saw(record.at);
        self.sees_exchanges = true;
        match self.table.get(record.id) {
            Some(live) if record.at >= live.record.opened_at => {
                let turn = &mut live.detail().turn;
                // One path for each, as nearly all events take one of them.
                if !self.lowered.is_never() {
                    let turned = turn.answered(record, Turn::turned);
                    out!(self, emit).turned(live, turned);
                } else if !self.puts_out_exchanges {
                    if let Some(counted) = turn.answered(record, |turn, _| turn.counted()) {
                        self.totals.add_exchange(live, counted);
                    }
                } else if let Some(turned) = turn.answered(record, Turn::turned) {
                    self.totals.add_exchange(live, turned.counted());
                    emit(&Record::Exchange(report::exchange(live, &turned, Standing::Over, self.clock)));
                }
            }
            other => {
                let may_come = other.is_none();
                if !self.table.has_told(record) {
                    self.wait(record.id, may_come, || Early::Exchange(*record));
                }
            }
        }
    }

    /// Takes in that a handshake ended.
    #[inline(never)]
    fn tls(&mut self, record: &TlsRecord) {
        self.saw(record.at);
        self.sees_exchanges = true;
        match self.table.get(record.id) {
            Some(live) if record.at >= live.record.opened_at => {
                live.detail().tls.see_handshake(&record.handshake, &mut self.shared);
            }
            other => {
                let may_come = other.is_none();
                self.wait(record.id, may_come, || Early::Tls(*record));
            }
        }
    }

    /// Takes in what the hellos of a handshake say.
    fn hello(&mut self, at: u64, id: u64, hello: &Rc<Hello>) {
        self.saw(at);
        self.sees_exchanges = true;
        match self.table.get(id) {
            Some(live) if at >= live.record.opened_at => live.detail().tls.see_hello(hello, &mut self.shared),
            other => {
                let may_come = other.is_none();
                self.wait(id, may_come, || Early::Hello(Rc::clone(hello)));
            }
        }
    }

    /// Takes in what an HTTP head says. Only the records of exchanges tell it.
    fn http(&mut self, at: u64, id: u64, index: Option<u32>, sent: bool, head: &Rc<HttpHead>) {
        self.saw(at);
        self.sees_exchanges = true;
        if !self.puts_out_exchanges {
            return;
        }
        match self.table.get(id) {
            Some(live) if at >= live.record.opened_at => {
                if !live.see_head(at, index, sent, head, &mut self.heads) {
                    self.waiting.lose(1);
                }
            }
            other => {
                let may_come = other.is_none();
                self.wait(id, may_come, || Early::Http(at, index, sent, Rc::clone(head)));
            }
        }
    }

    /// Takes in which TLS library works on a connection.
    fn library(&mut self, at: u64, id: u64, library: Option<&Rc<str>>) {
        self.saw(at);
        match self.table.get(id) {
            Some(live) if at >= live.record.opened_at => live.detail().tls.see_library(library, &mut self.shared),
            other => {
                let may_come = other.is_none();
                self.wait(id, may_come, || Early::Library(library.map(Rc::clone)));
            }
        }
    }

    /// Keeps an event of a connection that is not known, unless that was reported already.
    fn wait(&mut self, id: u64, may_come: bool, event: impl FnOnce() -> Early) {
        if may_come && !self.table.was_reported(id) {
            self.waiting.push(id, event());
        } else {
            self.waiting.lose(1);
        }
    }

    /// Takes in the events that came before their connection was known.
    #[inline(never)]
    fn see_early(&mut self, live: &mut Live, emit: &mut impl FnMut(&Record)) {
        let mut out = out!(self, emit);
        for event in self.waiting.take(live.record.id) {
            match event {
                Early::Exchange(record) => {
                    let turned = live.detail().turn.answered(&record, Turn::turned);
                    out.turned(live, turned);
                }
                Early::Tls(record) => live.detail().tls.see_handshake(&record.handshake, &mut self.shared),
                Early::Hello(hello) => live.detail().tls.see_hello(&hello, &mut self.shared),
                Early::Library(library) => live.detail().tls.see_library(library.as_ref(), &mut self.shared),
                Early::Http(at, index, sent, head) => {
                    if !live.see_head(at, index, sent, &head, &mut self.heads) {
                        self.waiting.lose(1);
                    }
                }
            }
        }
    }

    #[inline(never)]
    fn process(&mut self, record: &ProcessRecord) {
        self.saw(record.at);
        self.processes.change(record);
    }

    #[inline(never)]
    fn user(&mut self, event: &UserEvent, emit: &mut impl FnMut(&Record)) {
        match event {
            UserEvent::Identity(identity) => self.processes.identify(identity),
            UserEvent::Hello { at, id, hello } => self.hello(*at, *id, hello),
            UserEvent::Http { at, id, index, sent, head } => self.http(*at, *id, *index, *sent, head),
            UserEvent::Library { at, id, library } => self.library(*at, *id, library.as_ref()),
            UserEvent::Dns(message) => self.dns(message, emit),
            UserEvent::Resolved(call) => self.resolved(call, emit),
            &UserEvent::Throttled { at, cgroup, periods, throttled_periods, throttled } => {
                self.saw(at);
                let at = self.clock.wall_of(at);
                emit(&Record::Throttling(Throttling { at, cgroup, periods, throttled_periods, throttled }));
            }
            UserEvent::Adopted(socket) => self.adopt(socket, emit),
            UserEvent::Present(socket) => self.see_present(socket),
            UserEvent::Lost { at, place, cause, count } => {
                self.saw(*at);
                self.report_dropped(*at, emit);
                self.lose(*at, place, cause, *count, emit);
            }
            UserEvent::Detail { at, lowered, overhead } => {
                self.saw(*at);
                if *lowered {
                    self.lowered.begin(*at);
                    self.leave_half_seen();
                } else {
                    self.lowered.end(*at);
                }
                let (at, lowered, overhead) = (self.clock.wall_of(*at), *lowered, *overhead);
                emit(&Record::Detail(DetailChange { at, lowered, overhead }));
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

    /// Of what is under way as detail is lowered, nobody will see the end: neither of a handshake nor of a lookup.
    fn leave_half_seen(&mut self) {
        for live in self.table.iter_mut() {
            // One without a sign of TLS need not get room for it.
            if live.known_detail().is_some() {
                live.detail().tls.lose_track(&mut self.shared);
            }
        }
        self.half_seen = self.half_seen.saturating_add(self.lookups.forget_waiting());
    }

    fn dns(&mut self, message: &DnsMessage, emit: &mut impl FnMut(&Record)) {
        self.saw(message.at);
        if let Some(finished) = self.lookups.message(message) {
            self.report_lookup(finished, emit);
        }
        self.give_up_lookups(emit);
    }

    /// Takes in a call of `getaddrinfo`, and reports it unless its questions to servers are reported.
    fn resolved(&mut self, call: &Resolved, emit: &mut impl FnMut(&Record)) {
        self.saw(call.at);
        if self.lookups.resolved(call) {
            let lookup = Lookup {
                process: self.processes.named(call.pid, call.process_started_at, &call.comm),
                tid: call.tid,
                netns: None,
                way: LookupWay::GetAddrInfo,
                name: call.name.clone(),
                record_type: call.record_type.clone(),
                asked_at: self.clock.wall_of(call.began_at),
                latency: Some(call.at.saturating_sub(call.began_at)),
                rcode: Some(call.outcome.clone()),
                answers: call.addresses.clone(),
                retries: 0,
            };
            emit(&Record::Lookup(lookup));
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
            way: LookupWay::Port53 { server: query.server, tcp: query.tcp },
            name: query.name,
            record_type: Some(query.record_type),
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
        put_out_open(&mut live, self.clock, emit);
        self.see_early(&mut live, emit);
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
        self.waiting.give_up();
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
        while let Some(mut live) = self.table.take_oldest() {
            let gone =
                live.record.ended_at == 0 && surveyed.contains(&live.record.netns) && !shown.contains(&live.record.id);
            unseen_ends += u64::from(gone);
            let occasion = if gone { Occasion::Gone } else { Occasion::Stopped(at) };
            self.put_out(&mut live, occasion, emit);
        }
        if unseen_ends > 0 {
            self.lose(at, "kernel", "end_unseen", unseen_ends, emit);
        }
        self.report_dropped(at, emit);
        let totals = std::mem::replace(&mut self.totals, Totals::new(0));
        let mut summary = totals.into_summary(self.clock.wall_of(self.clock.began_at), self.clock.wall_of(at));
        summary.hooks = std::mem::take(&mut self.hooks);
        summary.losses = std::mem::take(&mut self.losses).into_totals();
        summary.remarks = std::mem::take(&mut self.remarks);
        emit(&Record::Summary(Box::new(summary)));
    }

    /// Inline, as [`Table::insert`] is.
    #[inline(always)]
    fn insert(&mut self, live: Live, emit: &mut impl FnMut(&Record)) {
        if let Some(by_ends) = &mut self.by_ends {
            by_ends.insert(ends(&live), live.record.id);
        }
        if let Some(evicted) = self.table.insert(live) {
            self.drop_oldest(&evicted, emit);
        }
    }

    #[inline(never)]
    fn drop_oldest(&mut self, evicted: &Live, emit: &mut impl FnMut(&Record)) {
        self.forget_ends(evicted);
        self.dropped = self.dropped.saturating_add(1);
        // Said at once when it begins, and with the next losses while it goes on.
        if self.dropped == 1 && !self.losses.has("user", "table_full") {
            self.report_dropped(self.latest_at, emit);
        }
    }

    fn report(&mut self, id: u64, occasion: Occasion, emit: &mut impl FnMut(&Record)) {
        if let Some(mut live) = self.table.take(id) {
            self.forget_ends(&live);
            self.put_out(&mut live, occasion, emit);
        }
    }

    /// Reports a connection of which no further event comes.
    fn put_out(&mut self, live: &mut Live, occasion: Occasion, emit: &mut impl FnMut(&Record)) {
        let exchanges = self.sees_exchanges.then_some(None);
        out!(self, emit).connection(live, exchanges, occasion);
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
        let half_seen = std::mem::take(&mut self.half_seen);
        if half_seen > 0 {
            self.lose(at, "user", "detail_lowered", half_seen, emit);
        }
        let unmatched = self.waiting.take_lost();
        if unmatched > 0 {
            self.lose(at, "user", "unmatched", unmatched, emit);
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

/// Puts out the `open` record, once. Inline, as most events have none.
#[inline(always)]
fn announce(live: &mut Live, kind: u32, clock: Clock, emit: &mut impl FnMut(&Record)) {
    if kind == kind::OPENED && !live.announced {
        put_out_open(live, clock, emit);
    }
}

#[inline(never)]
fn put_out_open(live: &mut Live, clock: Clock, emit: &mut impl FnMut(&Record)) {
    live.announced = true;
    emit(&Record::Open(report::opening(live, clock)));
}

/// Where records go: into the totals, and out.
struct Out<'c, E> {
    clock: Clock,
    totals: &'c mut Totals,
    /// Whether anybody wants the records of exchanges.
    exchanges: bool,
    lowered: &'c Lowered,
    half_seen: &'c mut u64,
    /// The latest time that an event bore.
    now: u64,
    emit: &'c mut E,
}

impl<E: FnMut(&Record)> Out<'_, E> {
    /// Puts out the `exchange` record of one that has ended, if one has.
    #[inline(always)]
    fn turned(&mut self, live: &mut Live, turned: Option<Turned>) {
        if let Some(turned) = turned {
            self.exchange(live, turned, Standing::Over);
        }
    }

    /// What is only to be counted is not put together: by value and inline, so that what nobody reads is not worked out.
    #[inline(always)]
    fn exchange(&mut self, live: &mut Live, turned: Turned, standing: Standing) {
        let Some(turned) = self.lowered.seen_of(turned, live.record.opened_at, self.now) else {
            *self.half_seen += 1;
            return;
        };
        let stale = turned.stale || standing == Standing::Dropped;
        self.totals.add_exchange(live, Counted { stale, ..turned.counted() });
        if self.exchanges {
            self.put_out(live, turned, standing);
        }
    }

    #[inline(never)]
    fn put_out(&mut self, live: &Live, turned: Turned, standing: Standing) {
        (self.emit)(&Record::Exchange(report::exchange(live, &turned, standing, self.clock)));
    }

    /// Puts out the `connection` record; in detail `exchanges` the last exchanges before it. What the last event said of
    /// these comes with it.
    #[inline(always)]
    fn connection(&mut self, live: &mut Live, exchanges: Option<Option<&Exchanges>>, occasion: Occasion) {
        let verdict = report::verdict(live, occasion);
        let mut together = exchanges.map(|last| self.last_exchanges(live, last, occasion, verdict));
        if let Some(together) = &mut together
            && self.lowered.overlaps(live.record.opened_at, self.now)
        {
            together.forget_what_was_not_seen();
        }
        // Filled in where it is: it is long.
        let mut record = Record::Connection(report::opening(live, self.clock));
        if let Record::Connection(connection) = &mut record {
            report::complete(connection, live, verdict, together, occasion, self.clock);
            self.totals.add(connection);
        }
        (self.emit)(&record);
    }

    /// Puts out what is left to tell of a connection's exchanges.
    #[inline(never)]
    fn last_exchanges(
        &mut self,
        live: &mut Live,
        last: Option<&Exchanges>,
        occasion: Occasion,
        verdict: Option<Verdict>,
    ) -> Together {
        let last = report::last_exchanges(live, live.latest(last), occasion, verdict, self.clock);
        for (turned, standing) in last.exchanges.into_iter().flatten() {
            self.exchange(live, turned, standing);
        }
        last.together
    }
}

fn ends(live: &Live) -> Ends {
    (live.record.netns, live.local(), live.remote())
}
