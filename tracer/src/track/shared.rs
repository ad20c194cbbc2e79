//! What many connections have in common is kept once.

use std::{hash::Hash, rc::Rc};

use foldhash::fast::RandomState;
use hashbrown::HashSet;

/// Most different values that are shared, in each of two generations; connections keep theirs alive by themselves.
pub(super) const GENERATION: usize = 1_024;

/// Values for which nothing is looked up.
const RECENT: usize = 4;

/// Values that connections share.
pub(super) struct Shared<T> {
    newer: HashSet<Rc<T>, RandomState>,
    /// The full predecessor of `newer`.
    older: HashSet<Rc<T>, RandomState>,
    /// Those asked for last, for which nothing is looked up: what one connection has, others soon have too.
    recent: [Option<Rc<T>>; RECENT],
    /// The place of the oldest.
    oldest: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { newer: HashSet::default(), older: HashSet::default(), recent: [const { None }; RECENT], oldest: 0 }
    }
}

impl<T: Eq + Hash> Shared<T> {
    /// How many are kept.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.newer.len() + self.older.len()
    }

    /// The value as it is shared.
    pub fn share(&mut self, value: T) -> Rc<T> {
        if let Some(known) = self.recent.iter().flatten().find(|known| ***known == value) {
            return Rc::clone(known);
        }
        let known = self.look_up(value);
        self.recent[self.oldest] = Some(Rc::clone(&known));
        self.oldest = (self.oldest + 1) % RECENT;
        known
    }

    #[inline(never)]
    fn look_up(&mut self, value: T) -> Rc<T> {
        if let Some(known) = self.newer.get(&value) {
            return Rc::clone(known);
        }
        let known = self.older.take(&value).unwrap_or_else(|| Rc::new(value));
        if self.newer.len() >= GENERATION {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(Rc::clone(&known));
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_shared_and_those_not_asked_for_of_late_are_forgotten() {
        let mut shared = Shared::default();
        let first = shared.share(0);
        assert!(Rc::ptr_eq(&first, &shared.share(0)));
        for value in 0..10 * GENERATION {
            shared.share(value);
            assert!(shared.len() <= 2 * GENERATION);
        }
        assert!(!Rc::ptr_eq(&first, &shared.share(0)));
    }
}
