//! Lowers detail while tracing costs more than `--max-overhead`, and raises it again.

use std::time::Duration;

use anyhow::Result;
use aya::Ebpf;

use super::{talk, tls_libraries::TlsLibraries};
use crate::{
    bpf::detail::DetailHooks,
    cli,
    kernel::features,
    overhead::{
        governor::{Change, Governor},
        meter::{Cost, Meter},
    },
    stage::event::UserEvent,
    track::record::{DetailChange, Overhead, WallTime},
};

/// The watch over what tracing costs.
pub struct Watch {
    meter: Meter,
    governor: Governor,
}

impl Watch {
    /// Begins it, if it was asked for; says where it cannot do what one may expect.
    pub fn begin(live: &cli::Live, ebpf: &Ebpf) -> Option<Self> {
        let limit = live.max_overhead?;
        if live.detail == cli::Detail::Connections {
            talk("--max-overhead does nothing: detail is as low as it can be");
            return None;
        }
        let meter = Meter::new(ebpf);
        if !meter.counts_programs() {
            talk(
                "--max-overhead counts this process only: the time of the programs in the kernel takes CAP_SYS_ADMIN to know",
            );
        }
        Some(Self { meter, governor: Governor::new(limit, Duration::from_secs(live.overhead_patience)) })
    }

    /// Looks at what tracing has cost since the last look. What is to be done, if anything.
    pub fn look(&mut self, ebpf: &Ebpf) -> Option<Change> {
        let Cost { percent, passed } = self.meter.look(ebpf);
        self.governor.observe(percent, passed)
    }

    /// What has been spent since the last look is not to count: a change of detail costs too, and would look like what it is a cure for.
    pub fn overlook(&mut self, ebpf: &Ebpf) {
        self.meter.look(ebpf);
    }

    fn overhead(&self) -> Overhead {
        let counts_programs = self.meter.counts_programs();
        Overhead { percent: self.governor.cost(), limit: self.governor.limit(), counts_programs }
    }

    /// Says that detail is lowered or raised from now on. Returns the event that tells it.
    pub fn tell(&self, change: Change) -> UserEvent {
        let (overhead, lowered) = (self.overhead(), change == Change::Lower);
        talk(&DetailChange { at: WallTime(0), lowered, overhead }.to_string());
        UserEvent::Detail { at: features::boot_clock_now(), lowered, overhead }
    }
}

/// Takes off what only exchanges need. For a moment some hooks are there and others are not.
pub fn lower(hooks: &mut DetailHooks, libraries: Option<&mut TlsLibraries>) {
    hooks.take_off();
    if let Some(libraries) = libraries {
        libraries.pause();
    }
}

/// Puts it back.
///
/// # Errors
/// If the kernel does not take back a hook that it had taken before.
pub fn raise(ebpf: &mut Ebpf, hooks: &mut DetailHooks, libraries: Option<&mut TlsLibraries>) -> Result<()> {
    hooks.put_back(ebpf)?;
    if let Some(libraries) = libraries {
        libraries.resume(ebpf);
    }
    Ok(())
}
