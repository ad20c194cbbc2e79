//! The peer closes connections after a fixed idle time. What is asked after that pays for a new connection; what is asked at that
//! moment may be lost.

use super::{Circumstances, idle_timeout, of};
use crate::{
    findings::{
        finding::Finding,
        known_timeouts::{self, Side},
        seen::Group,
    },
    output::units,
    track::record::Role,
};

/// The rule's name.
pub const NAME: &str = "peer-idle-timeout";

/// Looks at a client.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let (closes, caused) = (&group.closes.peer, &group.reuse.peer_idle);
    let timeout = idle_timeout::timeout(closes)?;
    if circumstances.key.role != Some(Role::Client) || !idle_timeout::costs(caused) {
        return None;
    }
    let after = units::duration(timeout.after);
    let title = format!(
        "the peer closes connections after {after} idle ({} closes), and {} exchanges came later than that",
        of(timeout.closes, group.closes.count()),
        of(caused.count, group.reuse.exchanges()),
    );
    let draft = circumstances.costly(NAME, title, caused.setup.sum())?;
    let needed = &group.reuse.needed;
    let advice = format!(
        "This client keeps idle connections longer than its peer does, so a request may meet the peer's close: set the client's idle \
         timeout below {after}. To stay warm, raise the peer's above {} (95 % of the exchanges) or {} (99 %), or ask more often.",
        idle_timeout::rounded_up(needed.quantile(0.95)),
        idle_timeout::rounded_up(needed.quantile(0.99)),
    );
    let draft = idle_timeout::evidence(draft, group, &timeout, closes, caused)
        .count("stale_exchanges", group.stale.count)
        .time("unnoticed_ms_median", group.closes.unanswered_fins.median());
    Some(draft.hint(known_timeouts::hint(timeout.after, Side::Server)).advise(advice, WOULD_CHANGE))
}

const WOULD_CHANGE: &str =
    "closes that spread over more than a tenth of their median, or exchanges that come before the timeout";
