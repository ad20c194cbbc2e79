//! The peer has closed, and this process does not let go.

use super::{Circumstances, counted};
use crate::{
    findings::{
        finding::{Finding, Severity},
        seen::Group,
    },
    output::units,
    track::record::Nanos,
};

/// The rule's name.
pub const NAME: &str = "leaked-close-wait";

/// One may be on its way.
const FEWEST: u64 = 3;
/// A pool that looks at its connections only when it uses them may keep a dead one for as long as it is not asked: a minute is usual.
const LONG: Nanos = 60_000_000_000;

/// Looks at either side.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let fins = &group.closes.unanswered_fins;
    let long = fins.count_within(LONG, Nanos::MAX);
    if long < FEWEST {
        return None;
    }
    let title = format!(
        "{} kept for more than {} after the peer had closed, {} at most",
        counted(long, "connection"),
        units::duration(LONG),
        units::duration(fins.largest()?),
    );
    let draft = circumstances
        .draft(NAME, title, Severity::Medium)
        .count("connections", long)
        .time("open_for_ms_median", fins.median())
        .time("open_for_ms_max", fins.largest())
        .examples(group.closes.unanswered_examples.list());
    let advice = "The process does not read the end of these connections, or never closes them: each holds a descriptor (CLOSE_WAIT in \
                  `ss`). Close responses and connections when done, and let the pool drop idle ones before the peer does.";
    Some(draft.advise(advice.into(), "releases within a minute of the peer's FIN"))
}
