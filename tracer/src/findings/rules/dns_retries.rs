//! Lookups that had to be asked again, or were never answered.

use super::{Circumstances, of};
use crate::{
    findings::{finding::Finding, seen::Group},
    output::units,
    track::record::Nanos,
};

/// The rule's name.
pub const NAME: &str = "dns-retries";

/// One lost datagram happens.
const FEWEST: u64 = 3;
/// A retry costs the resolver's timeout: 5 s by default (resolv.conf(5), `timeout`).
const TIMEOUT: Nanos = 5_000_000_000;

/// Looks at the lookups of a process name at one server.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let lookups = &group.lookups;
    let troubled = lookups.retried.max(lookups.unanswered);
    if troubled < FEWEST {
        return None;
    }
    let cost = lookups.again.sum().saturating_add(TIMEOUT.saturating_mul(lookups.unanswered));
    let title = format!(
        "{} DNS lookups were asked again, and {} never answered{}",
        of(lookups.retried, lookups.count),
        lookups.unanswered,
        match lookups.again.median() {
            Some(median) => format!("; they took {} in the median", units::duration(median)),
            None => String::new(),
        },
    );
    let draft = circumstances
        .costly(NAME, title, cost)?
        .count("retried", lookups.retried)
        .count("lookups", lookups.count)
        .count("failed", lookups.unanswered)
        .time("retry_ms_median", lookups.again.median())
        .doubt(lookups.unanswered > 0, "what an unanswered lookup cost is taken to be the default timeout of 5 s");
    let advice = "Datagrams to or from this DNS server get lost, or it is overloaded: ask a resolver on the node, and see whether the \
                  node's connection tracking drops UDP.";
    Some(draft.advise(advice.into(), "lookups that are answered at once"))
}
