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

    /// What can be told of an exchange whose end became known at `now` and whose connection was opened then. Nothing if it may have gone
    /// on unseen, or is the first that was seen after such a time: it may pass for the connection's first. Nor its bytes if the
    /// connection is older than such a time: what has passed unseen is counted with what passes next.
    #[inline]
    pub fn seen_of(&self, turned: Turned, opened_at: u64, now: u64) -> Option<Turned> {
        if self.is_never() {
            return Some(turned);
        }
        let since = turned.idle.map_or(opened_at, |idle| turned.asked_at.saturating_sub(idle));
        if self.overlaps(since.min(turned.asked_at), now) {
            return None;
        }
        let mut seen = turned;
        if self.overlaps(opened_at, seen.asked_at) {
            (seen.end.sent, seen.end.received) = (None, None);
        }
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::{exchange::End, record::Nanos};

    fn turned(asked_at: u64, idle: Nanos) -> Turned {
        let end = End { sent: Some(1), received: Some(2), ..End::default() };
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
        let bytes = |turned: Turned| (turned.end.sent, turned.end.received);
        let seen_of = |lowered: &Lowered, turned, opened_at, now| lowered.seen_of(turned, opened_at, now).map(bytes);
        let (known, unknown) = (Some((Some(1), Some(2))), Some((None, None)));
        assert_eq!(seen_of(&lowered, turned(10, 5), 1, 99), known, "it was over before");
        assert_eq!(seen_of(&lowered, turned(10, 5), 1, 100), None, "its end may not have been seen");
        assert_eq!(seen_of(&lowered, turned(150, 5), 1, 1_000), None);
        lowered.end(200);
        assert_eq!(seen_of(&lowered, turned(150, 5), 1, 1_000), None);
        assert_eq!(seen_of(&lowered, turned(300, 5), 250, 1_000), known, "its connection began after that");
        assert_eq!(seen_of(&lowered, turned(300, 5), 1, 1_000), unknown, "bytes of before may be counted with its own");
        assert_eq!(seen_of(&lowered, turned(300, 100), 1, 1_000), None, "something may have passed in between");
        let first = Turned { idle: None, ..turned(300, 0) };
        assert_eq!(seen_of(&lowered, first, 250, 1_000), known);
        assert_eq!(seen_of(&lowered, first, 150, 1_000), None, "it may be the connection's thousandth");
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
