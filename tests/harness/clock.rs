//! Waiting for things, and measuring as the kernel does.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

/// Longest wait for something that should happen at once. The machine is emulated and may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nanoseconds of `CLOCK_MONOTONIC`; the machines here never sleep, so the boot clock shows the same.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC");
    u64::try_from(Duration::from(now).as_nanos()).expect("uptime fits")
}

/// Wall-clock nanoseconds since the Unix epoch.
pub fn wall_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("CLOCK_REALTIME");
    u64::try_from(Duration::from(now).as_nanos()).expect("the year is before 2554")
}

/// Waits until `ready` yields something; fails with what was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
