//! Lookups that take long though they are answered at once.

use super::Circumstances;
use crate::{
    findings::{finding::Finding, seen::Group},
    output::units,
    track::record::Nanos,
};

/// The rule's name.
pub const NAME: &str = "slow-dns";

/// Fewer may be chance.
const FEWEST: u64 = 5;
/// A cache nearby answers within a few milliseconds, a recursive lookup across the world within a tenth of a second or two.
const SLOW: Nanos = 100_000_000;

/// Looks at the lookups of a process name at one server.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let lookups = &group.lookups;
    let median = lookups.direct.median()?;
    // An answer waits for the process to take it.
    if lookups.direct.count() < FEWEST || median < SLOW || circumstances.is_throttled(lookups.quota) {
        return None;
    }
    let title = format!("DNS lookups take {} (median of {})", units::duration(median), lookups.direct.count());
    let draft = circumstances
        .costly(NAME, title, lookups.direct.sum())?
        .count("lookups", lookups.count)
        .time("dns_ms_median", Some(median))
        .time("dns_ms_p95", lookups.direct.quantile(0.95));
    let advice = "Ask a caching resolver nearby (on the node), look at search domains that multiply questions (ndots), and keep \
                  connections so that fewer names are looked up.";
    Some(draft.advise(advice.into(), "a median below 100 ms"))
}
