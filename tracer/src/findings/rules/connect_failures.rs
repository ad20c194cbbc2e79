//! Connects that fail.

use super::{Circumstances, of, share};
use crate::{
    findings::{
        finding::{Finding, Severity},
        seen::Group,
    },
    track::record::Role,
};

/// The rule's name.
pub const NAME: &str = "connect-failures";

/// Fewer may be a server that restarts.
const FEWEST: u64 = 5;
/// At least this share of the connects.
const OFTEN: f64 = 0.1;

/// Looks at a client.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let connects = &group.connects;
    let failures = connects.failures();
    if circumstances.key.role != Some(Role::Client) || failures < FEWEST || share(failures, connects.count) < OFTEN {
        return None;
    }
    let kinds = [
        (connects.refused, "refused"),
        (connects.timeout, "not answered"),
        (connects.unreachable, "unreachable"),
        (connects.aborted, "given up by this side"),
    ];
    let (_, most) = kinds.into_iter().max_by_key(|(count, _)| *count)?;
    let kinds: Vec<_> =
        kinds.into_iter().filter(|(count, _)| *count > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let title = format!("{} connects failed: {}", of(failures, connects.count), kinds.join(", "));
    let severity = if failures == connects.count { Severity::High } else { Severity::Medium };
    let cost = connects.failed.sum();
    let draft = circumstances
        .draft(NAME, title, severity)
        .cost(cost, circumstances.per_minute(cost))
        .count("failed", failures)
        .count("connections", connects.count)
        .count("refused", connects.refused)
        .count("timeout", connects.timeout)
        .count("unreachable", connects.unreachable)
        .count("aborted", connects.aborted)
        .time("failed_ms_median", connects.failed.median())
        .examples(connects.failed_examples.list());
    let advice = match most {
        "refused" => {
            "Nobody listens there, or a firewall rejects: see whether the server runs and listens on this address and port."
        }
        "not answered" => {
            "Nothing answers: a firewall drops, the route is wrong, or the host is down. Shorten the connect timeout meanwhile."
        }
        "unreachable" => {
            "There is no route, or no local port is left (EADDRNOTAVAIL): see the routes, and how many connections are opened."
        }
        _ => {
            "This side gives up before it is answered: its connect timeout is shorter than the path takes, or requests are cancelled. \
              Clients that try IPv6 and IPv4 at once give up the slower one on purpose."
        }
    };
    Some(draft.advise(advice.into(), "connects that succeed"))
}
