//! Takes items out of the ring buffers, and reports what was lost.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    future::pending,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{Ebpf, maps::HashMap};
use tracer_ebpf::SocketRecord;

use super::{
    event::{OpenSocket, UserEvent},
    intake::Intake,
    merge::Merge,
    outlet::Patience,
    pipeline::Pipeline,
    ring::Ring,
};
use crate::{bpf::losses::Losses, kernel::features, target::library::Libraries, track::record::Loss};

/// How long a detached program is given to finish the item that it is writing, and how often that is looked at.
const LAST_WORDS: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The reading end of a trace.
pub struct Reader {
    rings: Merge<Ring, Ring>,
    losses: Losses,
    intake: Intake,
}

impl Reader {
    /// Takes over the object's ring buffers and loss counters; that of the exchanges if told so.
    ///
    /// # Errors
    /// If the object lacks them.
    pub fn new(ebpf: &mut Ebpf, exchanges: bool, pipeline: Pipeline) -> Result<Self> {
        let lifecycles = Ring::take(ebpf, "EVENTS")?;
        let exchanges = exchanges.then(|| Ring::take(ebpf, "EXCHANGES")).transpose()?;
        Ok(Self { rings: Merge::new(lifecycles, exchanges), losses: Losses::new(ebpf)?, intake: Intake::new(pipeline) })
    }

    /// Waits until the kernel side asks to be read. It does so only when much is waiting; a timer does the rest.
    ///
    /// # Errors
    /// If a ring buffer cannot be polled.
    pub async fn urged(&self) -> Result<()> {
        let exchanges = async {
            match self.rings.exchanges() {
                Some(ring) => ring.urged().await,
                None => pending().await,
            }
        };
        tokio::select! {
            urged = self.rings.lifecycles().urged() => urged,
            urged = exchanges => urged,
        }
    }

    /// Takes about `most` items at most; `each` sees the connections among them. Returns how many were taken.
    ///
    /// # Errors
    /// If the output or the recording cannot be written.
    pub fn read(&mut self, most: usize, mut each: impl FnMut(&SocketRecord)) -> Result<usize> {
        let Self { rings, intake, .. } = self;
        rings.read(most, features::boot_clock_now, |item| intake.take(item, &mut each))
    }

    /// Takes all events that are there, and writes what follows from them.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read_all(&mut self, each: impl FnMut(&SocketRecord)) -> Result<()> {
        self.read(usize::MAX, each)?;
        self.flush()
    }

    /// Takes all that is there and will ever be, once nothing is attached any more.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read_rest(&mut self) -> Result<()> {
        let give_up = Instant::now() + LAST_WORDS;
        self.read(usize::MAX, |_| {})?;
        while self.rings.is_blocked() && Instant::now() < give_up {
            thread::sleep(LOOK_AGAIN);
            self.read(usize::MAX, |_| {})?;
        }
        let Self { rings, intake, .. } = self;
        rings.read_rest(|item| intake.take(item, |_| {}))?;
        self.flush()
    }

    /// Sends an event of our own down the pipeline.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn send(&mut self, event: UserEvent) -> Result<()> {
        self.intake.send(event)
    }

    /// Takes over a socket that was open before the trace, and names its process: no event of the kernel side has yet.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn adopt(&mut self, socket: OpenSocket) -> Result<()> {
        self.intake.adopt(socket)
    }

    /// Tells the host's numbers of processes from now on, where this is another PID namespace.
    ///
    /// # Errors
    /// If the object lacks the map of them.
    pub fn name_host_pids(&mut self, ebpf: &mut Ebpf) -> Result<()> {
        let map = ebpf.take_map("HOST_PIDS").context("the BPF object has no map HOST_PIDS")?;
        self.intake.name_host_pids(HashMap::try_from(map)?);
        Ok(())
    }

    /// Names the TLS libraries of connections from now on.
    pub fn name_libraries(&mut self, libraries: Rc<RefCell<Libraries>>) {
        self.intake.name_libraries(libraries);
    }

    /// Processes that have mapped code since the last call, and those that have ended.
    pub fn take_mapped(&mut self) -> (BTreeSet<u32>, Vec<u32>) {
        self.intake.take_mapped()
    }

    /// Reports what was lost since the last call.
    ///
    /// # Errors
    /// As [`Reader::read`], or if the counters cannot be read.
    pub fn report_losses(&mut self) -> Result<()> {
        for (cause, count) in self.losses.new_losses()? {
            self.lost("kernel", cause, count)?;
        }
        for (cause, count) in self.intake.take_undecodable() {
            self.lost("user", cause, count)?;
        }
        Ok(())
    }

    /// Reports records that were dropped because nobody read the output, as soon as somebody does.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn report_unwritten(&mut self) -> Result<()> {
        let unwritten = if self.intake.pipeline.is_pressed() { 0 } else { self.intake.pipeline.take_unwritten() };
        self.lost(Loss::OUTPUT, "output_full", unwritten)
    }

    /// Forgets part of what is remembered. Returns whether there was anything to forget.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn make_room(&mut self) -> Result<bool> {
        self.intake.make_room()
    }

    /// How long a reader of the output is waited for from now on.
    pub fn set_patience(&mut self, patience: Patience) {
        self.intake.pipeline.set_patience(patience);
    }

    /// Reports events that the kernel skipped all programs for, see [`Losses::new_skipped`].
    ///
    /// # Errors
    /// As [`Reader::report_losses`].
    pub fn report_skipped(&mut self, ebpf: &Ebpf, is_end: bool) -> Result<()> {
        let (cause, count) = self.losses.new_skipped(ebpf, is_end)?;
        self.lost("kernel", cause, count)
    }

    /// Reports by how much cgroups with a quota were throttled, and the findings that nothing more is waited for.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn look(&mut self) -> Result<()> {
        let now = features::boot_clock_now();
        self.intake.report_throttling(now)?;
        self.intake.pipeline.look(now);
        Ok(())
    }

    /// Reports a loss.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn lost(&mut self, place: &str, cause: &str, count: u64) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let at = features::boot_clock_now();
        self.send(UserEvent::Lost { at, place: place.to_owned(), cause: cause.to_owned(), count })
    }

    /// Records that the kernel side's LRU hash threw out, see [`Losses::evicted`].
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn evicted(&self, ebpf: &Ebpf) -> Result<u64> {
        self.losses.evicted(ebpf)
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn flush(&mut self) -> Result<()> {
        self.intake.pipeline.flush()
    }

    /// Connections that are not reported yet.
    pub fn live(&self) -> usize {
        self.intake.pipeline.live()
    }

    /// Stops as of a boot-clock time: everything that is left is reported, and the summary. Returns how many findings there are.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn stop(mut self, at: u64) -> Result<usize> {
        // Nothing more will come to say which connections they are of.
        self.intake.give_up_sessions();
        for (cause, count) in self.intake.take_undecodable() {
            self.lost("user", cause, count)?;
        }
        // A queue that is still full is waited for, so that this is not dropped as well.
        self.flush()?;
        let unwritten = self.intake.pipeline.take_unwritten();
        self.lost(Loss::OUTPUT, "output_full", unwritten)?;
        self.send(UserEvent::Stop { at })?;
        self.intake.pipeline.finish(None)?;
        Ok(self.intake.pipeline.found())
    }
}
