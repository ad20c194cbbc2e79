//! Connections that are broken off by resets.

use super::{Circumstances, counted, of, share};
use crate::findings::{
    finding::{Finding, Severity},
    seen::Group,
};

/// The rule's name.
pub const NAME: &str = "rst-storms";

/// Fewer happen.
const FEWEST: u64 = 5;
/// At least this share of the closes.
const OFTEN: f64 = 0.2;

/// Looks at either side. A local reset of a connection that had received something is not counted: TLS clients that leave a session
/// ticket unread close that way, and nothing is lost by it.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let closes = &group.closes;
    let (local, peer) = (closes.local.breaks, closes.peer.breaks);
    if local + peer < FEWEST || share(local + peer, closes.count()) < OFTEN {
        return None;
    }
    let who = if peer >= local { "the peer" } else { "this side" };
    let title = format!("{} were reset, mostly by {who}", of(local + peer, closes.count()) + " connections");
    let draft = circumstances
        .draft(NAME, title, Severity::Medium)
        .count("resets", local + peer)
        .count("connections", closes.count())
        .count("by_local", local)
        .count("by_peer", peer)
        .examples(if peer >= local { closes.peer.break_examples.list() } else { closes.local.break_examples.list() });
    let advice = match peer >= local {
        true => format!(
            "The peer breaks off: it crashed or restarted, its queue is full, or something between has forgotten the connections. Look at \
             the peer at the times of the {}.",
            counted(closes.peer.break_examples.list().len() as u64, "example")
        ),
        false => "This side breaks off before it has received anything: a timeout that is too short, linger 0, or requests that are \
                  cancelled."
            .into(),
    };
    Some(draft.advise(advice, "closes by FIN"))
}
