//! TLS handshakes: where their time went, and whether sessions were taken up again.

use super::examples::Examples;
use crate::{
    findings::sketch::Durations,
    output::units,
    track::record::{Connection, CpuQuota, Nanos},
};

/// The handshakes of a group that succeeded.
#[derive(Default)]
pub struct Handshakes {
    /// What they took.
    pub took: Durations,
    /// Those that ran on or waited for a processor, and for how long.
    pub cpu: Durations,
    /// See there.
    pub runqueue: Durations,
    /// Waiting for the peer.
    pub wait: Durations,
    /// Full ones.
    pub full: Durations,
    /// Those that took up a session.
    pub resumed: Durations,
    /// Processor time of full ones.
    pub full_cpu: Durations,
    /// What the processes' cgroups may use of processors, the least of all.
    pub quota: Option<CpuQuota>,
    /// The dearest.
    pub examples: Examples,
}

impl Handshakes {
    /// Counts a connection that is reported.
    pub fn add(&mut self, connection: &Connection) {
        let Some(tls) = connection.tls.as_ref().filter(|tls| tls.failed.is_none()) else { return };
        let Some(took) = tls.handshake else { return };
        self.took.add(took);
        self.quota = [self.quota, connection.process.quota].into_iter().flatten().min();
        match tls.hello.resumed {
            Some(true) => self.resumed.add(took),
            Some(false) => self.full.add(took),
            None => {}
        }
        let (Some(cpu), Some(runqueue)) = (tls.parts.cpu, tls.parts.runqueue) else { return };
        self.cpu.add(cpu);
        self.runqueue.add(runqueue);
        self.wait.add(tls.parts.wait.unwrap_or(0));
        if tls.hello.resumed == Some(false) {
            self.full_cpu.add(cpu);
        }
        self.examples.add(connection.id, connection.opened_at, took, || {
            format!(
                "handshake {}: {} on a processor, {} waiting for one, {} waiting for the peer",
                units::duration(took),
                units::duration(cpu),
                units::duration(runqueue),
                units::duration(tls.parts.wait.unwrap_or(0))
            )
        });
    }

    /// Shares of all handshakes' time that were spent on a processor and waiting for one.
    pub fn shares(&self) -> Option<(f64, f64)> {
        let share = |part: Nanos, whole: Nanos| (whole > 0).then(|| part as f64 / whole as f64);
        let whole = self.cpu.sum().saturating_add(self.runqueue.sum()).saturating_add(self.wait.sum());
        Some((share(self.cpu.sum(), whole)?, share(self.runqueue.sum(), whole)?))
    }
}
