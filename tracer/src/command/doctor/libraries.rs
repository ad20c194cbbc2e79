//! The libraries that the processes here use, as probes would go on them.

use std::{collections::BTreeMap, rc::Rc};

use super::report::{FoundLibrary, Libraries};
use crate::target::{
    library::{self, Library},
    process,
};

/// Libraries that are told, the most used ones.
const TOLD: usize = 32;

/// Looks at all processes.
pub fn look() -> Libraries {
    let mut libraries = library::Libraries::default();
    let mut users = BTreeMap::<u64, (Rc<Library>, usize)>::new();
    for pid in process::all() {
        for library in libraries.examine(pid) {
            users.entry(library.number).or_insert_with(|| (Rc::clone(&library), 0)).1 += 1;
        }
    }
    let unreadable = libraries.take_unreadable().len();
    let found = |(library, processes): &(Rc<Library>, usize)| FoundLibrary {
        product: library.product(),
        file: library.name.clone(),
        processes: *processes,
        functions: library.functions.len(),
    };
    let mut found: Vec<_> = users.values().map(found).collect();
    found.sort_by(|a, b| b.processes.cmp(&a.processes).then_with(|| a.file.cmp(&b.file)));
    found.truncate(TOLD);
    Libraries { found, unreadable }
}
