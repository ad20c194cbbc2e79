//! What the two rules about idle timeouts share: a fixed time after which one side closes, and what that costs.

use super::{Circumstances, Draft, of};
use crate::{
    findings::{
        known_timeouts::{self, Side},
        seen::{Group, closes::ByOne, reuse::Caused},
        sketch::Cluster,
    },
    output::units,
    track::record::{Nanos, Role},
};

/// Fewer closes do not show a fixed time.
const FEWEST_CLOSES: u64 = 5;
/// All at one moment, after the same idle time: they were last used together, and let go of together, be it at the end of the work.
const FEWEST_MOMENTS: u64 = 2;
/// Fewer connections missed may be chance.
const FEWEST_COLD: u64 = 3;
/// Half of the closes must lie this close together, as a share of the time: what ends connections at random spreads over more.
const NARROW: f64 = 0.1;
/// The same in time: timers that look once in a while, such as every quarter of a second, spread that far.
const NARROW_NS: Nanos = 250_000_000;
/// At least this share of a side's closes of idle connections must be at that time.
const MOST: f64 = 0.5;

/// A fixed idle time before the close.
struct Timeout {
    /// After how long.
    after: Nanos,
    /// How far half of the closes lie apart.
    spread: Nanos,
    /// Closes at that time.
    closes: u64,
}

/// The idle timeout by which one side closes; `None` if there is none to be seen.
fn timeout(closes: &ByOne) -> Option<Timeout> {
    if closes.idle.count() < FEWEST_CLOSES || closes.moments < FEWEST_MOMENTS {
        return None;
    }
    let Cluster { middle, width } = closes.idle.closest_half()?;
    let tolerance = NARROW_NS.max((middle as f64 * NARROW) as Nanos);
    let at_timeout = closes.idle.count_within(middle.saturating_sub(tolerance), middle.saturating_add(tolerance));
    let is_fixed = width <= tolerance && at_timeout as f64 >= closes.idle.count() as f64 * MOST;
    (is_fixed && at_timeout >= FEWEST_CLOSES).then_some(Timeout { after: middle, spread: width, closes: at_timeout })
}

/// What the two rules say differently.
pub struct Closing {
    /// The rule's name.
    pub name: &'static str,
    /// Who closes, as a default has it.
    pub side: Side,
    /// Half a sentence.
    pub who: &'static str,
    /// The closes of that side.
    pub closes: fn(&Group) -> &ByOne,
    /// The exchanges that came too late for them.
    pub caused: fn(&Group) -> &Caused,
}

impl Closing {
    /// The finding without its advice, and the timeout; `None` if there is none, or nobody minds.
    pub fn find(&self, group: &Group, circumstances: &Circumstances<'_>) -> Option<(Draft, Nanos)> {
        let (closes, caused) = ((self.closes)(group), (self.caused)(group));
        if circumstances.key.role != Some(Role::Client) || caused.count < FEWEST_COLD {
            return None;
        }
        let timeout = timeout(closes)?;
        let title = format!(
            "{} after {} idle ({} closes), and {} exchanges came later than that",
            self.who,
            units::duration(timeout.after),
            of(timeout.closes, group.closes.count()),
            of(caused.count, group.reuse.exchanges()),
        );
        let draft = circumstances.costly(self.name, title, caused.setup.sum())?;
        let draft = evidence(draft, group, &timeout, closes, caused);
        Some((draft.hint(known_timeouts::hint(timeout.after, self.side)), timeout.after))
    }
}

/// What would change either verdict.
pub const WOULD_CHANGE: &str =
    "closes that spread over more than a tenth of their median, or exchanges that come before the timeout";

/// The evidence that both rules give.
fn evidence(draft: Draft, group: &Group, timeout: &Timeout, closes: &ByOne, caused: &Caused) -> Draft {
    let reuse = &group.reuse;
    draft
        .time("idle_timeout_ms", Some(timeout.after))
        .time("spread_ms", Some(timeout.spread))
        .count("closes_at_timeout", timeout.closes)
        .count("closes", group.closes.count())
        .count("exchanges", reuse.exchanges())
        .count("cold_exchanges", reuse.cold)
        .count("cold_by_timeout", caused.count)
        .time("gap_ms_median", caused.gap.median())
        .time("cold_ms_median", reuse.cold_total.median())
        .time("warm_ms_median", reuse.warm_total.median())
        .time("keeps_95_ms", reuse.needed.quantile(0.95))
        .time("keeps_99_ms", reuse.needed.quantile(0.99))
        .flag("keepalive", group.closes.keepalive())
        .examples(if caused.examples.list().is_empty() { closes.idle_examples.list() } else { caused.examples.list() })
        .doubt(group.closes.count() < 2 * FEWEST_CLOSES, "few closes were seen")
}

/// Seconds that a person would set for an idle time to be outlasted: some more than it, in whole steps.
pub fn rounded_up(time: Option<Nanos>) -> String {
    let seconds = (time.unwrap_or(0) as f64 * 1.1 / 1e9).ceil() as u64;
    let step = match seconds {
        0..=10 => 1,
        11..=60 => 5,
        61..=300 => 30,
        _ => 60,
    };
    format!("{} s", seconds.div_ceil(step).max(1) * step)
}
