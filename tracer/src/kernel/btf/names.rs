//! An index of types by their names.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::hash_table::{Entry, HashTable};

use super::encoding::{Encoded, Kind};

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

/// The ids of named types. A kernel has many (Debian's 6.12 nearly 59,000), and this is made at each start: it keeps no name, only
/// where it is found.
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
            let Some(name) = name_of(types, id) else { continue };
            let is_same = |other: &u32| name_of(types, *other) == Some(name);
            let hash_of = |id: &u32| hashing.hash_one(name_of(types, *id));
            if let Entry::Vacant(place) = ids.entry(hashing.hash_one(Some(name)), is_same, hash_of) {
                place.insert(id);
            }
        }
        Self { ids, hashing }
    }

    /// The id of the first type of a name. `types` are those that the index was made of.
    pub fn find(&self, types: &Encoded, named: Named, name: &[u8]) -> Option<u32> {
        let name = Some((named, name));
        self.ids.find(self.hashing.hash_one(name), |id| name_of(types, *id) == name).copied()
    }
}

/// A type's name, and the name space that it is of.
fn name_of(types: &Encoded, id: u32) -> Option<(Named, &[u8])> {
    let record = types.record(id)?;
    let name = types.string(record.name);
    Named::of(record.kind).filter(|_| !name.is_empty()).map(|named| (named, name))
}
