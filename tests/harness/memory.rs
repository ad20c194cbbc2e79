//! The memory of a process.

use crate::clock::eventually;

/// Memory that a process has for itself, in KiB: without what it maps of files and of the kernel's buffers.
#[track_caller]
pub fn resident_kib(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/status");
    eventually("the memory of a process", || {
        let status = std::fs::read_to_string(&path).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.split_whitespace().next()?.parse().ok()
    })
}
