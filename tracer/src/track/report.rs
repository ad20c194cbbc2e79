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
    /// The trace stopped and its socket was gone: its end was missed.
    Gone,
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

/// The remark on a connection that was gone when the trace stopped.
const END_UNSEEN: Confidence = Confidence {
    field: "close",
    bound: Bound::Estimate,
    why: "the end was not seen: the socket was gone when the trace stopped",
};

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
        looked_up: live.looked_up.clone(),
        established: !live.is_unestablished(),
        connect: connect(live),
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

/// All that is known of a connection. Field by field: all at once would be more than the processor's registers hold.
#[inline]
pub(super) fn connection(live: &Live, occasion: Occasion, clock: Clock) -> Connection {
    let record = &live.record;
    let stopped_at = occasion.stopped_at();
    let known = |bit| record.flags & bit != 0;
    let mut connection = opening(live, clock);
    connection.open = stopped_at.is_some() && record.ended_at == 0 && !known(flag::FINISHED);
    if !connection.open {
        connection.closed_at = clock.wall(record.released_at.max(record.ended_at));
    }
    connection.lifetime = lifetime(record, stopped_at);
    if known(flag::BYTES_KNOWN) {
        connection.bytes_sent = Some(record.bytes_sent);
        connection.bytes_received = Some(record.bytes_received);
    }
    if known(flag::RETRANSMITS_KNOWN) {
        connection.retransmits = Some(record.retransmits);
    }
    if known(flag::SRTT_KNOWN) && record.srtt_us != 0 {
        connection.srtt = Some(u64::from(record.srtt_us) * 1000);
    }
    if known(flag::KEEPALIVE_KNOWN) {
        connection.keepalive = Some(known(flag::KEEPALIVE));
    }
    connection.idle_before_close = idle::before_close(live, stopped_at, clock);
    if let Some(verdict) = verdict(live, occasion) {
        connection.close = Some(close_of(live, verdict, stopped_at, clock));
        connection.confidence = confidence(live, verdict, stopped_at, clock);
    } else if occasion == Occasion::Gone {
        connection.confidence = vec![END_UNSEEN];
    }
    connection
}

/// Who ended it and how, if anything has.
fn verdict(live: &Live, occasion: Occasion) -> Option<Verdict> {
    match occasion {
        _ if close::has_begun(&live.record) => Some(close::judge(&live.record)),
        Occasion::Stopped(_) => live.present.as_deref().and_then(|present| close::by_state(present.state)),
        Occasion::Complete | Occasion::Superseded => Some(close::judge(&live.record)),
        Occasion::Gone => None,
    }
}

fn close_of(live: &Live, verdict: Verdict, stopped_at: Option<u64>, clock: Clock) -> Close {
    let record = &live.record;
    let noticed_at = if record.released_at != 0 { record.released_at } else { stopped_at.unwrap_or(0) };
    let dead_since = if is_dead_since_before_trace(live) { live.adopted_at } else { record.end_sign_at };
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

/// A client's time to connect or to fail; a server does not wait. Not known if the success was not seen.
fn connect(live: &Live) -> Option<u64> {
    let record = &live.record;
    if record.role != role::CLIENT {
        return None;
    }
    span(record.opened_at, if live.is_unestablished() { record.ended_at } else { record.established_at })
}

/// To the end of TCP; failing that to the first sign of it, or to the stop.
fn lifetime(record: &SocketRecord, stopped_at: Option<u64>) -> Option<u64> {
    let ended_at = [record.ended_at, record.end_sign_at].into_iter().find(|at| *at != 0);
    span(record.opened_at, ended_at.or(stopped_at)?)
}

/// Where values are bounds. Empty, which costs no allocation, for nearly all connections.
fn confidence(live: &Live, verdict: Verdict, stopped_at: Option<u64>, clock: Clock) -> Vec<Confidence> {
    let record = &live.record;
    let note = |field, bound, why| Some(Confidence { field, bound, why });
    let owner = match opened_by(record) {
        Some(_) => note("pid", Bound::Estimate, "opened by one process, released by another"),
        None => None,
    };
    let close = match verdict.guessed {
        true => note("close", Bound::Estimate, "the event that shows who was first was not seen"),
        false => None,
    };
    let unnoticed = match stopped_at.is_some() && verdict.closer == Closer::Peer && is_dead_since_before_trace(live) {
        true => note("close.unnoticed_ms", Bound::Lower, "the peer closed before the trace began"),
        false => None,
    };
    let idle = match live.is_unestablished() {
        true => None,
        false => idle::confidence(record, verdict.closer, verdict.how, clock),
    };
    if owner.is_none() && close.is_none() && unnoticed.is_none() && idle.is_none() {
        return Vec::new();
    }
    [owner, close, unnoticed, idle].into_iter().flatten().collect()
}
