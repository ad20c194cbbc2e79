//! Connects whose SYN got lost.

use super::{Circumstances, of};
use crate::{
    findings::{finding::Finding, seen::Group},
    output::units,
};

/// The rule's name.
pub const NAME: &str = "syn-retransmits";

/// One lost packet happens.
const FEWEST: u64 = 3;

/// Looks at a client.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let connects = &group.connects;
    let again = connects.again.count();
    if again < FEWEST {
        return None;
    }
    let direct = connects.direct.median().unwrap_or(0);
    let cost = connects.again.sum().saturating_sub(direct.saturating_mul(again));
    let title = format!(
        "{} connects had to send their SYN again, and took {} in the median",
        of(again, connects.count),
        units::duration(connects.again.median()?),
    );
    let draft = circumstances
        .costly(NAME, title, cost)?
        .count("retransmitted", again)
        .count("connections", connects.count)
        .time("connect_ms_median", connects.direct.median())
        .time("retransmitted_ms_median", connects.again.median())
        .examples(connects.again_examples.list());
    let advice = "SYNs or their answers get lost: see whether the server's listen queue overflows (nstat: ListenOverflows, ListenDrops), \
                  whether a firewall or its connection table drops them, and whether the path loses packets. Fewer connections are hurt \
                  less.";
    Some(draft.advise(advice.into(), "connects that are answered at the first SYN"))
}
