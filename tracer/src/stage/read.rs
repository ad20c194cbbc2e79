//! Takes events out of the ring buffer, decodes them, names their processes, and sends them down the pipeline.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use tokio::io::unix::AsyncFd;
use tracer_ebpf::{SocketRecord, dns::DnsRecord, kind};
use zerocopy::FromBytes as _;

use super::{
    decode::lend,
    dns::Messages,
    enrich::Enricher,
    event::{Event, EventRef, UserEvent},
    pipeline::Pipeline,
};
use crate::{bpf::losses::Losses, kernel::features};

/// The reading end of a trace.
pub struct Reader {
    ring: AsyncFd<RingBuf<MapData>>,
    exchanges: Exchanges,
    losses: Losses,
    undecodable: BTreeMap<&'static str, u64>,
    enricher: Enricher,
    pipeline: Pipeline,
}

impl Reader {
    /// Takes over the object's ring buffer and loss counters.
    ///
    /// # Errors
    /// If the object lacks them.
    pub fn new(ebpf: &mut Ebpf, pipeline: Pipeline) -> Result<Self> {
        let ring = ebpf.take_map("EVENTS").context("the BPF object has no map EVENTS")?;
        let ring = RingBuf::try_from(ring)?;
        // SAFETY: the ring buffer owns its one descriptor and closes it when it is dropped, inside the AsyncFd.
        let ring = unsafe { AsyncFd::register(ring) }.context("cannot wait for the ring buffer")?;
        let exchanges = ebpf.take_map("EXCHANGES").context("the BPF object has no map EXCHANGES")?;
        Ok(Self {
            ring,
            exchanges: Exchanges { ring: RingBuf::try_from(exchanges)?, held: None, messages: Messages::default() },
            losses: Losses::new(ebpf)?,
            undecodable: BTreeMap::new(),
            enricher: Enricher::default(),
            pipeline,
        })
    }

    /// Waits until the kernel side asks to be read. It does so only when much is waiting; a timer does the rest.
    ///
    /// # Errors
    /// If the ring buffer cannot be polled.
    pub async fn urged(&self) -> Result<()> {
        self.ring.readable().await.context("cannot wait for the ring buffer")?.clear_ready();
        Ok(())
    }

    /// Takes at most `most` events; `each` sees the connections among them.
    ///
    /// # Errors
    /// If the output or the recording cannot be written.
    pub fn read(&mut self, most: usize, mut each: impl FnMut(&SocketRecord)) -> Result<()> {
        let Self { ring, exchanges, undecodable, enricher, pipeline, .. } = self;
        let fence = features::boot_clock_now();
        for _ in 0..most {
            let Some(item) = ring.get_mut().next() else { break };
            let taken = lend(&item, |event| {
                match event {
                    EventRef::Socket(record) => {
                        exchanges.take_up_to(record.at, undecodable, enricher, pipeline)?;
                        each(record);
                        if let Some(identity) = enricher.identify(record) {
                            pipeline.event(&identity)?;
                        }
                    }
                    EventRef::Process(record) => enricher.forget(record),
                    EventRef::User(_) => {}
                }
                pipeline.event(event)
            });
            match taken {
                Ok(taken) => taken?,
                Err(error) => *undecodable.entry(error.cause()).or_default() += 1,
            }
        }
        exchanges.take_up_to(fence, undecodable, enricher, pipeline)
    }

    /// Takes all events that are there, and writes what follows from them.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read_all(&mut self, each: impl FnMut(&SocketRecord)) -> Result<()> {
        self.read(usize::MAX, each)?;
        self.flush()
    }

    /// Sends an event of our own down the pipeline.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn send(&mut self, event: UserEvent) -> Result<()> {
        self.pipeline.event(&Event::User(Box::new(event)))
    }

    /// Reports what was lost since the last call.
    ///
    /// # Errors
    /// As [`Reader::read`], or if the counters cannot be read.
    pub fn report_losses(&mut self) -> Result<()> {
        for (cause, count) in self.losses.new_losses()? {
            self.lost("kernel", cause, count)?;
        }
        for (cause, count) in std::mem::take(&mut self.undecodable) {
            self.lost("user", cause, count)?;
        }
        Ok(())
    }

    /// Reports runs of hooks that the kernel skipped since the last call.
    ///
    /// # Errors
    /// As [`Reader::report_losses`].
    pub fn report_skipped(&mut self, ebpf: &Ebpf) -> Result<()> {
        let (cause, count) = self.losses.new_skipped(ebpf)?;
        self.lost("kernel", cause, count)
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
        self.pipeline.flush()
    }

    /// Connections that are not reported yet.
    pub fn live(&self) -> usize {
        self.pipeline.live()
    }

    /// Stops: everything that is left is reported, and the summary.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn stop(mut self) -> Result<()> {
        self.send(UserEvent::Stop { at: features::boot_clock_now() })?;
        self.pipeline.finish(None)
    }
}

/// The ring buffer of the exchanges: what it holds goes before the connection that came after it.
struct Exchanges {
    ring: RingBuf<MapData>,
    /// Taken out, and later than what was asked for.
    held: Option<Box<DnsRecord>>,
    messages: Messages,
}

impl Exchanges {
    /// Takes what was sent up to a time.
    fn take_up_to(
        &mut self,
        limit: u64,
        undecodable: &mut BTreeMap<&'static str, u64>,
        enricher: &mut Enricher,
        pipeline: &mut Pipeline,
    ) -> Result<()> {
        loop {
            let Some(record) = self.held.take().or_else(|| self.next(undecodable)) else { return Ok(()) };
            if record.at > limit {
                self.held = Some(record);
                return Ok(());
            }
            for message in self.messages.take(&record) {
                match message {
                    Ok(message) => {
                        if let Some(identity) = enricher.identify_process((message.pid, message.process_started_at)) {
                            pipeline.event(&identity)?;
                        }
                        pipeline.event(&Event::User(Box::new(UserEvent::Dns(message))))?;
                    }
                    Err(error) => *undecodable.entry(error.cause()).or_default() += 1,
                }
            }
        }
    }

    fn next(&mut self, undecodable: &mut BTreeMap<&'static str, u64>) -> Option<Box<DnsRecord>> {
        loop {
            let item = self.ring.next()?;
            match DnsRecord::read_from_bytes(&item) {
                Ok(record) if record.kind == kind::DNS => return Some(Box::new(record)),
                _ => *undecodable.entry("event_unknown_kind").or_default() += 1,
            }
        }
    }
}
