//! How much user space may remember (`--max-memory`), and how much it does.
//!
//! Every table has a bound of its own, derived from what is allowed. How large an entry is, though, is for others to say: a process
//! may have a path of 4 KiB, each of a client's hellos another list of protocols. So what is really in use is looked at as well, and
//! the oldest is forgotten when it is too much.

use std::sync::OnceLock;

use crate::track::Limits;

const MIB: usize = 1 << 20;

/// Memory allowed, and what each table gets of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    bytes: usize,
}

impl Budget {
    /// The least that makes sense: the program itself and what has small bounds of its own take some 16 MiB.
    pub const LEAST_MIB: u32 = 32;
    /// What is allowed unless told otherwise.
    pub const DEFAULT_MIB: u32 = 256;

    /// So many MiB.
    pub fn of_mib(mib: u32) -> Self {
        Self { bytes: mib as usize * MIB }
    }

    /// All of it, in bytes.
    pub fn bytes(self) -> usize {
        self.bytes
    }

    /// Bounds of the correlator's tables. No more connections than `max_connections`: two fifths of the memory hold as many at 640
    /// bytes each, which is more than one takes but for names that are its own.
    pub fn limits(self, max_connections: usize) -> Limits {
        Limits {
            max_connections: max_connections.min(self.bytes / 5 * 2 / 640),
            max_processes: self.bytes / (8 << 10),
            max_groups: self.bytes / (256 << 10),
        }
    }

    /// Groups of the findings. Two fifths of the memory hold them at 200 kB each, which one takes at worst.
    pub fn finding_groups(self) -> usize {
        self.bytes / (512 << 10)
    }

    /// Output that waits for its reader, in bytes.
    pub fn output_bytes(self) -> usize {
        self.bytes / 32
    }

    /// Whether more is in use than is allowed. Not known to be where nothing counts.
    pub fn is_exceeded(self) -> bool {
        in_use().is_some_and(|bytes| bytes > self.bytes)
    }
}

static HEAP: OnceLock<fn() -> usize> = OnceLock::new();

/// Says how many bytes are in use on the heap. For the program that has an allocator which counts; the first word holds.
pub fn count_by(heap: fn() -> usize) {
    // A second counter would count the same.
    let _ = HEAP.set(heap);
}

/// Bytes in use on the heap; `None` if nobody counts them.
pub fn in_use() -> Option<usize> {
    HEAP.get().map(|heap| heap())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_holds_what_the_tables_hold_by_default() {
        let budget = Budget::of_mib(Budget::DEFAULT_MIB);
        let limits = budget.limits(65_536);
        assert_eq!(limits, Limits { max_connections: 65_536, ..Limits::default() });
        assert_eq!(budget.finding_groups(), 512);
        assert_eq!(budget.output_bytes(), 8 * MIB);
    }

    #[test]
    fn all_tables_together_fit_whatever_is_allowed() {
        for mib in [Budget::LEAST_MIB, 100, Budget::DEFAULT_MIB, 4_096] {
            let budget = Budget::of_mib(mib);
            let Limits { max_connections, max_processes, max_groups } = budget.limits(usize::MAX);
            let processes = max_processes * 300 + max_groups * 4_096;
            let all = max_connections * 640 + budget.finding_groups() * 200_000 + processes + budget.output_bytes();
            assert!(all <= budget.bytes(), "{all} bytes of {}", budget.bytes());
        }
    }
}
