//! Measures what tracing costs: the processor time of this process and, where the kernel lets it be known, that of the BPF programs.
//! The rest is not known: what it takes to get into a program and out again, and the traps of probes in user space.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    sys::{Stats, enable_stats},
};
use rustix::time::{ClockId, clock_gettime};

/// What tracing has cost since the last look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Percent of one processor.
    pub percent: f64,
    /// How long it was measured.
    pub passed: Duration,
}

/// The measuring.
pub struct Meter {
    /// The kernel counts as long as this is open.
    stats: Option<OwnedFd>,
    at: Instant,
    spent: Duration,
}

impl Meter {
    /// Begins to measure. That of the programs takes CAP_SYS_ADMIN, and makes the kernel read a clock twice each time one runs.
    pub fn new(ebpf: &Ebpf) -> Self {
        let mut meter = Self { stats: enable_stats(Stats::RunTime).ok(), at: Instant::now(), spent: Duration::ZERO };
        meter.spent = meter.spent_in_all(ebpf);
        meter
    }

    /// Whether the programs' time is known.
    pub fn counts_programs(&self) -> bool {
        self.stats.is_some()
    }

    /// What has been spent since the last look, or since the beginning.
    pub fn look(&mut self, ebpf: &Ebpf) -> Cost {
        let (at, spent) = (Instant::now(), self.spent_in_all(ebpf));
        let passed = at.duration_since(self.at);
        let share = spent.saturating_sub(self.spent).as_secs_f64() / passed.as_secs_f64().max(f64::MIN_POSITIVE);
        (self.at, self.spent) = (at, spent);
        Cost { percent: 100.0 * share, passed }
    }

    fn spent_in_all(&self, ebpf: &Ebpf) -> Duration {
        let own = own_time();
        if self.stats.is_none() {
            return own;
        }
        // What is not loaded has no time.
        let times = ebpf.programs().filter_map(|(_, program)| Some(program.info().ok()?.run_time()));
        times.fold(own, Duration::saturating_add)
    }
}

/// Processor time of all threads of this process, in user space and in the kernel.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_this_process_grows_while_it_works() {
        let before = own_time();
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        assert!(own_time() > before);
    }
}
