//! How long a connection had been idle when its end began, and how far that can be trusted.

use tracer_ebpf::{SocketRecord, exchange::Exchanges, flag};

use super::{
    clock::{Clock, span},
    connection::Live,
    record::{Bound, Closer, Confidence, How, Nanos},
};

/// The field's name in the output.
const FIELD: &str = "idle_before_close_ms";

/// A payload sent this close to the end may be a mere goodbye.
const GOODBYE_TICKS: u32 = 2;

/// Only a gap this much longer the other way makes it worth a remark.
const REMARKABLE_NS: Nanos = 100_000_000;

/// How much less than the time that they stand for ticks may be: one is cut at either end.
const TICKS_SHORT: u32 = 2;

/// From the last application data to the first sign of the end, where sends and receives are hooked: TLS alerts do not count.
/// `None` if only the kernel's times tell.
///
/// Data that passed after that sign was sent after it, the other way, or had come before it and was taken after it. Only the
/// kernel's times can tell the two apart: in the second case it saw later data than the hooks had by then.
pub(super) fn exact_before_close(record: &SocketRecord, exchanges: Option<&Exchanges>, clock: Clock) -> Option<Nanos> {
    let Exchanges { asked_at, last_at, previous_at, last_before_end, .. } = *exchanges?;
    // An exchange that was begun after that sign found a dead connection; the idle time before the end is that before it.
    let last_at = if asked_at > record.end_sign_at { previous_at } else { last_at };
    if last_at <= record.end_sign_at {
        return span(last_at, record.end_sign_at);
    }
    let by_hooks = span(last_before_end, record.end_sign_at)?;
    let by_ticks = clock.ticks(record.sent_idle_ticks.min(record.received_idle_ticks));
    let kernel_saw_later = by_ticks.saturating_add(clock.ticks(TICKS_SHORT)) < by_hooks;
    (record.flags & flag::IDLE_KNOWN != 0 && !kernel_saw_later).then_some(by_hooks)
}

/// From the last payload either way to the first sign of the end, or to the stop while open. Its grain is the kernel's
/// tick, some milliseconds.
#[inline(always)]
pub(super) fn before_close(live: &Live, stopped_at: Option<u64>, clock: Clock) -> Option<Nanos> {
    let record = &live.record;
    if live.is_unestablished() {
        return None;
    }
    if record.flags & flag::IDLE_KNOWN != 0 {
        return Some(clock.ticks(record.sent_idle_ticks.min(record.received_idle_ticks)));
    }
    let present = live.present()?;
    let until = if record.end_sign_at != 0 { record.end_sign_at } else { stopped_at? };
    let idle = present.idle()?;
    // The look at the socket may lie before or after that point.
    Some(idle.saturating_add(until).saturating_sub(present.at.max(1)))
}

/// Why the idle time of a closed connection may not be what it says.
#[inline(always)]
pub(super) fn confidence(record: &SocketRecord, closer: Closer, how: How, clock: Clock) -> Option<Confidence> {
    if record.flags & flag::IDLE_KNOWN == 0 {
        return None;
    }
    let note = |bound, why| Some(Confidence { field: FIELD, bound, why });
    if record.flags & flag::ENDED_BEFORE_ACCEPT != 0 {
        return note(Bound::Estimate, "the end came before the accept; its time is worked out from kernel ticks");
    }
    if how == How::Timeout && record.flags & flag::RETRANSMITS_KNOWN != 0 && record.retransmits > 0 {
        return note(Bound::Lower, "retransmissions move the time of the last send");
    }
    if may_have_said_goodbye(record, closer, clock) {
        return note(Bound::Lower, "the closer sent something right before the end, maybe only a TLS close_notify");
    }
    None
}

/// The closer's last payload came right before the end, the other side's long before.
fn may_have_said_goodbye(record: &SocketRecord, closer: Closer, clock: Clock) -> bool {
    let (own, other) = match closer {
        Closer::Local => (record.sent_idle_ticks, record.received_idle_ticks),
        Closer::Peer => (record.received_idle_ticks, record.sent_idle_ticks),
        Closer::None => return false,
    };
    own <= GOODBYE_TICKS && clock.ticks(other).saturating_sub(clock.ticks(own)) >= REMARKABLE_NS
}
