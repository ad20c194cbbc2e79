//! A live connection as the output shows it.

use std::rc::Rc;

use tracer_ebpf::{SocketRecord, flag, role, tcp_state};

use super::{
    clock::{Clock, span},
    close::{self, Verdict},
    connection::Live,
    idle,
    record::{Bound, Close, Closer, Confidence, Connection, ConnectionId, Role},
};

/// Why a whole connection is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// The kernel said its last word on it.
    Complete,
    /// Its socket has connected again: its end was not seen.
    Superseded,
    /// The trace stopped at this boot-clock time.
    Stopped(u64),
}

impl Occasion {
    /// The end of what can be known of a connection that is still open.
    fn stopped_at(self) -> Option<u64> {
        match self {
            Self::Stopped(at) => Some(at),
            _ => None,
        }
    }
}

/// A connection that was established or adopted: what is known of its beginning.
#[inline(always)]
pub(super) fn opening(live: &Live, clock: Clock) -> Connection {
    let record = &live.record;
    let preexisting = record.flags & flag::PREEXISTING != 0;
    Connection {
        id: ConnectionId { socket: record.id, life: live.life },
        process: Rc::clone(&live.process),
        opened_by: opened_by(record),
        tid: (record.tid != 0).then_some(record.tid),
        netns: (record.netns != 0).then_some(record.netns),
        role: role_of(record.role),
        local: live.local(),
        remote: live.remote(),
        opened_at: clock.wall(record.opened_at),
        closed_at: None,
        lifetime: None,
        open: true,
        preexisting,
        established: !live.is_unestablished(),
        connect: connect(record),
        syn_retransmits: (!preexisting).then_some(record.syn_retransmits),
        bytes_sent: None,
        bytes_received: None,
        retransmits: None,
        srtt: None,
        keepalive: None,
        idle_before_close: None,
        confidence: Vec::new(),
        close: None,
    }
}

/// All that is known of a connection.
#[inline]
pub(super) fn connection(live: &Live, occasion: Occasion, clock: Clock) -> Connection {
    let record = &live.record;
    let verdict = verdict(live, occasion);
    let stopped_at = occasion.stopped_at();
    let open = stopped_at.is_some() && record.ended_at == 0 && record.flags & flag::FINISHED == 0;
    let known = |bit| record.flags & bit != 0;
    let closed_at = if open { 0 } else { record.released_at.max(record.ended_at) };
    Connection {
        closed_at: clock.wall(closed_at),
        lifetime: lifetime(record, stopped_at),
        open,
        bytes_sent: known(flag::BYTES_KNOWN).then_some(record.bytes_sent),
        bytes_received: known(flag::BYTES_KNOWN).then_some(record.bytes_received),
        retransmits: known(flag::RETRANSMITS_KNOWN).then_some(record.retransmits),
        srtt: (known(flag::SRTT_KNOWN) && record.srtt_us != 0).then(|| u64::from(record.srtt_us) * 1000),
        keepalive: known(flag::KEEPALIVE_KNOWN).then(|| known(flag::KEEPALIVE)),
        idle_before_close: idle::before_close(live, stopped_at, clock),
        confidence: verdict.map_or_else(Vec::new, |verdict| confidence(live, verdict, stopped_at, clock)),
        close: verdict.map(|verdict| close_of(live, verdict, stopped_at, clock)),
        ..opening(live, clock)
    }
}

/// Who ended it and how, if anything has.
fn verdict(live: &Live, occasion: Occasion) -> Option<Verdict> {
    match occasion {
        _ if close::has_begun(&live.record) => Some(close::judge(&live.record)),
        Occasion::Stopped(_) => live.present.as_deref().and_then(|present| close::by_state(present.state)),
        Occasion::Complete | Occasion::Superseded => Some(close::judge(&live.record)),
    }
}

fn close_of(live: &Live, verdict: Verdict, stopped_at: Option<u64>, clock: Clock) -> Close {
    let record = &live.record;
    let noticed_at = if record.released_at != 0 { record.released_at } else { stopped_at.unwrap_or(0) };
    let dead_since = if is_dead_since_before_trace(live) { live.adopted_at } else { record.end_sign_at };
    let dead_since = if dead_since != 0 { dead_since } else { record.peer_fin_at };
    Close {
        closer: verdict.closer,
        how: verdict.how,
        errno: (record.error != 0).then_some(record.error),
        process_exited: record.flags & flag::PROCESS_EXITED != 0,
        unnoticed: (verdict.closer == Closer::Peer).then(|| span(dead_since, noticed_at)).flatten(),
        released_at: clock.wall(record.released_at),
        ended_at: clock.wall(record.ended_at),
    }
}

/// The peer had closed it when it was adopted: when that was is not known.
fn is_dead_since_before_trace(live: &Live) -> bool {
    live.is_adopted()
        && live.record.peer_fin_at == 0
        && live.record.end_sign_at == 0
        && live.present.as_deref().is_some_and(|present| present.state == tcp_state::CLOSE_WAIT)
}

fn role_of(side: u8) -> Option<Role> {
    match side {
        role::CLIENT => Some(Role::Client),
        role::SERVER => Some(Role::Server),
        _ => None,
    }
}

fn opened_by(record: &SocketRecord) -> Option<u32> {
    (record.opener_tgid != 0 && record.opener_tgid != record.tgid).then_some(record.opener_tgid)
}

/// A client's time to connect or to fail; a server does not wait.
fn connect(record: &SocketRecord) -> Option<u64> {
    if record.role != role::CLIENT {
        return None;
    }
    let done_at = if record.established_at != 0 { record.established_at } else { record.ended_at };
    span(record.opened_at, done_at)
}

/// To the end of TCP; failing that to the first sign of it, or to the stop.
fn lifetime(record: &SocketRecord, stopped_at: Option<u64>) -> Option<u64> {
    let ended_at = [record.ended_at, record.end_sign_at].into_iter().find(|at| *at != 0);
    span(record.opened_at, ended_at.or(stopped_at)?)
}

/// Where values are bounds. Empty, which costs no allocation, for nearly all connections.
fn confidence(live: &Live, verdict: Verdict, stopped_at: Option<u64>, clock: Clock) -> Vec<Confidence> {
    let record = &live.record;
    let mut notes = Vec::new();
    if opened_by(record).is_some() {
        let why = "opened by one process, released by another";
        notes.push(Confidence { field: "pid", bound: Bound::Estimate, why });
    }
    if verdict.guessed {
        let why = "the event that shows who was first was not seen";
        notes.push(Confidence { field: "close", bound: Bound::Estimate, why });
    }
    if stopped_at.is_some() && verdict.closer == Closer::Peer && is_dead_since_before_trace(live) {
        let why = "the peer closed before the trace began";
        notes.push(Confidence { field: "close.unnoticed_ms", bound: Bound::Lower, why });
    }
    if !live.is_unestablished() {
        notes.extend(idle::confidence(record, verdict.closer, verdict.how, clock));
    }
    notes
}
