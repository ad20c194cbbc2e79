//! DNS lookups of a process name at one server.

use crate::{findings::sketch::Durations, track::record::Lookup};

/// The lookups.
#[derive(Default)]
pub struct Lookups {
    /// How many.
    pub count: u64,
    /// Those that were asked again.
    pub retried: u64,
    /// Those without an answer.
    pub unanswered: u64,
    /// What those took that were answered at once.
    pub direct: Durations,
    /// What those took that were asked again.
    pub again: Durations,
}

impl Lookups {
    /// Counts one.
    pub fn add(&mut self, lookup: &Lookup) {
        self.count += 1;
        self.retried += u64::from(lookup.retries > 0);
        match lookup.latency {
            Some(latency) if lookup.retries > 0 => self.again.add(latency),
            Some(latency) => self.direct.add(latency),
            None => self.unanswered += 1,
        }
    }
}
