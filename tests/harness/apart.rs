//! Comparing what was traced with what a program measured, on a machine that may stop it for a while between its clock and
//! its system call.

use std::collections::BTreeMap;

/// How far the two may be apart: the larger of these.
pub const SLACK_MS: f64 = 1.0;
const SLACK_SHARE: f64 = 0.05;

/// More would only hide that they are never the same.
const ROUNDS: u32 = 6;

/// Of each thing that is measured repeatedly, the measurement that was disturbed least. A disturbance makes the two differ; it
/// never makes them agree.
#[derive(Default)]
pub struct Comparison(BTreeMap<String, Measured>);

/// The measurement, and how much of what is allowed it takes up.
struct Measured {
    taken_up: f64,
    details: String,
}

impl Comparison {
    /// The least disturbed of these must be about the same.
    pub fn same(&mut self, what: &str, traced_ms: f64, told_ms: f64) {
        let apart = traced_ms - told_ms;
        let details = format!("traced {traced_ms:.3} ms, measured {told_ms:.3} ms, apart {apart:+.3} ms");
        self.note(what, apart.abs() / SLACK_MS.max(SLACK_SHARE * told_ms), details);
    }

    /// The least of these must not be above a limit.
    pub fn at_most(&mut self, what: &str, ms: f64, limit_ms: f64) {
        self.note(what, ms / limit_ms, format!("{ms:.3} ms of at most {limit_ms} ms"));
    }

    fn note(&mut self, what: &str, taken_up: f64, details: String) {
        println!("{what}: {details}");
        match self.0.get(what) {
            Some(best) if best.taken_up <= taken_up => {}
            _ => drop(self.0.insert(what.to_owned(), Measured { taken_up, details })),
        }
    }

    /// What was not as it should be even when it was disturbed least.
    fn failures(&self) -> Vec<String> {
        let failed = self.0.iter().filter(|(_, best)| best.taken_up > 1.0);
        failed.map(|(what, best)| format!("{what}: {}", best.details)).collect()
    }
}

/// Repeats a measurement until each thing in it was undisturbed once; fails if that does not come. Returns what the last round
/// returned.
#[track_caller]
pub fn until_undisturbed<R>(mut round: impl FnMut(&mut Comparison) -> R) -> R {
    let mut comparison = Comparison::default();
    for _ in 0..ROUNDS {
        let outcome = round(&mut comparison);
        if comparison.failures().is_empty() {
            return outcome;
        }
    }
    panic!("not once in {ROUNDS} rounds as it should be: {:#?}", comparison.failures())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_undisturbed_measurement_is_enough() {
        let mut traced_ms = [90.0, 103.0, 98.0].into_iter();
        let rounds = until_undisturbed(|comparison| {
            comparison.same("this", traced_ms.next().expect("no round is too many"), 100.0 + SLACK_MS);
            traced_ms.len()
        });
        assert_eq!(rounds, 1);
    }

    #[test]
    #[should_panic(expected = "not once")]
    fn what_is_always_apart_fails() {
        until_undisturbed(|comparison| {
            comparison.same("this", 5.0, 5.5);
            comparison.same("that", 5.0, 6.5);
        });
    }

    #[test]
    #[should_panic(expected = "not once")]
    fn what_is_always_above_its_limit_fails() {
        until_undisturbed(|comparison| comparison.at_most("this", 31.0, 30.0));
    }
}
