//! DNS lookups of a process name at one server.

use crate::{
    findings::sketch::Durations,
    track::record::{CpuQuota, Lookup, Nanos},
};

/// What is asked again sooner was asked of several servers at once, as musl does.
const RETRY_AFTER: Nanos = 500_000_000;

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
    /// What the processes' cgroups may use of processors, the least of all.
    pub quota: Option<CpuQuota>,
}

impl Lookups {
    /// Counts one.
    pub fn add(&mut self, lookup: &Lookup) {
        self.count += 1;
        self.quota = [self.quota, lookup.process.quota].into_iter().flatten().min();
        let is_retried = lookup.retries > 0 && lookup.latency.is_none_or(|latency| latency >= RETRY_AFTER);
        self.retried += u64::from(is_retried);
        match lookup.latency {
            Some(latency) if is_retried => self.again.add(latency),
            Some(latency) => self.direct.add(latency),
            None => self.unanswered += 1,
        }
    }
}
