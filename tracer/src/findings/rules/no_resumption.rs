//! Full TLS handshakes with a peer whose sessions could be taken up again.

use super::{Circumstances, of, share};
use crate::{
    findings::{finding::Finding, seen::Group},
    output::units,
    track::record::{Nanos, Role},
};

/// The rule's name.
pub const NAME: &str = "no-resumption";

/// The first handshakes must be full, and a few at a time may be. Fewer than this say nothing.
const FEWEST: u64 = 10;
/// If more than this share was resumed, resumption works.
const WORKS: f64 = 0.2;

/// Where it was not seen that the peer resumes sessions, so much must be at stake each minute: connections that a pool opens at once
/// cannot have a session yet.
const WORTH_TRYING: Nanos = 100_000_000;

/// Looks at a client.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let handshakes = &group.handshakes;
    let (full, resumed) = (handshakes.full.count(), handshakes.resumed.count());
    if circumstances.key.role != Some(Role::Client) || full < FEWEST || share(resumed, full + resumed) > WORKS {
        return None;
    }
    // A resumed one spares the certificates: their verification is most of the processor's time. Where none was resumed, that time
    // is an upper bound of what could be saved.
    let saved = match (handshakes.full.median(), handshakes.resumed.median()) {
        (Some(full), Some(resumed)) => full.saturating_sub(resumed),
        _ => handshakes.full_cpu.median()?,
    };
    let cost = saved.saturating_mul(full - 1);
    if resumed == 0 && circumstances.per_minute(cost) < WORTH_TRYING {
        return None;
    }
    let title = format!(
        "{} TLS handshakes are full: each checks certificates again ({} in the median)",
        of(full, full + resumed),
        units::duration(handshakes.full.median()?),
    );
    let draft = circumstances
        .costly(NAME, title, cost)?
        .count("full", full)
        .count("resumed", resumed)
        .time("full_ms_median", handshakes.full.median())
        .time("resumed_ms_median", handshakes.resumed.median())
        .examples(handshakes.examples.list())
        .doubt(
            resumed == 0,
            "whether the peer resumes sessions at all was not seen; the cost is what the processor spent, at most",
        );
    let advice = "Fewer connections save more than cheaper ones. Besides, keep one TLS session cache for all connections of this client, \
                  and see that the server gives session tickets.";
    Some(draft.advise(advice.into(), "resumed handshakes, or fewer connections"))
}
