//! Exchanges begun on connections that were dead already.

use super::{Circumstances, counted};
use crate::{
    findings::{
        finding::{Finding, Severity},
        seen::{Group, stale::Death},
    },
    output::units,
    track::record::{Nanos, Role},
};

/// The rule's name. One is enough: each is a request that failed.
pub const NAME: &str = "stale-exchange";

/// Looks at a client.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let stale = &group.stale;
    if stale.count == 0 || circumstances.key.role != Some(Role::Client) {
        return None;
    }
    let lost = if stale.until_answered.count() > 0 { &stale.until_answered } else { &stale.until_failed };
    let [fin, rst, silence] = [Death::Fin, Death::Rst, Death::Silence].map(|death| stale.by(death));
    let title = format!(
        "{} sent on a dead connection: {}; {}",
        counted(stale.count, "exchange"),
        how(fin, rst, silence),
        lost.median().map_or_else(
            || "what became of them was not seen".into(),
            |median| format!("{} until an answer came (median)", units::duration(median))
        ),
    );
    let draft = match lost.sum() {
        0 => circumstances.draft(NAME, title, Severity::Low),
        cost => circumstances.with_cost(NAME, title, cost),
    };
    let alive_until = stale.alive.largest();
    let draft = draft
        .count("stale_exchanges", stale.count)
        .count("exchanges", group.reuse.exchanges() + stale.count)
        .count("by_fin", fin)
        .count("by_rst", rst)
        .count("in_silence", silence)
        .time("unnoticed_ms_median", stale.unnoticed.median())
        .time("lost_until_failed_ms_median", stale.until_failed.median())
        .time("lost_until_answered_ms_median", stale.until_answered.median())
        .time("dead_after_ms", stale.dead_after)
        .time("alive_until_ms", alive_until)
        .flag("keepalive", group.closes.keepalive())
        .examples(stale.examples.list())
        .doubt(stale.guessed, "that the peer was gone is inferred: the request was never answered nor acknowledged");
    Some(draft.advise(advice(stale.dead_after, alive_until, silence), WOULD_CHANGE))
}

/// `2 after its FIN had come, 1 dropped in silence`
fn how(fin: u64, rst: u64, silence: u64) -> String {
    let kinds = [(fin, "after the peer's FIN had come"), (rst, "answered by a reset"), (silence, "dropped in silence")];
    let kinds = kinds.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let kinds: Vec<_> = kinds.collect();
    if kinds.is_empty() { "how it died was not seen".into() } else { kinds.join(", ") }
}

fn advice(dead_after: Option<Nanos>, alive_until: Option<Nanos>, silence: u64) -> String {
    let limit = match (dead_after, alive_until) {
        (Some(dead), Some(alive)) if alive < dead => format!(
            "Connections to it were alive after {} idle and dead after {}: set this client's idle timeout below {}",
            units::duration(alive),
            units::duration(dead),
            between(alive, dead),
        ),
        (Some(dead), _) => format!(
            "A connection to it was dead after {} idle: set this client's idle timeout well below that",
            units::duration(dead)
        ),
        (None, _) => "Set this client's idle timeout below the peer's".into(),
    };
    let further = match silence {
        0 => ", and let it look whether the peer has closed before it reuses a connection.",
        _ => ", turn TCP keepalive on with an interval below it, and give requests a short timeout and one retry.",
    };
    limit + further
}

/// A time that connections to it outlive, for people: as far from the one that was alive as from the one that was dead.
pub fn between(alive: Nanos, dead: Nanos) -> String {
    units::duration(alive.saturating_add(dead.saturating_sub(alive) / 2))
}

const WOULD_CHANGE: &str = "an answer, or an acknowledgment, on the same connection";
