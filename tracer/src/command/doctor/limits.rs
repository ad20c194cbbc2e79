//! Limits of this process, and settings of the kernel that have a say in tracing.

use std::{fs, thread};

use rustix::process::{Resource, getrlimit};

use super::report::{Limits, Setting};

/// Settings, and the file of each below `/proc/sys`.
const SETTINGS: &[(&str, &str)] = &[
    ("kernel.perf_event_paranoid", "kernel/perf_event_paranoid"),
    ("kernel.unprivileged_bpf_disabled", "kernel/unprivileged_bpf_disabled"),
    ("kernel.kptr_restrict", "kernel/kptr_restrict"),
    ("net.core.bpf_jit_enable", "net/core/bpf_jit_enable"),
    ("net.core.bpf_jit_harden", "net/core/bpf_jit_harden"),
];

/// All of them.
pub fn look() -> Limits {
    let setting = |(name, file): &(&'static str, &str)| {
        let text = fs::read_to_string(format!("/proc/sys/{file}")).ok()?;
        Some(Setting { name, value: text.trim().parse().ok()? })
    };
    Limits {
        open_files: getrlimit(Resource::Nofile).current,
        locked_memory_kib: getrlimit(Resource::Memlock).current.map(|bytes| bytes >> 10),
        processors: thread::available_parallelism().map_or(1, usize::from),
        sysctl: SETTINGS.iter().filter_map(setting).collect(),
    }
}
