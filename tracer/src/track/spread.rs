//! Smallest, median and largest of any number of durations, in bounded memory: the ends exact, the median within 1 %.

use super::record::Nanos;

/// Durations are counted in steps of a 64th of a power of two: the middle of a step is at most 1/128 off.
const STEPS: u32 = 64;
/// Shorter durations, in powers of two of a nanosecond (about a microsecond), count as this.
const SHORTEST: u32 = 10;
/// Longer durations (about 13 days) count as this. It bounds the memory of one spread to 10 kB.
const LONGEST: u32 = 50;

/// Any number of durations.
#[derive(Default)]
pub(super) struct Spread(Option<Box<Histogram>>);

struct Histogram {
    smallest: Nanos,
    largest: Nanos,
    /// How many were of each step, up to the longest seen.
    counts: Vec<u32>,
}

impl Spread {
    /// Counts one.
    #[inline]
    pub fn add(&mut self, value: Nanos) {
        let step = step(value);
        if let Some(histogram) = &mut self.0
            && let Some(count) = histogram.counts.get_mut(step)
        {
            *count = count.saturating_add(1);
            if value < histogram.smallest {
                histogram.smallest = value;
            }
            if value > histogram.largest {
                histogram.largest = value;
            }
        } else {
            self.add_longest(value, step);
        }
    }

    /// Counts one of a step that none was counted of.
    #[cold]
    fn add_longest(&mut self, value: Nanos, step: usize) {
        let histogram =
            self.0.get_or_insert_with(|| Box::new(Histogram { smallest: value, largest: value, counts: Vec::new() }));
        histogram.smallest = histogram.smallest.min(value);
        histogram.largest = histogram.largest.max(value);
        histogram.counts.resize(step, 0);
        histogram.counts.push(1);
    }

    /// Smallest, median and largest; `None` if there was none.
    pub fn range(&self) -> Option<(Nanos, Nanos, Nanos)> {
        let Histogram { smallest, largest, counts } = self.0.as_deref()?;
        let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let mut before = total.saturating_sub(1) / 2;
        let median = counts.iter().position(|count| {
            let is_here = before < u64::from(*count);
            before = before.saturating_sub(u64::from(*count));
            is_here
        })?;
        Some((*smallest, middle(median).clamp(*smallest, *largest), *largest))
    }
}

/// The step of a duration.
fn step(value: Nanos) -> usize {
    let value = value.clamp(1 << SHORTEST, (1 << LONGEST) - 1);
    let power = value.ilog2();
    // From STEPS on, as the uppermost bit is set.
    let within = (value >> (power - STEPS.ilog2())) as usize;
    (power * STEPS) as usize + within - ((SHORTEST + 1) * STEPS) as usize
}

/// The duration in the middle of a step.
fn middle(step: usize) -> Nanos {
    let (power, within) = (SHORTEST + step as u32 / STEPS, step as u64 % u64::from(STEPS));
    let width = 1u64 << (power - STEPS.ilog2());
    (1 << power) + within * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_spread_has_exact_ends_and_a_near_median() {
        let mut spread = Spread::default();
        assert_eq!(spread.range(), None);
        for value in 1..=1001u64 {
            spread.add(value * 1_000_000);
        }
        let (smallest, median, largest) = spread.range().expect("not empty");
        assert_eq!((smallest, largest), (1_000_000, 1_001_000_000));
        assert!(median.abs_diff(501_000_000) <= 501_000_000 / 100, "{median}");
    }

    #[test]
    fn a_spread_takes_any_value_in_bounded_memory() {
        let mut spread = Spread::default();
        for value in [0, 1, u64::MAX] {
            spread.add(value);
        }
        let (smallest, _, largest) = spread.range().expect("not empty");
        assert_eq!((smallest, largest), (0, u64::MAX));
        assert!(spread.0.is_some_and(|histogram| histogram.counts.len() * size_of::<u32>() <= 10 * 1024));
    }

    proptest! {
        #[test]
        fn a_median_is_within_a_hundredth(mut values in prop::collection::vec(1_024..1u64 << LONGEST, 1..50)) {
            let mut spread = Spread::default();
            values.iter().for_each(|value| spread.add(*value));
            values.sort_unstable();
            let exact = values[(values.len() - 1) / 2];
            let (_, median, _) = spread.range().expect("not empty");
            prop_assert!(median.abs_diff(exact) <= exact / 100, "{median} for {exact}");
        }
    }
}
