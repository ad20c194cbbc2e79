//! Decides when detail is lowered because tracing costs too much, and when it is raised again. Pure: costs and time in, decisions out.

use std::time::Duration;

/// Costs are smoothed over about this long: a burst is over sooner than detail could be lowered.
const SMOOTHING: Duration = Duration::from_secs(2);
/// Detail is raised when the cost is below this share of the limit: the higher detail costs more.
const COMFORTABLE: f64 = 0.5;
/// How long it must be so, unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// If raised detail costs too much again within so many times that, it was raised too soon: the next time takes twice as long.
const RELAPSE: u32 = 2;
/// How often it can take twice as long.
const MOST_DOUBLINGS: u32 = 4;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Look at connections only.
    Lower,
    /// Look at exchanges again.
    Raise,
}

/// The decision.
#[derive(Debug)]
pub struct Governor {
    /// The most that tracing may cost, percent of one processor.
    limit: f64,
    patience: Duration,
    /// What it costs, smoothed.
    cost: f64,
    lowered: bool,
    was_raised: bool,
    /// For how long detail has been as it is.
    since: Duration,
    /// For how long the cost has been comfortable.
    comfortable: Duration,
    doublings: u32,
}

impl Governor {
    /// Detail is high at first. `limit` is in percent of one processor; detail is raised when the cost has been well below for
    /// `patience`.
    pub fn new(limit: f64, patience: Duration) -> Self {
        Self {
            limit,
            patience,
            cost: 0.0,
            lowered: false,
            was_raised: false,
            since: Duration::ZERO,
            comfortable: Duration::ZERO,
            doublings: 0,
        }
    }

    /// Takes in what tracing has cost for a while, in percent of one processor.
    pub fn observe(&mut self, cost: f64, passed: Duration) -> Option<Change> {
        let weight = passed.as_secs_f64() / (passed + SMOOTHING).as_secs_f64().max(f64::MIN_POSITIVE);
        self.cost += (cost - self.cost) * weight;
        self.since = self.since.saturating_add(passed);
        let change = if self.lowered { self.may_raise(passed) } else { self.must_lower() };
        if change.is_some() {
            self.lowered = !self.lowered;
            self.was_raised = !self.lowered;
            (self.since, self.comfortable) = (Duration::ZERO, Duration::ZERO);
        }
        change
    }

    /// What tracing costs, smoothed, in percent of one processor.
    pub fn cost(&self) -> f64 {
        self.cost
    }

    /// The most that it may cost.
    pub fn limit(&self) -> f64 {
        self.limit
    }

    fn must_lower(&mut self) -> Option<Change> {
        let has_lasted = self.since >= self.wait() * RELAPSE;
        if self.cost <= self.limit {
            if has_lasted {
                self.doublings = 0;
            }
            return None;
        }
        let is_relapse = self.was_raised && !has_lasted;
        self.doublings = if is_relapse { (self.doublings + 1).min(MOST_DOUBLINGS) } else { 0 };
        Some(Change::Lower)
    }

    fn may_raise(&mut self, passed: Duration) -> Option<Change> {
        let is_comfortable = self.cost < self.limit * COMFORTABLE;
        self.comfortable = if is_comfortable { self.comfortable.saturating_add(passed) } else { Duration::ZERO };
        (self.comfortable >= self.wait()).then_some(Change::Raise)
    }

    fn wait(&self) -> Duration {
        self.patience * 2_u32.pow(self.doublings)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMIT: f64 = 5.0;

    fn governor() -> Governor {
        Governor::new(LIMIT, Duration::from_secs(30))
    }

    /// After how many seconds of this cost something changes.
    fn until_change(governor: &mut Governor, cost: f64, at_most: u32) -> Option<(u32, Change)> {
        (1..=at_most).find_map(|second| governor.observe(cost, SECOND).map(|change| (second, change)))
    }

    #[test]
    fn what_costs_less_than_the_limit_is_left_alone() {
        assert_eq!(until_change(&mut governor(), LIMIT, 100_000), None);
    }

    #[test]
    fn a_burst_changes_nothing_and_what_lasts_lowers_detail_within_seconds() {
        let mut governor = governor();
        assert_eq!(governor.observe(2.9 * LIMIT, SECOND), None);
        assert_eq!(until_change(&mut governor, 0.0, 100), None);
        let (second, change) = until_change(&mut governor, 1.5 * LIMIT, 100).expect("it lasts");
        assert_eq!(change, Change::Lower);
        assert!((2..=5).contains(&second), "{second}");
    }

    #[test]
    fn detail_is_raised_only_when_the_cost_has_been_well_below_the_limit_for_long() {
        let mut governor = governor();
        assert!(until_change(&mut governor, 2.0 * LIMIT, 100).is_some());
        assert_eq!(until_change(&mut governor, 0.6 * LIMIT, 10_000), None, "lower, and not by enough");
        assert_eq!(until_change(&mut governor, 0.1 * LIMIT, 20), None);
        assert_eq!(until_change(&mut governor, LIMIT, 20), None, "the time begins anew");
        let (second, change) = until_change(&mut governor, 0.1 * LIMIT, 100).expect("it lasts");
        assert_eq!(change, Change::Raise);
        assert!((30..=35).contains(&second), "{second}");
    }

    #[test]
    fn a_load_that_returns_as_soon_as_detail_is_raised_is_waited_for_longer_each_time() {
        let mut governor = governor();
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert!(matches!(until_change(&mut governor, 3.0 * LIMIT, 10), Some((_, Change::Lower))));
            let raised = until_change(&mut governor, 0.0, 100_000);
            waits.extend(raised.map(|(second, _)| second / 30 * 30));
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 480, 480, 480]);
        assert_eq!(until_change(&mut governor, 0.0, 10_000), None);
        assert!(until_change(&mut governor, 3.0 * LIMIT, 10).is_some());
        assert!(until_change(&mut governor, 0.0, 40).is_some(), "what has lasted is forgiven");
    }

    proptest! {
        #[test]
        fn lowering_and_raising_take_turns_and_are_never_a_flutter(
            costs in prop::collection::vec(0.0..50.0_f64, 1..2_000),
        ) {
            let mut governor = governor();
            let mut last = Change::Raise;
            let mut raised_or_lowered_at = None;
            for (second, cost) in costs.into_iter().enumerate() {
                if let Some(change) = governor.observe(cost, SECOND) {
                    prop_assert_ne!(change, last);
                    if let (Change::Raise, Some(lowered_at)) = (change, raised_or_lowered_at) {
                        prop_assert!(second - lowered_at >= 30);
                    }
                    (last, raised_or_lowered_at) = (change, Some(second));
                }
            }
        }
    }
}
