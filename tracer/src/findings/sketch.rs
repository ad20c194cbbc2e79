//! Quantiles of any number of durations in bounded memory.

use sketches_ddsketch::{Config, DDSketch};

use crate::track::record::Nanos;

/// Relative error of a quantile.
const ERROR: f64 = 0.01;
/// The same where a fixed time is looked for: 60 s to within 0.12 s.
const FINE_ERROR: f64 = 0.002;
/// At most 16 KiB. With the fine error the largest and a value 3,600 times smaller can be told apart; smaller ones count as that.
const MOST_BINS: u32 = 2048;
/// Durations below a microsecond count as none.
const SMALLEST_NS: f64 = 1e3;

/// Any number of durations.
#[derive(Clone, Default)]
pub struct Durations {
    sketch: Option<Box<DDSketch>>,
    sum: Nanos,
    fine: bool,
}

/// The closest half of all durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its middle.
    pub middle: Nanos,
    /// From its smallest to its largest.
    pub width: Nanos,
}

impl Durations {
    /// With an error of 0.2 %.
    pub fn fine() -> Self {
        Self { fine: true, ..Self::default() }
    }

    /// Counts one.
    pub fn add(&mut self, duration: Nanos) {
        let error = if self.fine { FINE_ERROR } else { ERROR };
        let new = || Box::new(DDSketch::new(Config::new(error, MOST_BINS, SMALLEST_NS)));
        self.sketch.get_or_insert_with(new).add(duration as f64);
        self.sum = self.sum.saturating_add(duration);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.sketch.as_ref().map_or(0, |sketch| sketch.count() as u64)
    }

    /// All together, exactly.
    pub fn sum(&self) -> Nanos {
        self.sum
    }

    /// The duration below which this share of all lies; `None` if there are none.
    pub fn quantile(&self, share: f64) -> Option<Nanos> {
        let value = self.sketch.as_ref()?.quantile(share.clamp(0.0, 1.0)).ok()??;
        Some(value.max(0.0) as Nanos)
    }

    /// The median.
    pub fn median(&self) -> Option<Nanos> {
        self.quantile(0.5)
    }

    /// The largest.
    pub fn largest(&self) -> Option<Nanos> {
        self.sketch.as_ref()?.max().map(|value| value.max(0.0) as Nanos)
    }

    /// How many are at least `from` and at most `to`, as far as the sketch can tell.
    pub fn count_within(&self, from: Nanos, to: Nanos) -> u64 {
        let count = self.count();
        let below = |limit: Nanos| self.rank(count, |value| value < limit);
        let up_to = |limit: Nanos| self.rank(count, |value| value <= limit);
        up_to(to).saturating_sub(below(from))
    }

    /// How many of the durations, in order, come before the first that is not so.
    fn rank(&self, count: u64, is_so: impl Fn(Nanos) -> bool) -> u64 {
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle, count).is_some_and(&is_so) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The duration at a place in their order.
    fn at(&self, place: u64, count: u64) -> Option<Nanos> {
        // Half a place further: the sketch rounds down, and the division might have before.
        if count <= 1 { self.median() } else { self.quantile((place as f64 + 0.5) / (count - 1) as f64) }
    }

    /// The shortest interval that holds half of them, known as the shorth: it finds a fixed time that up to half of the samples have
    /// nothing to do with.
    pub fn closest_half(&self) -> Option<Cluster> {
        const STEPS: u32 = 40;
        let interval = |step: u32| {
            let from = f64::from(step) / f64::from(STEPS) / 2.0;
            let (low, high) = (self.quantile(from)?, self.quantile(from + 0.5)?);
            // The ends are exact and may lie inside of the bins beside them.
            let width = high.saturating_sub(low);
            Some(Cluster { middle: low.saturating_add(width / 2), width })
        };
        (0..=STEPS).filter_map(interval).min_by_key(|cluster| cluster.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Nanos = 1_000_000_000;

    fn of(values: &[Nanos]) -> Durations {
        let mut durations = Durations::fine();
        values.iter().for_each(|value| durations.add(*value));
        durations
    }

    #[test]
    fn of_none_nothing_is_known() {
        let none = Durations::default();
        assert_eq!((none.count(), none.median(), none.closest_half(), none.largest()), (0, None, None, None));
    }

    #[test]
    fn a_fixed_time_is_found_among_as_many_others() {
        let mut values: Vec<_> = (0..50).map(|n| 5 * S + n * 1_000_000).collect();
        values.extend((0..45).map(|n| S + n * S * 3 / 2));
        let cluster = of(&values).closest_half().expect("a cluster");
        assert!(cluster.middle.abs_diff(5 * S) < S / 5, "{cluster:?}");
        assert!(cluster.width < S, "{cluster:?}");
    }

    #[test]
    fn random_times_have_no_narrow_half() {
        let values: Vec<_> = (1..100).map(|n| n * S / 4).collect();
        let cluster = of(&values).closest_half().expect("a half");
        assert!(cluster.width > cluster.middle / 2, "{cluster:?}");
    }

    proptest! {
        #[test]
        fn what_lies_within_is_counted_to_the_sketchs_error(
            mut values in prop::collection::vec(100_000_000..600 * S, 2..60),
            from in 1..600 * S,
            width in 1..100 * S,
        ) {
            let durations = of(&values);
            values.sort_unstable();
            let within = |grow: f64| {
                let (low, high) = (from as f64 * (1.0 + grow), (from + width) as f64 * (1.0 - grow));
                values.iter().filter(|value| (low..=high).contains(&(**value as f64))).count() as u64
            };
            let counted = durations.count_within(from, from + width);
            prop_assert!(within(0.005) <= counted && counted <= within(-0.005), "{counted}");
        }

        #[test]
        fn any_values_take_bounded_memory(values in prop::collection::vec(any::<Nanos>(), 1..200)) {
            let durations = of(&values);
            prop_assert_eq!(durations.count(), values.len() as u64);
            prop_assert!(durations.median().is_some());
        }
    }
}
