//! A control group of cgroup v2.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::clock::eventually;

/// A fresh group below the root; removed when dropped, once it is empty.
pub struct Cgroup(PathBuf);

const ROOT: &str = "/sys/fs/cgroup";

/// The kernel's own choice of a quota's period.
const PERIOD_US: u32 = 100_000;

/// The shortest in which a share of a few percent is above the least quota that the kernel takes (1,000 µs).
const SHORT_PERIOD_US: u32 = 20_000;

impl Cgroup {
    /// A group without limits.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        let group = Self(Path::new(ROOT).join(name));
        fs::create_dir(&group.0).unwrap_or_else(|error| panic!("{}: {error}", group.0.display()));
        group
    }

    /// A group that may use this share of one processor in each of so short periods that what it was throttled for is known well:
    /// its statistics lag by up to one.
    #[track_caller]
    pub fn with_cpu_share(name: &str, percent: u32) -> Self {
        Self::new(name).limited(Path::new(ROOT), percent, SHORT_PERIOD_US)
    }

    /// A group without limits within another one. That must be dropped later, and itself hold no process.
    #[track_caller]
    pub fn within(other: &Self, name: &str) -> Self {
        Self::new(Path::new(other.0.file_name().expect("a name")).join(name).to_str().expect("UTF-8"))
    }

    /// The same with a share of one processor in each tenth of a second, as container engines set it.
    #[track_caller]
    pub fn within_with_cpu_share(other: &Self, name: &str, percent: u32) -> Self {
        Self::within(other, name).limited(&other.0, percent, PERIOD_US)
    }

    #[track_caller]
    fn limited(self, parent: &Path, percent: u32, period_us: u32) -> Self {
        for group in [Path::new(ROOT), parent] {
            write(&group.join("cgroup.subtree_control"), "+cpu");
        }
        write(&self.0.join("cpu.max"), &format!("{} {period_us}", percent * period_us / 100));
        self
    }

    /// The same, in which the memory of its processes is accounted for.
    #[track_caller]
    pub fn with_memory(name: &str) -> Self {
        write(&Path::new(ROOT).join("cgroup.subtree_control"), "+memory");
        Self::new(name)
    }

    /// Allows its processes so much memory from now on; what is above and cannot be given back ends one of them.
    #[track_caller]
    pub fn limit_memory(&self, bytes: u64) {
        write(&self.0.join("memory.max"), &bytes.to_string());
    }

    /// How many of its processes the kernel has ended for want of memory.
    #[track_caller]
    pub fn killed_for_memory(&self) -> u64 {
        let events = fs::read_to_string(self.0.join("memory.events")).expect("the group's memory is accounted for");
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|kills| kills.parse().ok()).unwrap_or_else(|| panic!("no count in {events}"))
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes a running process in; what that starts from now on is in there too.
    #[track_caller]
    pub fn take(&self, pid: u32) {
        write(&self.0.join("cgroup.procs"), &pid.to_string());
    }

    /// Its processor statistics.
    pub fn cpu_stat(&self) -> PathBuf {
        self.0.join("cpu.stat")
    }

    /// Makes a command run in it from its first instruction, and on one processor: the group's statistics add up how long
    /// it was throttled on each.
    pub fn enter(&self, command: &Command) -> Command {
        self.enter_by("exec taskset -c 0", command)
    }

    /// Makes a command run in it from its first instruction.
    pub fn enter_anywhere(&self, command: &Command) -> Command {
        self.enter_by("exec", command)
    }

    fn enter_by(&self, exec: &str, command: &Command) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("echo $$ > \"$0\" && {exec} \"$@\"")]).arg(self.0.join("cgroup.procs"));
        shell.arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            eventually("the group to be empty", || fs::remove_dir(&self.0).ok());
        }
    }
}

#[track_caller]
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
