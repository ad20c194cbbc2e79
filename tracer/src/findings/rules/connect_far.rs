//! The peer is far away, so that a new connection costs several round trips.

use super::{Circumstances, share};
use crate::{
    findings::{finding::Finding, seen::Group},
    output::units,
    track::record::{Nanos, Role},
};

/// The rule's name.
pub const NAME: &str = "connect-far";

/// Fewer cold exchanges do not matter.
const FEWEST: u64 = 5;
/// Within a region a round trip takes a millisecond or two; from here on each one is felt.
const FAR: Nanos = 30_000_000;
/// Setting up and asking takes four or five of them: TCP one, TLS one or two, the request one, a lookup perhaps. What costs so many is
/// not dear for the distance.
const MOST_TRIPS: f64 = 10.0;
/// At least this share of the exchanges paid for it.
const OFTEN: f64 = 0.1;

/// Looks at a client.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let reuse = &group.reuse;
    let (connect, cold) = (reuse.connect.median()?, reuse.cold_total.median()?);
    if circumstances.key.role != Some(Role::Client)
        || reuse.cold < FEWEST
        || connect < FAR
        || share(reuse.cold, reuse.exchanges()) < OFTEN
    {
        return None;
    }
    let round_trips = cold as f64 / connect as f64;
    if round_trips > MOST_TRIPS {
        return None;
    }
    let title = format!(
        "the peer is {} away, and a cold exchange costs {round_trips:.1} round trips ({})",
        units::duration(connect),
        units::duration(cold),
    );
    let cost = [&reuse.local_idle, &reuse.peer_idle, &reuse.after_use, &reuse.first, &reuse.others]
        .into_iter()
        .fold(0, |sum: Nanos, caused| sum.saturating_add(caused.setup.sum()));
    let draft = circumstances
        .costly(NAME, title, cost)?
        .count("cold_exchanges", reuse.cold)
        .count("exchanges", reuse.exchanges())
        .time("connect_ms_median", Some(connect))
        .time("cold_ms_median", Some(cold))
        .ratio("round_trips", Some(round_trips))
        .examples(reuse.first.examples.list());
    let advice = "Keep connections, so that exchanges are warm; TLS 1.3 saves a round trip against 1.2; or ask a server nearer by.";
    Some(draft.advise(advice.into(), "connects below 30 ms, or fewer cold exchanges"))
}
