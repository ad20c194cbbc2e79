//! What a container engine makes of the kernel's namespaces, as there is no engine here: mounts, network, control groups and, if wanted,
//! PIDs of its own; no debugfs and tracefs, `/sys` and `/proc/sys` read-only, parts of `/proc` masked.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use crate::clock::eventually;

/// As container engines do, and then what follows.
const SEAL: &str = "set -e
    for path in /sys/kernel/debug /sys/kernel/tracing /sys/kernel/security /sys/firmware /proc/acpi; do
        [ ! -d $path ] || mount -t tmpfs -o ro none $path
    done
    for path in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug; do
        [ ! -e $path ] || mount --bind /dev/null $path
    done
    mount --bind /proc/sys /proc/sys
    mount -o remount,bind,ro /proc/sys
    mount -o remount,bind,ro /sys
    ip link set lo up
    exec \"$@\"";

/// A command in a container that shares the host's PIDs (`--pid=host`), about to run.
pub fn with_host_pids(command: &Command) -> Command {
    wrapped(&["unshare", "--mount", "--cgroup", "--net", "sh", "-c", SEAL, "sh"], command)
}

fn wrapped(by: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(by[0]);
    wrapped.args(&by[1..]).arg(command.get_program()).args(command.get_args());
    wrapped
}

/// A container with PIDs of its own; everything in it ends when this is dropped.
pub struct Container {
    unshare: Child,
    /// Its first process, by the host's number.
    first: String,
}

impl Container {
    /// One with nothing in it but a process that waits.
    #[track_caller]
    pub fn new() -> Self {
        let namespaces = ["--mount", "--cgroup", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"];
        let mut unshare = Command::new("unshare");
        unshare.args(namespaces).args(["sh", "-c", SEAL, "sh", "sleep", "infinity"]).stdin(Stdio::null());
        let unshare = unshare.spawn().expect("unshare starts");
        let first = eventually("the container's first process", || {
            let first = child_of(unshare.id())?;
            fs::read_to_string(format!("/proc/{first}/comm")).is_ok_and(|name| name.trim() == "sleep").then_some(first)
        });
        Self { unshare, first: first.to_string() }
    }

    /// A command in it, about to run. What runs is a child of the process that this starts.
    pub fn enter(&self, command: &Command) -> Command {
        wrapped(&["nsenter", "--target", &self.first, "--mount", "--cgroup", "--net", "--pid", "--"], command)
    }
}

impl Default for Container {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Its child dies with it, and with that the namespace and all in it.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// The child of a process that has one.
pub fn child_of(pid: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.split_whitespace().next()?.parse().ok()
}
