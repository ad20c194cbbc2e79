//! This process closes its own connections after a fixed idle time, and its exchanges come later than that.

use super::{
    Circumstances,
    idle_timeout::{Closing, WOULD_CHANGE, rounded_up},
};
use crate::{
    findings::{finding::Finding, known_timeouts::Side, seen::Group},
    output::units,
};

/// The rule's name.
pub const NAME: &str = "local-idle-timeout";

const CLOSING: Closing = Closing {
    name: NAME,
    side: Side::Client,
    who: "it closes its own connections",
    closes: |group| &group.closes.local,
    caused: |group| &group.reuse.local_idle,
};

/// Looks at a client.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let (draft, after) = CLOSING.find(group, circumstances)?;
    let needed = &group.reuse.needed;
    let keepalive = match group.closes.keepalive() {
        Some(false) => ", and turn TCP keepalive on (it is off), so that connections that died in silence are found",
        _ => "",
    };
    let advice = format!(
        "Raise this client's idle timeout above {}: {} would have kept 95 % of its exchanges warm, {} 99 %{keepalive}. If the \
         client cannot be told, take one that can, or ask more often.",
        units::duration(after),
        rounded_up(needed.quantile(0.95)),
        rounded_up(needed.quantile(0.99)),
    );
    Some(draft.advise(advice, WOULD_CHANGE))
}
