//! Exchanges that paid for a connection for which there was none to reuse: the first ones, and after a lull.

use super::{Circumstances, of};
use crate::{
    findings::{finding::Finding, seen::Group},
    output::units,
    track::record::{Nanos, Role},
};

/// The rule's name.
pub const NAME: &str = "cold-start";

/// One cold exchange is any client's beginning. Of so many, users notice.
const FEWEST_COLD: u64 = 3;
/// Something must have been warm to compare with.
const FEWEST_WARM: u64 = 3;
/// What asks one thing after the other needs one connection, and opens it anew for other reasons: each run of a job.
const FEWEST_AT_A_TIME: u64 = 2;
/// A cold exchange must take so many times as long as a warm one.
const TIMES: u64 = 2;
/// And so much longer: less nobody notices.
const LONGER: Nanos = 20_000_000;

/// Looks at a client.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let reuse = &group.reuse;
    let at_start = reuse.first.count;
    let after_lull = reuse.local_idle.count + reuse.peer_idle.count;
    if circumstances.key.role != Some(Role::Client) || at_start < FEWEST_COLD || reuse.warm < FEWEST_WARM {
        return None;
    }
    let at_a_time = reuse.at_a_time();
    if at_a_time < FEWEST_AT_A_TIME {
        return None;
    }
    let (cold, warm) = (reuse.cold_total.median()?, reuse.warm_total.median()?);
    if cold < warm.saturating_mul(TIMES) || cold < warm.saturating_add(LONGER) {
        return None;
    }
    let title = format!(
        "the first exchanges paid for their connections: {} cold in the median, {} warm ({} exchanges)",
        units::duration(cold),
        units::duration(warm),
        of(at_start, reuse.exchanges()),
    );
    let advice = format!(
        "Open {at_a_time} connections before the first request and keep them: that many exchanges were under way at a time.{}",
        if after_lull > 0 {
            " Keep them through lulls too: longer idle timeouts, or a request now and then."
        } else {
            ""
        }
    );
    let draft = circumstances
        .costly(NAME, title, reuse.first.setup.sum())?
        .count("cold_at_start", at_start)
        .count("cold_after_lull", after_lull)
        .count("cold_exchanges", reuse.cold)
        .count("exchanges", reuse.exchanges())
        .time("cold_ms_median", Some(cold))
        .time("warm_ms_median", Some(warm))
        .time("dns_ms_median", reuse.dns.median())
        .time("connect_ms_median", reuse.connect.median())
        .time("handshake_ms_median", reuse.handshake.median())
        .count("pool_needed", at_a_time)
        .examples(reuse.first.examples.list());
    Some(draft.advise(advice, "first exchanges that take no longer than later ones"))
}
