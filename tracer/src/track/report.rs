//! A live connection as the output shows it.

use std::rc::Rc;

use tracer_ebpf::{SocketRecord, exchange::Exchanges, flag, role, tcp_state};

use super::{
    clock::{Clock, span},
    close::{self, Verdict},
    connection::{Live, Present},
    exchange::{End, Turned},
    idle,
    record::{self, Bound, Close, Closer, Confidence, Connection, ConnectionId, Exchange, How, Nanos, Role, Setup},
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
        exchanges: None,
        tls: None,
        confidence: Vec::new(),
        close: None,
    }
}

/// Adds to the opening all else that is known of a connection. Field by field: all at once would be more than the processor's
/// registers hold.
#[inline(always)]
pub(super) fn complete(
    connection: &mut Connection,
    live: &Live,
    verdict: Option<Verdict>,
    together: Option<Together>,
    occasion: Occasion,
    clock: Clock,
) {
    let record = &live.record;
    let stopped_at = occasion.stopped_at();
    let known = |bit| record.flags & bit != 0;
    connection.open = is_open(live, occasion);
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
    if let Some(verdict) = verdict {
        connection.close = Some(close_of(live, verdict, stopped_at, clock));
        let exact_idle = together.is_some_and(|together| together.idle_before_close.is_some());
        connection.confidence = confidence(live, verdict, exact_idle, stopped_at, clock);
    } else if occasion == Occasion::Gone {
        connection.confidence = vec![END_UNSEEN];
    }
    if let Some(together) = together {
        if let Some(close) = &mut connection.close {
            let since_last = span(together.last_at, noticed_at(record, stopped_at));
            close.unused = close.unused.map(|unused| since_last.map_or(unused, |since| since.min(unused)));
        }
        add_detail(connection, live, verdict, together);
    }
}

/// TCP had not ended it when the trace stopped.
fn is_open(live: &Live, occasion: Occasion) -> bool {
    let record = &live.record;
    occasion.stopped_at().is_some() && record.ended_at == 0 && record.flags & flag::FINISHED == 0
}

/// What detail `exchanges` adds.
#[inline(never)]
fn add_detail(connection: &mut Connection, live: &Live, verdict: Option<Verdict>, together: Together) {
    let Together { count, max_idle, stale, idle_before_close, was_unseen, .. } = together;
    if idle_before_close.is_some() {
        connection.idle_before_close = idle_before_close;
    }
    let max_idle = (max_idle != 0).then_some(max_idle).max(connection.idle_before_close);
    // What passes no hook is not known to be nothing; by the fallback's hooks some of it passes.
    let known = live.record.flags & flag::MPTCP == 0;
    connection.exchanges = (known && !was_unseen).then_some(record::Exchanges { count, max_idle, stale });
    if was_unseen {
        connection.confidence.push(EXCHANGES_UNSEEN);
    }
    if let Some(detail) = live.known_detail() {
        connection.tls = detail.tls.report(&live.record, verdict).map(Box::new);
        connection.confidence.extend(detail.tls.confidence());
    }
    if live.record.flags & LABELLED != 0 {
        connection.confidence.extend(labels(live.record.flags));
    }
}

/// The flags of few connections, whose exchanges have to be read with care.
const LABELLED: u32 = flag::PREEXISTING | flag::MPTCP | flag::FAST_OPEN | flag::KERNEL_TLS;

/// What the exchanges of few connections have to be read with.
fn labels(flags: u32) -> impl Iterator<Item = Confidence> {
    let label = |bit, field, bound, why| (flags & bit != 0).then_some(Confidence { field, bound, why });
    let old = "those before the trace are not counted";
    let subflow = "a subflow of a Multipath TCP connection: its data passes unseen, and others may carry parts of it";
    let early =
        "the first data was handed over with the connect (TCP Fast Open): the connect is part of the first exchange";
    let past = "the kernel's own TLS is in use: what it takes from TCP passes unseen";
    let by_kernel = "the kernel's own TLS is in use: alerts and data cannot be told apart";
    [
        label(flag::PREEXISTING, "exchanges", Bound::Lower, old),
        label(flag::MPTCP, "exchanges", Bound::Unknown, subflow),
        label(flag::FAST_OPEN, "connect_ms", Bound::Estimate, early),
        label(flag::KERNEL_TLS, "exchanges", Bound::Estimate, past),
        label(flag::KERNEL_TLS, "idle_before_close_ms", Bound::Estimate, by_kernel),
    ]
    .into_iter()
    .flatten()
}

/// A connection's exchanges together, and what follows from them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Together {
    count: u32,
    /// Between two; 0 if there was none.
    max_idle: Nanos,
    stale: bool,
    /// The last application data either way; 0 if there was none or it is not known.
    last_at: u64,
    /// To the nanosecond; `None` if only the kernel's ticks can tell.
    idle_before_close: Option<Nanos>,
    /// Exchanges were not looked at for a part of its life.
    was_unseen: bool,
}

impl Together {
    /// Leaves to the kernel's own times what the hooks have not seen all of.
    pub fn forget_what_was_not_seen(&mut self) {
        (self.idle_before_close, self.last_at, self.was_unseen) = (None, 0, true);
    }
}

/// The remark on a connection during whose life exchanges were not looked at.
const EXCHANGES_UNSEEN: Confidence = Confidence {
    field: "exchanges",
    bound: Bound::Unknown,
    why: "detail was lowered for a part of its life: --max-overhead",
};

/// How an exchange stands when it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has ended.
    Over,
    /// It was not answered, and its connection was dead.
    Dropped,
    /// It has ended, by the kernel's ticks.
    OverByTicks,
    /// The trace stopped before its end was seen.
    Open,
    /// The same, and it stood so by the kernel's ticks.
    OpenByTicks,
    /// The trace stopped, and only the kernel's ticks tell that it was begun.
    Begun,
}

/// What is left to tell of a connection's exchanges when it is reported.
#[derive(Default)]
pub(super) struct Last {
    /// The present one, and one begun since of which no event told.
    pub exchanges: [Option<(Turned, Standing)>; 2],
    /// All together.
    pub together: Together,
}

/// The last exchanges of a connection that is reported, by how they stood at its last event.
pub(super) fn last_exchanges(
    live: &Live,
    now: Option<&Exchanges>,
    occasion: Occasion,
    verdict: Option<Verdict>,
    clock: Clock,
) -> Last {
    let turn = live.known_detail().map(|detail| &detail.turn);
    // Nobody asks any more on what was let go of.
    let open = is_open(live, occasion) && live.record.released_at == 0;
    let present = if open { live.present() } else { None };
    let (present_turn, further) = match present {
        Some(present) => standing(live, present, now, clock),
        None => (turn.and_then(|turn| turn.last(now)), None),
    };
    let mut last = Last {
        together: Together {
            count: turn
                .map_or(0, |turn| turn.count())
                .max(further.map_or(0, |further| further.index.saturating_add(1))),
            max_idle: turn.map_or(0, |turn| turn.max_idle()),
            stale: turn.is_some_and(|turn| turn.was_stale()),
            last_at: now.map_or(0, |exchanges| exchanges.last_at),
            idle_before_close: idle::exact_before_close(&live.record, now, clock),
            was_unseen: false,
        },
        ..Last::default()
    };
    let newest = if further.is_some() { 1 } else { 0 };
    for (place, turned) in [present_turn, further].into_iter().enumerate() {
        let Some(turned) = turned else { continue };
        let standing = match (open && place == newest, present.is_some()) {
            (true, true) if further.is_some() => Standing::Begun,
            (true, true) => Standing::OpenByTicks,
            (true, false) => Standing::Open,
            (false, true) => Standing::OverByTicks,
            _ if verdict.is_some_and(|verdict| was_dropped(live, &turned, verdict, clock)) => Standing::Dropped,
            (false, false) => Standing::Over,
        };
        last.together.stale |= turned.stale || standing == Standing::Dropped;
        last.exchanges[place] = Some((turned, standing));
    }
    last
}

/// The remark on an exchange that is called stale for what became of it.
const STALE_GUESSED: Confidence = Confidence {
    field: "stale",
    bound: Bound::Estimate,
    why: "it was never answered, and the connection turned out to be dead",
};

/// A connection that has just been made is not dead yet; one that has waited for so long may be.
const LONG_IDLE: Nanos = 1_000_000_000;

/// Whether an unanswered ask, by the connection's end, went to a peer that was gone already.
fn was_dropped(live: &Live, turned: &Turned, verdict: Verdict, clock: Clock) -> bool {
    let record = &live.record;
    let is_gone = match verdict.closer {
        Closer::Local => was_never_acknowledged(record, turned, clock),
        // Else the peer was there when it was asked, and broke off later: a slow answer, a long poll.
        _ if verdict.how == How::Rst => record.unacknowledged > 0,
        _ => matches!(verdict.how, How::Timeout | How::Unreachable),
    };
    let may_be_dead =
        turned.index > 0 || record.flags & flag::PREEXISTING != 0 || turned.idle.is_some_and(|idle| idle >= LONG_IDLE);
    record.role == role::CLIENT && turned.answered_at == 0 && !turned.stale && is_gone && may_be_dead
}

/// Whether the application gave up an ask of which nothing had been acknowledged for most of the time. A peer that is there
/// acknowledges within a fraction of a second, also if it takes its time to answer.
fn was_never_acknowledged(record: &SocketRecord, turned: &Turned, clock: Clock) -> bool {
    let Some(doublings) = record.unacknowledged.checked_sub(1) else { return false };
    // Between this and twice this.
    let silence = clock.ticks(1_u32.checked_shl(doublings.into()).unwrap_or(u32::MAX));
    let asked_for = record.end_sign_at.saturating_sub(turned.asked_at);
    asked_for >= LONG_SILENCE && silence >= asked_for / 2
}

/// TCP's acknowledgments may wait 200 ms for company (RFC 1122 allows 500 ms), and a segment may get lost.
const LONG_SILENCE: Nanos = 1_000_000_000;

/// The exchanges of an open connection, by what sock_diag says of it. Its times have the grain of the kernel's tick.
fn standing(live: &Live, present: &Present, now: Option<&Exchanges>, clock: Clock) -> (Option<Turned>, Option<Turned>) {
    let record = &live.record;
    // Of a socket older than the trace the kernel's counts began elsewhere than ours.
    let comparable = record.flags & (flag::PREEXISTING | flag::BYTES_KNOWN) == flag::BYTES_KNOWN;
    let (sent, received) = (comparable.then_some(record.bytes_sent), comparable.then_some(record.bytes_received));
    let asks = record.role == role::CLIENT;
    let (ask_idle, answer_idle) =
        if asks { (present.sent_idle, present.received_idle) } else { (present.received_idle, present.sent_idle) };
    let when = |idle: Nanos| present.at.saturating_sub(idle);
    let asked = |index, idle, end| {
        ask_idle.map(|since| Turned {
            index,
            asked_at: when(since),
            idle,
            answered_at: 0,
            end,
            greeting: false,
            stale: false,
            maybe_tickets: false,
        })
    };
    let detail = live.known_detail();
    let Some(turn) = detail.map(|detail| &detail.turn).filter(|turn| turn.count() > 0) else {
        // Nothing was answered yet. Of TLS it is not known how much of it was the handshake.
        let (ask, answer) = if asks { (sent, received) } else { (received, sent) };
        let is_asked = ask.is_some_and(|bytes| bytes > 0) && answer == Some(0) && record.role != 0;
        let end = End { last_at: None, sent, received };
        let further = if is_asked && detail.is_none() { asked(0, None, end) } else { None };
        return (None, further);
    };
    if turn.seen_at() > present.at {
        return (turn.last(now), None);
    }
    let ends = ask_idle.zip(answer_idle);
    match ends
        .filter(|(ask, answer)| turn.is_answered() && record.role != 0 && ask.saturating_add(clock.tick_ns) <= *answer)
    {
        // The asking side has sent something since it was answered.
        Some((ask, answer)) => {
            let (sent, received) = if asks { (None, received) } else { (sent, None) };
            let before = turn.standing(Some(when(answer)), sent, received);
            (before, asked(turn.count(), Some(answer - ask), End::default()))
        }
        None => (turn.standing(present.idle().map(when), sent, received), None),
    }
}

/// An exchange as the output shows it.
#[inline(always)]
pub(super) fn exchange(live: &Live, turned: &Turned, standing: Standing, clock: Clock) -> Exchange {
    let record = &live.record;
    let (cold, duration) = (is_cold(live, turned.index), turned.duration());
    let heads = live.known_detail().map(|detail| detail.http.of(&detail.turn, turned.index)).unwrap_or_default();
    Exchange {
        connection: ConnectionId { socket: record.id, life: live.life },
        index: turned.index,
        process: Rc::clone(&live.process),
        role: role_of(record.role),
        local_port: record.local_port,
        remote: live.remote(),
        hello: live.known_detail().and_then(|detail| detail.tls.hello().cloned()),
        looked_up: live.looked_up.clone(),
        cold,
        // On an older connection what is answered first may have been asked before the trace.
        greeting: turned.greeting && cold.is_some(),
        began_at: clock.wall(turned.asked_at),
        idle_before: turned.idle,
        first_byte: turned.first_byte(),
        duration,
        bytes_out: turned.end.sent,
        bytes_in: turned.end.received,
        setup: (cold == Some(true) && record.role == role::CLIENT).then(|| Box::new(setup(live))),
        request: heads.request,
        response: heads.response,
        stale: turned.stale || standing == Standing::Dropped,
        open: matches!(standing, Standing::Open | Standing::OpenByTicks | Standing::Begun),
        confidence: match standing {
            // As nearly always.
            Standing::Over if !turned.maybe_tickets && (duration.is_some() || turned.answered_at == 0) => Vec::new(),
            _ => remarks(turned, standing, duration),
        },
    }
}

/// Whether it is the first on its connection; not known where that was open before the trace.
#[inline]
pub(super) fn is_cold(live: &Live, index: u32) -> Option<bool> {
    let preexisting = live.record.flags & flag::PREEXISTING != 0;
    if preexisting && index == 0 { None } else { Some(index == 0) }
}

/// Where an exchange's values are bounds, or missing.
#[inline(never)]
fn remarks(turned: &Turned, standing: Standing, duration: Option<Nanos>) -> Vec<Confidence> {
    let by_ticks = matches!(standing, Standing::OverByTicks | Standing::OpenByTicks);
    let ticks = |field| Confidence { field, bound: Bound::Estimate, why: "taken from the kernel's ticks at the stop" };
    let is_answered = turned.answered_at != 0;
    [
        turned.maybe_tickets.then_some(MAYBE_TICKETS),
        (is_answered && duration.is_none()).then_some(END_LOST),
        (by_ticks && duration.is_some()).then(|| ticks("duration_ms")),
        (standing == Standing::Begun).then(|| ticks("began_at")),
        (standing == Standing::Dropped).then_some(STALE_GUESSED),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The remark on an answer that may not be one yet.
const MAYBE_TICKETS: Confidence = Confidence {
    field: "first_byte_ms",
    bound: Bound::Lower,
    why: "TLS session tickets cannot be told from the beginning of the answer",
};

/// The remark on an exchange whose end no event tells.
const END_LOST: Confidence =
    Confidence { field: "duration_ms", bound: Bound::Unknown, why: "the event that tells its end was not seen" };

/// What a client's connection took until it was ready for its first exchange.
#[inline(never)]
pub(super) fn setup(live: &Live) -> Setup {
    let connect = connect(live);
    let dns = live.looked_up.as_ref().map(|looked_up| looked_up.cost);
    let tls = live.known_detail().map(|detail| &detail.tls).filter(|tls| tls.is_part_of_setup());
    let handshake = tls.and_then(|tls| tls.took());
    let total = match (connect, tls, handshake) {
        (Some(connect), Some(_), Some(handshake)) => Some(connect.saturating_add(handshake)),
        (Some(_), Some(_), None) => None,
        (connect, ..) => connect,
    };
    let total = total.map(|total| total.saturating_add(dns.unwrap_or(0)));
    Setup { dns, connect, handshake, parts: tls.map(|tls| tls.parts()).unwrap_or_default(), total }
}

/// Who ended it and how, if anything has.
#[inline]
pub(super) fn verdict(live: &Live, occasion: Occasion) -> Option<Verdict> {
    match occasion {
        _ if close::has_begun(&live.record) => Some(close::judge(&live.record)),
        Occasion::Stopped(_) => live.present().and_then(|present| close::by_state(present.state)),
        Occasion::Complete | Occasion::Superseded => Some(close::judge(&live.record)),
        Occasion::Gone => None,
    }
}

#[inline(always)]
fn close_of(live: &Live, verdict: Verdict, stopped_at: Option<u64>, clock: Clock) -> Close {
    let record = &live.record;
    let noticed_at = noticed_at(record, stopped_at);
    let dead_since = if is_dead_since_before_trace(live) { live.adopted_at() } else { record.end_sign_at };
    let unnoticed = (verdict.closer == Closer::Peer).then(|| span(dead_since, noticed_at)).flatten();
    Close {
        closer: verdict.closer,
        how: verdict.how,
        errno: (record.error != 0).then_some(record.error),
        process_exited: record.flags & flag::PROCESS_EXITED != 0,
        unnoticed,
        unused: unnoticed,
        released_at: clock.wall(record.released_at),
        ended_at: clock.wall(record.ended_at),
    }
}

/// When the application let go of it, or until when it had not.
fn noticed_at(record: &SocketRecord, stopped_at: Option<u64>) -> u64 {
    if record.released_at != 0 { record.released_at } else { stopped_at.unwrap_or(0) }
}

/// The peer had closed it when it was adopted: when that was is not known.
fn is_dead_since_before_trace(live: &Live) -> bool {
    live.is_adopted()
        && live.record.end_sign_at == 0
        && live.present().is_some_and(|present| present.state == tcp_state::CLOSE_WAIT)
}

#[inline]
pub(super) fn role_of(side: u8) -> Option<Role> {
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
#[inline(always)]
fn confidence(
    live: &Live,
    verdict: Verdict,
    exact_idle: bool,
    stopped_at: Option<u64>,
    clock: Clock,
) -> Vec<Confidence> {
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
    let idle = match live.is_unestablished() || exact_idle {
        true => None,
        false => idle::confidence(record, verdict.closer, verdict.how, clock),
    };
    if owner.is_none() && close.is_none() && unnoticed.is_none() && idle.is_none() {
        return Vec::new();
    }
    [owner, close, unnoticed, idle].into_iter().flatten().collect()
}
