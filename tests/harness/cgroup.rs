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

impl Cgroup {
    /// A group that may use this share of one processor in each tenth of a second.
    #[track_caller]
    pub fn with_cpu_share(name: &str, percent: u32) -> Self {
        write(&Path::new(ROOT).join("cgroup.subtree_control"), "+cpu");
        let group = Self(Path::new(ROOT).join(name));
        fs::create_dir(&group.0).unwrap_or_else(|error| panic!("{}: {error}", group.0.display()));
        write(&group.0.join("cpu.max"), &format!("{} 100000", percent * 1_000));
        group
    }

    /// Its processor statistics.
    pub fn cpu_stat(&self) -> PathBuf {
        self.0.join("cpu.stat")
    }

    /// Makes a command run in it from its first instruction, and on one processor: the group's statistics add up how long
    /// it was throttled on each.
    pub fn enter(&self, command: Command) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "echo $$ > \"$0\" && exec taskset -c 0 \"$@\""]).arg(self.0.join("cgroup.procs"));
        shell.arg(command.get_program()).args(command.get_args());
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
