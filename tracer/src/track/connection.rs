//! One live connection: what its events have told so far.

use std::{net::IpAddr, net::SocketAddr, rc::Rc};

use tracer_ebpf::{Address, DetailedRecord, SocketRecord, exchange::Exchanges, flag, role, tcp_state};
use zerocopy::FromZeros;

use super::{
    exchange::{Turn, Turned},
    http::{Heads, Http},
    record::{HttpHead, LookedUp, Nanos, Process},
    shared::Shared,
    summary::Place,
    tls::{self, Tls},
};
use crate::stage::event::OpenSocket;

/// A connection that has not been reported yet. Every open connection of a node has one, so it is kept small.
pub(super) struct Live {
    /// All that its events have told, merged.
    pub record: SocketRecord,
    /// Its owner as it was last known.
    pub process: Rc<Process>,
    /// The DNS lookup that led to it.
    pub looked_up: Option<Rc<LookedUp>>,
    /// Its exchanges and TLS, from the first sign of either.
    detail: Option<Box<Detail>>,
    /// What few connections have.
    rare: Option<Box<Rare>>,
    /// Which of its socket's connections it is.
    pub life: u32,
    /// Its `open` record was put out.
    pub announced: bool,
}

/// What detail `exchanges` tells of a connection while it is open.
#[derive(Default)]
pub(super) struct Detail {
    /// The present exchange.
    pub turn: Turn,
    /// Its TLS.
    pub tls: Tls,
    /// Its HTTP heads.
    pub http: Http,
}

/// What only adopted connections have, and those whose end has begun.
#[derive(Default)]
struct Rare {
    /// When sock_diag showed it, boot-clock nanoseconds; 0 if it was not open before the trace.
    adopted_at: u64,
    present: Option<Present>,
    /// How its exchanges stood at its last event.
    exchanges: Option<Exchanges>,
}

/// What sock_diag said of an open connection, as far as a [`SocketRecord`] has no place for it.
pub(super) struct Present {
    /// When it was looked at, boot-clock nanoseconds.
    pub at: u64,
    /// TCP state.
    pub state: u8,
    /// Since the last payload sent; `None` if there was none. Only told as the trace stops, as is the next.
    pub sent_idle: Option<Nanos>,
    /// Since the last payload received.
    pub received_idle: Option<Nanos>,
}

impl Present {
    /// Since the last payload either way: the smaller of both gaps. One alone would be a guess.
    pub fn idle(&self) -> Option<Nanos> {
        self.sent_idle.zip(self.received_idle).map(|(sent, received)| sent.min(received))
    }
}

/// How an event's record relates to the connection known by the same socket number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// The same connection.
    Same,
    /// The socket has connected again.
    Later,
    /// A late event of an earlier connection of the socket.
    Earlier,
}

impl Live {
    /// A connection first heard of by this record.
    pub fn new(record: &SocketRecord, process: Rc<Process>, life: u32) -> Self {
        Self { record: *record, process, looked_up: None, detail: None, rare: None, life, announced: false }
    }

    /// A connection that was open before the trace.
    pub fn adopted(socket: &OpenSocket, process: Rc<Process>) -> Self {
        let mut record = SocketRecord {
            flags: flag::PREEXISTING,
            id: socket.cookie,
            process_started_at: socket.process_started_at,
            tgid: socket.pid,
            opener_tgid: socket.pid,
            netns: socket.netns,
            local_address: mapped(socket.local.ip()),
            remote_address: mapped(socket.remote.ip()),
            local_port: socket.local.port(),
            remote_port: socket.remote.port(),
            role: socket.role,
            ..SocketRecord::new_zeroed()
        };
        note_keepalive(&mut record, socket.keepalive);
        let present = Some(Present { at: socket.at, state: socket.state, sent_idle: None, received_idle: None });
        let rare = Rare { adopted_at: socket.at.max(1), present, exchanges: None };
        Self { record, process, looked_up: None, detail: None, rare: Some(Box::new(rare)), life: 0, announced: false }
    }

    /// Takes in that sock_diag shows a connection whose events had come first.
    pub fn complement(&mut self, socket: &OpenSocket, process: Rc<Process>) {
        let record = &mut self.record;
        record.role = known(record.role, socket.role);
        record.netns = known(record.netns, socket.netns);
        if record.tgid == 0 {
            (record.tgid, record.opener_tgid) = (socket.pid, socket.pid);
            self.belong_to(process);
        }
        self.rare().adopted_at = socket.at.max(1);
    }

    /// Gives it another owner.
    #[inline]
    pub fn belong_to(&mut self, process: Rc<Process>) {
        self.process = process;
        if let Some(detail) = &mut self.detail {
            detail.turn.group = Place::default();
        }
    }

    /// Its exchanges and TLS, to change.
    #[inline]
    pub fn detail(&mut self) -> &mut Detail {
        self.detail.get_or_insert_default()
    }

    /// Its exchanges and TLS, if there was any sign of them.
    pub fn known_detail(&self) -> Option<&Detail> {
        self.detail.as_deref()
    }

    /// How many of its exchanges are known to have been answered.
    pub fn answered(&self) -> u32 {
        self.known_detail().map_or(0, |detail| detail.turn.answered_count())
    }

    /// Takes in what an event in detail `exchanges` says of exchanges and TLS. Returns the exchange that has ended by it.
    pub fn see_detail(&mut self, record: &DetailedRecord, shared: &mut tls::Shared) -> Option<Turned> {
        let DetailedRecord { exchanges, handshake, .. } = record;
        if exchanges.count == 0 && handshake.started_at == 0 && self.detail.is_none() {
            return None;
        }
        let detail = self.detail();
        detail.tls.see_handshake(handshake, shared);
        detail.turn.see(exchanges)
    }

    /// Takes in what an HTTP head says that the owner sent or received in the exchange with this number.
    ///
    /// Without a number it is of the present exchange or the next. `false` if that cannot be: it passed before the present one was
    /// answered, and had to wait.
    pub fn see_head(
        &mut self,
        at: u64,
        index: Option<u32>,
        sent: bool,
        head: &Rc<HttpHead>,
        shared: &mut Shared<Heads>,
    ) -> bool {
        let asks = sent != (self.record.role == role::SERVER);
        let Detail { turn, http, .. } = self.detail();
        if index.is_none() && asks && at <= turn.seen_at() {
            return false;
        }
        let index = index.unwrap_or_else(|| http.index_of(turn, asks, sent));
        http.see(turn, index, asks, head, shared);
        true
    }

    /// Keeps how its exchanges stand, for when no further event tells.
    pub fn keep(&mut self, exchanges: &Exchanges) {
        if exchanges.count > 0 {
            let latest = *self.latest(Some(exchanges)).unwrap_or(exchanges);
            self.rare().exchanges = Some(latest);
        }
    }

    /// The latest of how its exchanges stood, by the last event or by one before: events may race.
    pub fn latest<'e>(&'e self, now: Option<&'e Exchanges>) -> Option<&'e Exchanges> {
        let kept = self.rare.as_deref().and_then(|rare| rare.exchanges.as_ref());
        let progress = |exchanges: &Exchanges| (exchanges.count, exchanges.last_at);
        match (kept, now) {
            (Some(kept), Some(now)) => Some(if progress(kept) > progress(now) { kept } else { now }),
            (kept, now) => now.or(kept),
        }
    }

    /// When sock_diag showed it, boot-clock nanoseconds; 0 if it was not open before the trace.
    pub fn adopted_at(&self) -> u64 {
        self.rare.as_deref().map_or(0, |rare| rare.adopted_at)
    }

    /// What sock_diag last said of it.
    pub fn present(&self) -> Option<&Present> {
        self.rare.as_deref()?.present.as_ref()
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Whether the record is of this connection.
    pub fn relation(&self, record: &SocketRecord) -> Relation {
        let (ours, theirs) = (self.record.opened_at, record.opened_at);
        if ours == theirs || self.is_adopted() && theirs <= self.adopted_at() {
            // sock_diag may have shown a connection whose OPENED event was still on its way.
            Relation::Same
        } else if theirs > ours {
            Relation::Later
        } else {
            Relation::Earlier
        }
    }

    /// It was open before the trace, as far as is known.
    pub fn is_adopted(&self) -> bool {
        self.adopted_at() != 0
    }

    /// Whether the kernel has said its last word on it. Where no release is ever seen, the end of TCP is that.
    pub fn is_complete(&self, sees_releases: bool) -> bool {
        let SocketRecord { flags, ended_at, released_at, .. } = self.record;
        flags & flag::FINISHED != 0 || ended_at != 0 && (released_at != 0 || !sees_releases)
    }

    /// Takes in a later, or a racing earlier, snapshot of the same connection. Returns whether the owner may be
    /// another one now.
    pub fn merge(&mut self, record: &SocketRecord) -> bool {
        if supersedes(record, &self.record) {
            let was_released = self.record.released_at != 0;
            self.record = *record;
            return self.is_owner_news(was_released);
        }
        let old = self.record;
        let (newer, older) = if record.at >= old.at { (record, &old) } else { (&old, record) };
        // The release names the owner anew; a snapshot that lacks the release does not know better.
        let owner = if newer.released_at == 0 && older.released_at != 0 { older } else { newer };
        let owner = if owner.tgid == 0 { older } else { owner };
        // Values that only some hooks read come with a flag; the newest snapshot that has one tells.
        let telling = |known| {
            if newer.flags & known != 0 { newer } else { older }
        };
        let (bytes, idle) = (telling(flag::BYTES_KNOWN), telling(flag::IDLE_KNOWN));
        let ending = if newer.state_before_end != 0 { newer } else { older };
        let (local, remote) = (with_port(newer, older, |r| r.local_port), with_port(newer, older, |r| r.remote_port));
        self.record = SocketRecord {
            flags: merged_flags(newer, older),
            opened_at: newer.opened_at.max(older.opened_at),
            established_at: known(newer.established_at, older.established_at),
            end_sign_at: newer.end_sign_at.max(older.end_sign_at),
            released_at: newer.released_at.max(older.released_at),
            ended_at: newer.ended_at.max(older.ended_at),
            bytes_sent: bytes.bytes_sent,
            bytes_received: bytes.bytes_received,
            process_started_at: owner.process_started_at,
            tgid: owner.tgid,
            tid: owner.tid,
            opener_tgid: known(newer.opener_tgid, older.opener_tgid),
            netns: known(newer.netns, older.netns),
            sent_idle_ticks: idle.sent_idle_ticks,
            received_idle_ticks: idle.received_idle_ticks,
            srtt_us: telling(flag::SRTT_KNOWN).srtt_us,
            retransmits: telling(flag::RETRANSMITS_KNOWN).retransmits,
            syn_retransmits: newer.syn_retransmits.max(older.syn_retransmits),
            error: known(newer.error, older.error),
            local_address: local.local_address,
            local_port: local.local_port,
            remote_address: remote.remote_address,
            remote_port: remote.remote_port,
            role: known(newer.role, older.role),
            state_before_end: ending.state_before_end,
            state_at_end: ending.state_at_end,
            comm: owner.comm,
            ..*newer
        };
        self.is_owner_news(old.released_at != 0)
    }

    /// Whether the owner may be another one than before: it is told anew at the release.
    fn is_owner_news(&self, was_released: bool) -> bool {
        let released_now = !was_released && self.record.released_at != 0;
        released_now || self.process.pid != self.record.tgid
    }

    /// Takes in how sock_diag shows it as the trace stops.
    pub fn see_present(&mut self, socket: &OpenSocket) {
        let record = &mut self.record;
        if let (Some(sent), Some(received)) = (socket.bytes_sent, socket.bytes_received) {
            (record.bytes_sent, record.bytes_received) = (sent, received);
            record.flags |= flag::BYTES_KNOWN;
        }
        if let Some(srtt) = socket.srtt {
            record.srtt_us = u32::try_from(srtt / 1000).unwrap_or(u32::MAX);
            record.flags |= flag::SRTT_KNOWN;
        }
        if let Some(retransmits) = socket.retransmits {
            record.retransmits = retransmits;
            record.flags |= flag::RETRANSMITS_KNOWN;
        }
        note_keepalive(record, socket.keepalive);
        let OpenSocket { at, state, sent_idle, received_idle, .. } = *socket;
        self.rare().present = Some(Present { at, state, sent_idle, received_idle });
    }

    /// Local end.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(unmapped(self.record.local_address), self.record.local_port)
    }

    /// Remote end.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(unmapped(self.record.remote_address), self.record.remote_port)
    }

    /// A client whose connect has not succeeded, as far as is known.
    pub fn is_unestablished(&self) -> bool {
        let SocketRecord { flags, established_at, state_before_end, role: side, .. } = self.record;
        let was_connecting = matches!(state_before_end, 0 | tcp_state::SYN_SENT);
        established_at == 0 && was_connecting && side == role::CLIENT && flags & flag::PREEXISTING == 0
    }
}

/// Whether a snapshot holds all that another does, as nearly always: then there is nothing to merge.
fn supersedes(new: &SocketRecord, old: &SocketRecord) -> bool {
    let keeps = |new: u64, old: u64| new != 0 || old == 0;
    new.at >= old.at
        && old.flags & !new.flags == 0
        && new.flags & flag::PREEXISTING == 0
        && new.opened_at == old.opened_at
        && new.end_sign_at >= old.end_sign_at
        && new.released_at >= old.released_at
        && new.ended_at >= old.ended_at
        && new.syn_retransmits >= old.syn_retransmits
        && keeps(new.established_at, old.established_at)
        && keeps(new.opener_tgid.into(), old.opener_tgid.into())
        && keeps(new.tgid.into(), old.tgid.into())
        && keeps(new.netns.into(), old.netns.into())
        && keeps(new.error.into(), old.error.into())
        && keeps(new.role.into(), old.role.into())
        && keeps(new.state_before_end.into(), old.state_before_end.into())
        && new.local_port != 0
        && new.remote_port != 0
}

/// Flags of two snapshots: once set they stay, but for those that say how the socket is.
fn merged_flags(newer: &SocketRecord, older: &SocketRecord) -> u32 {
    let keepalive = if newer.flags & flag::KEEPALIVE_KNOWN != 0 { newer } else { older }.flags & flag::KEEPALIVE;
    let mut flags = (newer.flags | older.flags) & !flag::KEEPALIVE | keepalive;
    if newer.opened_at.max(older.opened_at) != 0 {
        // The tracer saw it begin after all.
        flags &= !flag::PREEXISTING;
    }
    flags
}

fn note_keepalive(record: &mut SocketRecord, keepalive: Option<bool>) {
    let Some(on) = keepalive else { return };
    record.flags = record.flags & !flag::KEEPALIVE | flag::KEEPALIVE_KNOWN;
    if on {
        record.flags |= flag::KEEPALIVE;
    }
}

/// The first if it is known, else the second; 0 is "unknown".
fn known<T: Default + PartialEq>(first: T, second: T) -> T {
    if first != T::default() { first } else { second }
}

/// The newer snapshot, unless it lacks the port: at the end the kernel may have forgotten it.
fn with_port<'r>(
    newer: &'r SocketRecord,
    older: &'r SocketRecord,
    port: impl Fn(&SocketRecord) -> u16,
) -> &'r SocketRecord {
    if port(newer) != 0 { newer } else { older }
}

/// As the kernel side stores an address.
fn mapped(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// As people write it: v4-mapped addresses as IPv4.
#[inline]
pub(super) fn unmapped(address: Address) -> IpAddr {
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    match address.split_last_chunk::<4>() {
        Some((prefix, v4)) if *prefix == MAPPED => IpAddr::from(*v4),
        _ => IpAddr::from(address),
    }
}
