//! The rights that anything here needs.

use caps::{Capability, CapsHashSet};

/// A right of the kernel's, one capability each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// To load BPF programs and to use their maps (5.8).
    Bpf,
    /// To let BPF programs read the kernel's memory, and to place probes (5.8).
    Perfmon,
    /// To look into processes of other users.
    SysPtrace,
    /// To list folders of other users, `/proc/PID/fd` among them.
    DacReadSearch,
    /// To enter namespaces; and on kernels whose administrator forbids probes to others, to place them.
    SysAdmin,
    /// To open what a process maps though its path is gone (5.9).
    CheckpointRestore,
    /// To lift limits. Before 5.11 one on locked memory counted BPF maps.
    SysResource,
}

impl Right {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Bpf,
        Self::Perfmon,
        Self::SysPtrace,
        Self::DacReadSearch,
        Self::SysAdmin,
        Self::CheckpointRestore,
        Self::SysResource,
    ];

    /// The kernel's capability.
    pub fn capability(self) -> Capability {
        match self {
            Self::Bpf => Capability::CAP_BPF,
            Self::Perfmon => Capability::CAP_PERFMON,
            Self::SysPtrace => Capability::CAP_SYS_PTRACE,
            Self::DacReadSearch => Capability::CAP_DAC_READ_SEARCH,
            Self::SysAdmin => Capability::CAP_SYS_ADMIN,
            Self::CheckpointRestore => Capability::CAP_CHECKPOINT_RESTORE,
            Self::SysResource => Capability::CAP_SYS_RESOURCE,
        }
    }

    /// Its name, e.g. `CAP_BPF`.
    pub fn name(self) -> String {
        self.capability().to_string()
    }

    /// The capability by which a holder of these has this right. `CAP_SYS_ADMIN` meant several of them before they had names of their
    /// own, and still does.
    pub fn held_by(self, held: &CapsHashSet) -> Option<Capability> {
        let by_admin = matches!(self, Self::Bpf | Self::Perfmon | Self::CheckpointRestore);
        let ways = [Some(self.capability()), by_admin.then_some(Capability::CAP_SYS_ADMIN)];
        ways.into_iter().flatten().find(|capability| held.contains(capability))
    }
}
