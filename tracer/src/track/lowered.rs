//! When exchanges were not looked at, because that cost too much: what is told of an exchange must not reach over such a time.

use super::exchange::Turned;

/// More times than this are joined to the last.
const MOST: usize = 64;

/// The times at which detail was lowered, on the boot clock.
#[derive(Debug, Default)]
pub(super) struct Lowered {
    /// From and until, in order; the last may go on.
    times: Vec<(u64, u64)>,
}

impl Lowered {
    /// Exchanges are not looked at from now on.
    pub fn begin(&mut self, at: u64) {
        if self.times.len() < MOST {
            self.times.push((at, u64::MAX));
        } else if let Some(last) = self.times.last_mut() {
            last.1 = u64::MAX;
        }
    }

    /// They are again.
    pub fn end(&mut self, at: u64) {
        if let Some(last) = self.times.last_mut() {
            last.1 = last.1.min(at);
        }
    }

    /// Whether they always were.
    #[inline]
    pub fn is_never(&self) -> bool {
        self.times.is_empty()
    }

    /// Whether they were not at some time between these two.
    #[inline]
    pub fn overlaps(&self, from: u64, until: u64) -> bool {
        self.times.iter().any(|(begin, end)| *begin <= until && from <= *end)
    }

    /// Whether an exchange can be told, whose end became known at `now` and whose connection was opened then. Not if it may have gone on
    /// unseen. Nor if it is the first that was seen after such a time: what has passed unseen counts with it in the kernel, its bytes and
    /// whether it is the connection's first.
    #[inline]
    pub fn was_seen(&self, turned: &Turned, opened_at: u64, now: u64) -> bool {
        if self.is_never() {
            return true;
        }
        let since = turned.idle.map_or(opened_at, |idle| turned.asked_at.saturating_sub(idle));
        !self.overlaps(since.min(turned.asked_at), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::{exchange::End, record::Nanos};

    fn turned(asked_at: u64, idle: Nanos) -> Turned {
        let end = End::default();
        let (index, answered_at) = (0, asked_at + 1);
        Turned {
            index,
            asked_at,
            idle: Some(idle),
            answered_at,
            end,
            greeting: false,
            stale: false,
            maybe_tickets: false,
        }
    }

    #[test]
    fn an_exchange_is_told_if_it_was_seen_whole_and_all_that_came_before_it() {
        let mut lowered = Lowered::default();
        lowered.begin(100);
        assert!(lowered.was_seen(&turned(10, 5), 1, 99), "it was over before");
        assert!(!lowered.was_seen(&turned(10, 5), 1, 100), "its end may not have been seen");
        assert!(!lowered.was_seen(&turned(150, 5), 1, 1_000));
        lowered.end(200);
        assert!(!lowered.was_seen(&turned(150, 5), 1, 1_000));
        assert!(lowered.was_seen(&turned(300, 5), 1, 1_000), "it began after that, and so did what was before it");
        assert!(!lowered.was_seen(&turned(300, 100), 1, 1_000), "something may have passed in between");
        let first = Turned { idle: None, ..turned(300, 0) };
        assert!(lowered.was_seen(&first, 250, 1_000));
        assert!(!lowered.was_seen(&first, 150, 1_000), "it may be the connection's thousandth");
    }

    #[test]
    fn more_times_than_are_kept_are_taken_for_one() {
        let mut lowered = Lowered::default();
        for at in (0..1_000).map(|index| 10 * index) {
            lowered.begin(at);
            lowered.end(at + 5);
        }
        assert_eq!(lowered.times.len(), MOST);
        assert!(
            lowered.overlaps(9_995, 9_995) && lowered.overlaps(8_008, 8_008),
            "no time that was lowered is forgotten"
        );
        assert!(!lowered.overlaps(6, 9));
    }
}
