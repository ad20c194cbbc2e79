//! The groups by their keys: a bounded number, and what is beyond them together.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{Group, group::Key};

/// One part in so many of the groups is for what is beyond the others.
const SHARE_OF_OTHERS: usize = 8;

/// Client, server and not known: each has a group for the processes that are not even kept by name.
const ROLES: usize = 3;

/// Groups, each with a place that it keeps.
pub struct Groups {
    all: Vec<(Key, Group)>,
    places: HashMap<Key, usize, RandomState>,
    /// How many there may be of one process name and destination.
    most_own: usize,
    /// How many there may be in all.
    most: usize,
    own: usize,
}

impl Groups {
    /// None yet, and so many at most, but for a handful.
    pub fn new(most: usize) -> Self {
        let for_others = (most / SHARE_OF_OTHERS).max(ROLES);
        let most_own = most.saturating_sub(for_others);
        Self { all: Vec::new(), places: HashMap::default(), most_own, most: most_own + for_others, own: 0 }
    }

    /// How many there may be of one process name and destination.
    pub fn most_own(&self) -> usize {
        self.most_own
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The place of the group that a record belongs to. When there are as many as there may be, that is `other` of its process name; when
    /// there are as many of these, that of all.
    pub fn place(&mut self, key: Key) -> usize {
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        if self.own < self.most_own {
            self.own += 1;
            return self.insert(key);
        }
        let of_process = Key::other(key.comm, key.role);
        if let Some(place) = self.places.get(&of_process) {
            return *place;
        }
        if self.all.len() + ROLES < self.most {
            return self.insert(of_process);
        }
        let of_all = Key::other(Key::OTHER.to_owned(), key.role);
        self.places.get(&of_all).copied().unwrap_or_else(|| self.insert(of_all))
    }

    fn insert(&mut self, key: Key) -> usize {
        let place = self.all.len();
        self.places.insert(key.clone(), place);
        self.all.push((key, Group::default()));
        place
    }

    /// The group in a place.
    pub fn get(&self, place: usize) -> Option<(&Key, &Group)> {
        self.all.get(place).map(|(key, group)| (key, group))
    }

    /// The same, to add to it.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut Group> {
        self.all.get_mut(place).map(|(_, group)| group)
    }

    /// Whether the group in a place is of several destinations.
    pub fn is_other(&self, place: usize) -> bool {
        self.all.get(place).is_some_and(|(key, _)| key.is_other())
    }

    /// All groups.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.all.iter_mut().map(|(_, group)| group)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::track::record::Role;

    fn key(comm: usize, destination: usize) -> Key {
        Key { comm: format!("p{comm}"), role: Some(Role::Client), destination: format!("d{destination}:80") }
    }

    #[test]
    fn beyond_the_bound_a_process_name_has_one_group_for_all_destinations() {
        let mut groups = Groups::new(64);
        let own: Vec<_> = (0..56).map(|n| groups.place(key(n % 2, n))).collect();
        assert!(own.iter().all(|place| !groups.is_other(*place)));
        let further = groups.place(key(0, 100));
        assert!(groups.is_other(further));
        assert_eq!(groups.get(further).expect("a group").0, &Key::other("p0".into(), Some(Role::Client)));
        assert_eq!(groups.place(key(0, 101)), further);
        assert_ne!(groups.place(key(1, 100)), further, "another process name has its own");
        assert_eq!(groups.place(key(0, 0)), own[0], "what was there before stays");
    }

    #[test]
    fn beyond_the_bound_of_names_too_there_is_one_group_for_all() {
        let mut groups = Groups::new(64);
        (0..61).for_each(|n| assert_eq!(groups.place(key(n, 0)), n));
        assert_eq!(groups.get(60).expect("a group").0, &Key::other("p60".into(), Some(Role::Client)));
        let of_all = groups.place(key(61, 0));
        assert_eq!(groups.get(of_all).expect("a group").0, &Key::other("other".into(), Some(Role::Client)));
        assert_eq!(groups.place(key(62, 1)), of_all);
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_the_bound_but_for_the_last_of_each_role(
            most in 0usize..40, keys in prop::collection::vec((0usize..20, 0usize..20, 0usize..3), 0..400),
        ) {
            let mut groups = Groups::new(most);
            for (comm, destination, role) in keys {
                let role = [Some(Role::Client), Some(Role::Server), None][role];
                let key = Key { role, ..key(comm, destination) };
                let place = groups.place(key.clone());
                prop_assert_eq!(groups.place(key.clone()), place);
                let (found, _) = groups.get(place).expect("a group");
                prop_assert!(*found == key || (found.is_other() && found.role == role));
                prop_assert!(groups.len() <= most.max(ROLES));
            }
        }
    }
}
