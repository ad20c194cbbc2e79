//! What the running kernel has besides types and fields, and limits of this process.

use std::{fs, io};

use super::btf::Btf;
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    system::uname,
    time::{ClockId, Timespec, clock_getres, clock_gettime},
};

/// Where the kernel tells its lockdown mode: `[none] integrity confidentiality`.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Where a kernel that can choose tells how it preempts (`CONFIG_PREEMPT_DYNAMIC`).
const PREEMPTION: &str = "/sys/kernel/debug/sched/preempt";

/// How far the kernel is locked down, even for root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Not at all.
    None,
    /// The kernel must not be changed; BPF may read it.
    Integrity,
    /// The kernel must not be read either: BPF programs that read kernel memory are refused.
    Confidentiality,
    /// It does not tell: built without lockdown, or securityfs is not mounted.
    Unknown,
}

impl Lockdown {
    /// What to tell the user if this lockdown keeps a trace from working.
    pub fn obstacle(self) -> Option<&'static str> {
        (self == Self::Confidentiality).then_some(
            "the kernel is locked down (confidentiality), so no program may read it, not even as root: \
             boot without lockdown=confidentiality, or with Secure Boot off",
        )
    }
}

/// Whether the kernel may skip a hook because a task was preempted in it: it preempts tasks in the kernel, and keeps programs
/// from overlapping with themselves (5.12 on; it counts what it skips in a member of its own). Taken as so where it does not
/// tell how it preempts, as without root or debugfs.
pub fn may_skip_hooks(kernel: &Btf) -> bool {
    kernel.member("bpf_prog_stats", "misses").is_ok()
        && fs::read_to_string(PREEMPTION).map_or(true, |modes| preempts(&modes))
}

/// The mode in use stands in parentheses: `none (voluntary) full lazy`.
fn preempts(modes: &str) -> bool {
    !["(none)", "(voluntary)"].iter().any(|mode| modes.contains(mode))
}

/// Release of the running kernel, as `uname -r` prints it. To show, not to compare.
pub fn release() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Machine, as `uname -m` prints it.
pub fn machine() -> String {
    uname().machine().to_string_lossy().into_owned()
}

/// Name of the host.
pub fn host() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

/// The kernel's lockdown mode.
pub fn lockdown() -> Lockdown {
    fs::read_to_string(LOCKDOWN).map_or(Lockdown::Unknown, |text| parse_lockdown(&text))
}

/// Length of a kernel tick in nanoseconds, 1e9 / `CONFIG_HZ`: the coarse clock moves by one tick.
pub fn tick_length() -> u64 {
    nanos(clock_getres(ClockId::MonotonicCoarse)).clamp(1, 1_000_000_000)
}

/// Now, in nanoseconds of `CLOCK_BOOTTIME`: the clock of all events.
pub fn boot_clock_now() -> u64 {
    nanos(clock_gettime(ClockId::Boottime))
}

/// What to add to a boot-clock time to get wall-clock time, in nanoseconds. Of several tries the one that the least
/// time passed in is taken, since anything may come between the two readings; what is left is below a microsecond.
pub fn boot_to_wall() -> i64 {
    let tries = (0..5).map(|_| {
        let before = boot_clock_now();
        let wall = nanos(clock_gettime(ClockId::Realtime));
        let after = boot_clock_now();
        let middle = before + after.saturating_sub(before) / 2;
        // Both are below 2^63 until the year 2262.
        (after.saturating_sub(before), wall as i64 - middle as i64)
    });
    tries.min().map_or(0, |(_, offset)| offset)
}

/// Lifts the limit on locked memory. Kernels before 5.11 count BPF maps against it; later ones do not care.
///
/// # Errors
/// If this process may not (no CAP_SYS_RESOURCE): then maps may fail to load on those kernels.
pub fn lift_memlock_limit() -> io::Result<()> {
    if getrlimit(Resource::Memlock).current.is_none() {
        return Ok(());
    }
    Ok(setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None })?)
}

/// Raises the limit on open files as far as it goes: each probe takes two, and a library gets some twenty probes.
///
/// # Errors
/// If the kernel refuses.
pub fn lift_file_limit() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

fn parse_lockdown(text: &str) -> Lockdown {
    let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    match chosen {
        Some("none") => Lockdown::None,
        Some("integrity") => Lockdown::Integrity,
        Some("confidentiality") => Lockdown::Confidentiality,
        _ => Lockdown::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preemption_mode_is_the_one_in_parentheses() {
        assert!(!preempts("none (voluntary) full \n"));
        assert!(!preempts("(none) voluntary full \n"));
        assert!(preempts("none voluntary (full) \n"));
        assert!(preempts("full (lazy) \n"));
    }

    #[test]
    fn the_lockdown_mode_in_brackets_holds() {
        assert_eq!(parse_lockdown("[none] integrity confidentiality\n"), Lockdown::None);
        assert_eq!(parse_lockdown("none [integrity] confidentiality\n"), Lockdown::Integrity);
        assert_eq!(parse_lockdown("none integrity [confidentiality]\n"), Lockdown::Confidentiality);
        for text in ["", "none", "[", "[]", "[frob]"] {
            assert_eq!(parse_lockdown(text), Lockdown::Unknown, "{text}");
        }
    }

    #[test]
    fn the_tick_is_that_of_a_possible_kernel() {
        let hz = 1e9 / tick_length() as f64;
        assert!([100.0, 250.0, 300.0, 1000.0].iter().any(|known| (hz - known).abs() < 1.0), "{hz} Hz");
    }

    #[test]
    fn boot_time_and_offset_give_the_wall_clock() {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let computed = boot_clock_now() as i64 + boot_to_wall();
        assert!((computed - wall.as_nanos() as i64).abs() < 1_000_000_000);
    }
}
