//! Connections died in silence, and TCP keepalive, which would have told, was off.

use super::{Circumstances, counted, stale_exchange::between};
use crate::{
    findings::{
        finding::{Finding, Severity},
        seen::Group,
    },
    output::units,
};

/// The rule's name. One is enough: each was a request that waited for nothing.
pub const NAME: &str = "keepalive-off";

/// Looks at a client.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let drops = group.stale.silent_without_keepalive;
    if drops == 0 {
        return None;
    }
    let title = format!("{} died in silence, and TCP keepalive was off", counted(drops, "connection"));
    let draft = circumstances
        .draft(NAME, title, Severity::Low)
        .count("silent_drops", drops)
        .count("connections", group.closes.count())
        .examples(group.stale.examples.list())
        .doubt(
            group.stale.guessed,
            "that the peer was gone is inferred: the request was never answered nor acknowledged",
        );
    let interval = match (group.stale.alive.largest(), group.stale.dead_after) {
        (Some(alive), Some(dead)) if alive < dead => between(alive, dead),
        (_, Some(dead)) => units::duration(dead / 2),
        _ => "60 s".into(),
    };
    let advice = format!(
        "Turn TCP keepalive on with TCP_KEEPIDLE of about {interval}: it keeps the path open, and a dead connection is found without a \
         request having to wait for it. The kernel's default of two hours is too long."
    );
    Some(draft.advise(advice, "connections that are closed by FIN or RST, or keepalive turned on"))
}
