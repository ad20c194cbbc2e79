//! Features by right.

use super::Right;

/// How long a feature's rights are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Until the hooks are in place.
    Start,
    /// Until then, and as long as the kernel asks for them at each look into a map: it does before 5.19 where others may not use BPF.
    WhileAsked,
    /// As long as probes may be put on libraries.
    WhileProbing,
    /// To the end where sockets of other network namespaces are to be listed again then: a trace of the whole node, of a name or of a
    /// cgroup, or of a process in another namespace.
    WhileElsewhere,
    /// To the end.
    Whole,
}

/// Something that works with certain rights only.
#[derive(Debug, PartialEq, Eq)]
pub struct Feature {
    /// What it is, in the words of `doctor` and of `docs/permissions.md`.
    pub name: &'static str,
    /// The rights, all of which it takes.
    pub rights: &'static [Right],
    /// What is lost without them.
    pub without: &'static str,
    /// How long they are kept.
    pub kept: Kept,
}

/// Loading and attaching the hooks.
pub const TRACING: Feature =
    Feature { name: "tracing", rights: &[Right::Bpf, Right::Perfmon], without: "everything", kept: Kept::WhileAsked };

/// Programs on functions in user space. `kernel.perf_event_paranoid` above 2 (Debian, Ubuntu) takes it for kprobes too. For probes in user
/// space CAP_PERFMON is enough on kernels from before 2025 with a lower setting; since then they take CAP_SYS_ADMIN again.
pub const PROBES: Feature = Feature {
    name: "probes on libraries",
    rights: &[Right::Perfmon, Right::SysAdmin],
    without: "HTTP heads in TLS, names of TLS libraries, and lookups that ask no DNS server",
    kept: Kept::WhileProbing,
};

/// What a process shows to its own user only.
pub const PROCESSES: Feature = Feature {
    name: "processes of other users",
    rights: &[Right::SysPtrace],
    without: "exe, and whatever takes a look at the libraries and network namespaces of such processes",
    kept: Kept::Whole,
};

/// Owners of the sockets that were open before.
pub const OWNERS: Feature = Feature {
    name: "sockets of other users' processes that were open before the trace",
    rights: &[Right::SysPtrace, Right::DacReadSearch],
    without: "their owners; with -p, --comm, --container or --cgroup these connections are missing up to their next event",
    kept: Kept::Whole,
};

/// Network namespaces besides our own.
pub const NAMESPACES: Feature = Feature {
    name: "sockets in other network namespaces that were open before the trace",
    rights: &[Right::SysPtrace, Right::DacReadSearch, Right::SysAdmin],
    without: "these connections up to their next event, and the last counts of those that are open when the trace stops",
    kept: Kept::WhileElsewhere,
};

/// Files without a path.
pub const REPLACED: Feature = Feature {
    name: "libraries that were deleted or replaced while in use",
    rights: &[Right::SysPtrace, Right::DacReadSearch, Right::CheckpointRestore],
    without: "probes on them: their TLS is seen on the wire only",
    kept: Kept::WhileProbing,
};

/// The limit on locked memory.
pub const MEMORY: Feature = Feature {
    name: "event buffers beyond `ulimit -l` before Linux 5.11",
    rights: &[Right::SysResource],
    without: "everything there, unless that limit is raised for the user or --ring-size and --max-connections are small",
    kept: Kept::Start,
};

/// All features that take a right, what everything rests on first.
pub const FEATURES: &[Feature] = &[TRACING, PROCESSES, OWNERS, NAMESPACES, PROBES, REPLACED, MEMORY];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_right_serves_a_feature() {
        for right in Right::ALL {
            assert!(FEATURES.iter().any(|feature| feature.rights.contains(right)), "{right:?} is asked for in vain");
        }
    }
}
