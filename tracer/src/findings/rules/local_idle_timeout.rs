//! This process closes its own connections after a fixed idle time, and its exchanges come later than that.

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
pub const NAME: &str = "local-idle-timeout";

/// Looks at a client.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let (closes, caused) = (&group.closes.local, &group.reuse.local_idle);
    let timeout = idle_timeout::timeout(closes)?;
    if circumstances.key.role != Some(Role::Client) || !idle_timeout::costs(caused) {
        return None;
    }
    let after = units::duration(timeout.after);
    let title = format!(
        "it closes its own connections after {after} idle ({} closes), and {} exchanges came later than that",
        of(timeout.closes, group.closes.count()),
        of(caused.count, group.reuse.exchanges()),
    );
    let draft = circumstances.costly(NAME, title, caused.setup.sum())?;
    let needed = &group.reuse.needed;
    let advice = format!(
        "Raise this client's idle timeout above {after}: {} would have kept 95 % of its exchanges warm, {} 99 %{}. If the client \
         cannot be told, take one that can, or ask more often.",
        idle_timeout::rounded_up(needed.quantile(0.95)),
        idle_timeout::rounded_up(needed.quantile(0.99)),
        idle_timeout::keepalive(group),
    );
    let draft = idle_timeout::evidence(draft, group, &timeout, closes, caused);
    Some(draft.hint(known_timeouts::hint(timeout.after, Side::Client)).advise(advice, WOULD_CHANGE))
}

const WOULD_CHANGE: &str =
    "closes that spread over more than a tenth of their median, or exchanges that come before the timeout";
