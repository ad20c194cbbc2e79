//! One exchange a connection.

use super::{Circumstances, counted, share};
use crate::{
    findings::{finding::Finding, seen::Group},
    output::units,
    track::record::Role,
};

/// The rule's name.
pub const NAME: &str = "no-reuse";

/// Fewer connections that could have been spared may be chance.
const FEWEST: u64 = 5;
/// At least this share of the closed connections carried one exchange: a few are normal in any pool.
const MOST: f64 = 0.8;
/// Setup below this share of the exchanges' whole time is not what makes them slow: downloads.
const SETUP_SHARE: f64 = 0.1;

/// Looks at a client.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let (reuse, caused) = (&group.reuse, &group.reuse.after_use);
    let connections = group.closes.count();
    let setup = caused.setup.sum();
    if circumstances.key.role != Some(Role::Client)
        || caused.count < FEWEST
        || share(reuse.once, connections) < MOST
        || share(setup, setup.saturating_add(reuse.taken)) < SETUP_SHARE
    {
        return None;
    }
    let (asked, (by_local, by_peer)) = (reuse.asked, reuse.once_closed);
    let is_local = if asked == (0, 0) { by_local >= by_peer } else { asked.0 >= asked.1 };
    let who = match (is_local, asked == (0, 0)) {
        (true, false) => "this side asks to close (Connection: close)",
        (true, true) => "this side closes right after the answer",
        (false, false) => "the peer asks to close (Connection: close)",
        (false, true) => "the peer closes right after its answer",
    };
    let title = format!(
        "one exchange a connection: {} for {}, {who}",
        counted(connections, "connection"),
        counted(reuse.exchanges(), "exchange"),
    );
    let advice = match is_local {
        true => format!(
            "Let this client keep its connections: a keep-alive agent, one session for all requests, no `Connection: close`. Each \
             connection costs {} to set up.",
            caused.setup.median().map_or_else(|| "time".into(), units::duration)
        ),
        false => "Let the server, or the proxy before it, keep connections open after an answer: its keep-alive setting, or the \
                  number of requests that it allows on a connection."
            .into(),
    };
    let draft = circumstances
        .costly(NAME, title, setup)?
        .count("connections", connections)
        .count("exchanges", reuse.exchanges())
        .ratio("exchanges_per_connection", Some(share(reuse.exchanges(), connections)))
        .count("close_asked_local", asked.0)
        .count("close_asked_peer", asked.1)
        .count("closed_by_local", by_local)
        .count("closed_by_peer", by_peer)
        .time("setup_ms_median", caused.setup.median())
        .time("cold_ms_median", reuse.cold_total.median())
        .examples(caused.examples.list())
        .doubt(asked == (0, 0), "who wanted the close is told from who closed: no HTTP head was seen that asks for it");
    Some(draft.advise(advice, WOULD_CHANGE))
}

const WOULD_CHANGE: &str = "a second exchange on the connections, or more than 10 s between them";
