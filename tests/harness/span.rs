//! Between which two moments something happened, and how long that makes a time at least and at most.

use serde::{Deserialize, Serialize};

use crate::clock::monotonic_ns;

/// How far a time may be off: hooks run within the system calls whose ends are the bounds, but an emulated processor on
/// a busy machine counts its own ticks late.
const SLACK_MS: f64 = 1.0;

/// Milliseconds: at least, and at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range(pub f64, pub f64);

impl Range {
    /// Whether a value is in it, or as good as.
    pub fn holds(self, ms: f64) -> bool {
        self.outside(ms) <= SLACK_MS
    }

    /// How far a value lies outside of it.
    pub fn outside(self, ms: f64) -> f64 {
        (self.0 - ms).max(ms - self.1).max(0.0)
    }
}

/// The moments before and after a system call, nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub before: u64,
    pub after: u64,
}

impl Span {
    /// That of a call, and what it returns.
    pub fn of<R>(call: impl FnOnce() -> R) -> (Self, R) {
        let before = monotonic_ns();
        let result = call();
        (Self { before, after: monotonic_ns() }, result)
    }

    /// From something in this to something in a later one.
    pub fn until(self, later: Self) -> Range {
        let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
        Range(ms(self.after, later.before), ms(self.before, later.after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_outside_is_an_error() {
        let range = Range(1.0, 6.0);
        assert_eq!(range.outside(5.0), 0.0);
        assert_eq!(range.outside(0.5), 0.5);
        assert_eq!(range.outside(8.0), 2.0);
    }

    #[test]
    fn a_time_is_at_least_from_after_to_before() {
        let (early, late) = (Span { before: 0, after: 1_000_000 }, Span { before: 5_000_000, after: 7_000_000 });
        assert_eq!(early.until(late), Range(4.0, 7.0));
    }
}
