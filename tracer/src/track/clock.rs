//! The trace's view of time, handed in from outside: the correlator has no clock of its own.

use super::record::{Nanos, WallTime};

/// What is needed to turn the kernel's times into those of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Nanoseconds to add to the boot clock to get wall-clock time since the Unix epoch.
    pub boot_to_wall_ns: i64,
    /// Length of a kernel tick (jiffy) in nanoseconds.
    pub tick_ns: u64,
    /// When the trace began, boot-clock nanoseconds.
    pub began_at: u64,
}

impl Clock {
    /// Wall-clock time of a boot-clock time; 0 means "unknown".
    pub fn wall(self, boot: u64) -> Option<WallTime> {
        (boot != 0).then(|| self.wall_of(boot))
    }

    /// Wall-clock time of a boot-clock time that is known.
    pub(super) fn wall_of(self, boot: u64) -> WallTime {
        WallTime(boot.wrapping_add_signed(self.boot_to_wall_ns))
    }

    /// Nanoseconds of a number of kernel ticks.
    pub(super) fn ticks(self, ticks: u32) -> Nanos {
        self.tick_ns.saturating_mul(u64::from(ticks))
    }
}

/// Nanoseconds from one boot-clock time to another, if both are known; 0 if they come in the wrong order, as times
/// taken on two CPUs may.
pub(super) fn span(from: u64, to: u64) -> Option<Nanos> {
    (from != 0 && to != 0).then(|| to.saturating_sub(from))
}
