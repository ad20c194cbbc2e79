//! The peer closes connections after a fixed idle time. What is asked after that pays for a new connection; what is asked at that
//! moment may be lost.

use super::{
    Circumstances,
    idle_timeout::{Closing, WOULD_CHANGE, rounded_up},
};
use crate::{
    findings::{finding::Finding, known_timeouts::Side, seen::Group},
    output::units,
};

/// The rule's name.
pub const NAME: &str = "peer-idle-timeout";

const CLOSING: Closing = Closing {
    name: NAME,
    side: Side::Server,
    who: "the peer closes connections",
    closes: |group| &group.closes.peer,
    caused: |group| &group.reuse.peer_idle,
};

/// Looks at a client.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let (draft, after) = CLOSING.find(group, circumstances)?;
    let needed = &group.reuse.needed;
    let advice = format!(
        "This client keeps idle connections longer than its peer does, so a request may meet the peer's close: set the client's idle \
         timeout below {}. To stay warm, raise the peer's above {} (95 % of the exchanges) or {} (99 %), or ask more often.",
        units::duration(after),
        rounded_up(needed.quantile(0.95)),
        rounded_up(needed.quantile(0.99)),
    );
    let draft = draft
        .count("stale_exchanges", group.stale.count)
        .time("unnoticed_ms_median", group.closes.unanswered_fins.median());
    Some(draft.advise(advice, WOULD_CHANGE))
}
