//! What BPF objects the kernel holds.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::{clock::eventually, commands::stdout_of};

/// The ids of all BPF programs, maps and links in the kernel, as `bpftool` lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedPrograms {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

#[derive(Deserialize)]
struct Object {
    id: u32,
}

impl LoadedPrograms {
    /// Those of now.
    pub fn now() -> Self {
        Self { programs: ids("prog"), maps: ids("map"), links: ids("link") }
    }

    /// Whether there are programs that `before` lacks.
    pub fn has_more_than(&self, before: &Self) -> bool {
        self.programs.difference(&before.programs).next().is_some()
    }

    /// Waits until nothing is left that was not there before; the kernel frees what is detached a little later.
    #[track_caller]
    pub fn await_nothing_beyond(before: &Self) {
        eventually("all BPF programs, maps and links to be gone", || {
            let now = Self::now();
            let gone = now.programs.is_subset(&before.programs)
                && now.maps.is_subset(&before.maps)
                && now.links.is_subset(&before.links);
            gone.then_some(())
        });
    }
}

fn ids(kind: &str) -> BTreeSet<u32> {
    let text = stdout_of(&format!("bpftool --json {kind} list"));
    if text.trim().is_empty() {
        return BTreeSet::new();
    }
    let objects: Vec<Object> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("bpftool {kind} list: {error}: {text}"));
    objects.into_iter().map(|object| object.id).collect()
}
