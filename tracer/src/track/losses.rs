//! Losses by place and cause, for the summary.

use super::record::{Loss, WallTime};

/// More causes than there are; a recording could name any number.
const MAX_CAUSES: usize = 64;

/// Totals of what was lost.
#[derive(Default)]
pub(super) struct Losses {
    totals: Vec<Loss>,
}

impl Losses {
    /// Adds a loss to the totals.
    pub fn add(&mut self, loss: &Loss) {
        let full = self.totals.len() >= MAX_CAUSES;
        let same = |total: &&mut Loss| total.place == loss.place && total.cause == loss.cause;
        match self.totals.iter_mut().find(same) {
            Some(total) => add(total, loss.at, loss.count),
            // Some cause is better than no count.
            None if full => self.totals.iter_mut().take(1).for_each(|total| add(total, loss.at, loss.count)),
            None => self.totals.push(loss.clone()),
        }
    }

    /// Whether anything was lost there for that cause.
    pub fn has(&self, place: &str, cause: &str) -> bool {
        self.totals.iter().any(|total| total.place == place && total.cause == cause)
    }

    /// All totals.
    pub fn into_totals(self) -> Vec<Loss> {
        self.totals
    }
}

fn add(total: &mut Loss, at: WallTime, count: u64) {
    total.at = total.at.max(at);
    total.count = total.count.saturating_add(count);
}
