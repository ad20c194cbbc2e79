//! An index of types by their names.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::hash_table::{Entry, HashTable};

use super::encoding::{Encoded, Kind, Record};

/// What is found by its name. C has a name space for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Named {
    /// A struct or union.
    Composite,
    /// A function.
    Function,
    /// A `typedef`.
    Typedef,
}

impl Named {
    fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Struct | Kind::Union => Some(Self::Composite),
            Kind::Function => Some(Self::Function),
            Kind::Typedef => Some(Self::Typedef),
            _ => None,
        }
    }
}

/// The ids of named types. A kernel has about 80,000 of them, and this is made at each start: it keeps no name, only where it is found.
#[derive(Debug)]
pub struct Names {
    ids: HashTable<u32>,
    /// Of its own for each index, so that no file can be made whose names collide.
    hashing: RandomState,
}

impl Names {
    /// Of all types. Where several have a name, it is that of the first.
    pub fn of(types: &Encoded) -> Self {
        let hashing = RandomState::default();
        let mut ids = HashTable::with_capacity(types.last_id() as usize);
        for id in 1..=types.last_id() {
            let Some((named, name)) = types.record(id).and_then(|record| named(types, &record)) else { continue };
            let is_same = |other: &u32| is_named(types, *other, named, name);
            let named_of = |id: &u32| types.record(*id).and_then(|record| self::named(types, &record));
            let hash_of = |id: &u32| named_of(id).map_or(0, |(named, name)| hash(&hashing, named, name));
            if let Entry::Vacant(place) = ids.entry(hash(&hashing, named, name), is_same, hash_of) {
                place.insert(id);
            }
        }
        Self { ids, hashing }
    }

    /// The id of the first type of a name. `types` are those that the index was made of.
    pub fn find(&self, types: &Encoded, named: Named, name: &[u8]) -> Option<u32> {
        self.ids.find(hash(&self.hashing, named, name), |id| is_named(types, *id, named, name)).copied()
    }
}

fn named<'a>(types: &'a Encoded, record: &Record<'_>) -> Option<(Named, &'a [u8])> {
    let name = types.string(record.name);
    Named::of(record.kind).filter(|_| !name.is_empty()).map(|named| (named, name))
}

fn is_named(types: &Encoded, id: u32, is: Named, name: &[u8]) -> bool {
    types.record(id).and_then(|record| named(types, &record)) == Some((is, name))
}

fn hash(hashing: &RandomState, named: Named, name: &[u8]) -> u64 {
    hashing.hash_one((named as u8, name))
}
