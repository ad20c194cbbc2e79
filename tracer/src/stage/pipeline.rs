//! The data's way from an event to the output: recording, correlator, output, sink.

use anyhow::Result;

use super::{
    event::{EventRef, UserEvent},
    outlet::{Admission, Outlet, Patience},
    recorder::Recorder,
    sink::SinkError,
};
use crate::{
    findings::Findings,
    output::Output,
    track::{
        Correlator,
        record::{Loss, Record},
    },
};

/// Bytes of output that are written at once.
const FULL: usize = 64 * 1024;

/// The stages behind the decoder.
pub struct Pipeline {
    recording: Option<Recorder>,
    correlator: Correlator,
    findings: Option<Findings>,
    output: Box<dyn Output>,
    outlet: Outlet,
    pending: Batch,
    /// Records that the outlet had no room for, not reported yet.
    unwritten: u64,
}

/// Whether an event tells what this output lacks. What is replayed has an output of its own.
fn is_of_output(event: EventRef<'_>) -> bool {
    matches!(event, EventRef::User(UserEvent::Lost { place, .. }) if place == Loss::OUTPUT)
}

/// Records that are written together.
struct Batch {
    bytes: Vec<u8>,
    /// How many there are.
    records: u64,
    /// The outlet is pressed: exchanges are left out, so that lifecycles have the rest of the room.
    spares_room: bool,
    /// Records left out for that.
    left_out: u64,
}

impl Pipeline {
    /// Puts the stages together.
    pub fn new(
        recording: Option<Recorder>,
        mut correlator: Correlator,
        findings: Option<Findings>,
        output: Box<dyn Output>,
        outlet: Outlet,
    ) -> Self {
        correlator.put_out_exchanges(findings.is_some() || output.wants_exchanges());
        let pending = Batch { bytes: Vec::with_capacity(2 * FULL), records: 0, spares_room: false, left_out: 0 };
        Self { recording, correlator, findings, output, outlet, pending, unwritten: 0 }
    }

    /// How many findings were told.
    pub fn found(&self) -> usize {
        self.findings.as_ref().map_or(0, Findings::count)
    }

    /// Takes one event all the way.
    ///
    /// # Errors
    /// If the recording or the output cannot be written.
    #[inline(always)]
    pub fn event<'e>(&mut self, event: impl Into<EventRef<'e>>) -> Result<()> {
        let event = event.into();
        if let Some(recording) = &mut self.recording
            && !is_of_output(event)
        {
            recording.push(event)?;
        }
        let Self { correlator, findings, output, pending, .. } = self;
        correlator.apply(event, &mut |record| put_out(record, findings.as_mut(), output.as_mut(), pending));
        if self.pending.bytes.len() >= FULL { self.flush() } else { Ok(()) }
    }

    /// Ends a stream that had no stop.
    ///
    /// # Errors
    /// As [`Pipeline::event`].
    pub fn finish(&mut self, remark: Option<String>) -> Result<()> {
        let Self { correlator, findings, output, pending, .. } = self;
        if let Some(remark) = remark {
            correlator.remark(remark);
        }
        correlator.finish(&mut |record| put_out(record, findings.as_mut(), output.as_mut(), pending));
        if let Some(recording) = &mut self.recording {
            recording.flush()?;
        }
        self.flush()?;
        Ok(self.outlet.drain()?)
    }

    /// Tells findings that hold at this time of the boot clock, of what was seen by then.
    pub fn look(&mut self, at: u64) {
        let Self { correlator, findings, output, pending, .. } = self;
        if let Some(findings) = findings {
            findings.pass_to(correlator.wall(at), &mut |finding| pending.add(|bytes| output.finding(&finding, bytes)));
        }
    }

    /// Writes what waits, so that a person sees it.
    ///
    /// # Errors
    /// As [`Pipeline::event`].
    pub fn flush(&mut self) -> Result<()> {
        if let Some(recording) = &mut self.recording {
            recording.keep_up()?;
        }
        let Self { pending, outlet, unwritten, .. } = self;
        if !pending.bytes.is_empty() {
            let admission = outlet.write(&pending.bytes);
            pending.bytes.clear();
            let records = std::mem::take(&mut pending.records);
            if admission? == Admission::Dropped {
                *unwritten = unwritten.saturating_add(records);
            }
        }
        pending.spares_room = outlet.is_pressed();
        Ok(())
    }

    /// Whether the reader of the output is so far behind that word of what it missed may be dropped as well.
    pub fn is_pressed(&self) -> bool {
        self.outlet.is_pressed()
    }

    /// How many records were dropped since the last call because nobody read the output.
    pub fn take_unwritten(&mut self) -> u64 {
        std::mem::take(&mut self.unwritten).saturating_add(std::mem::take(&mut self.pending.left_out))
    }

    /// Forgets part of what is remembered. Returns whether there was anything to forget.
    ///
    /// # Errors
    /// As [`Pipeline::event`].
    pub fn make_room(&mut self) -> Result<bool> {
        let Self { correlator, findings, output, pending, .. } = self;
        let made = correlator.make_room(&mut |record| put_out(record, findings.as_mut(), output.as_mut(), pending));
        self.flush()?;
        Ok(made)
    }

    /// How long a reader of the output is waited for from now on.
    pub fn set_patience(&mut self, patience: Patience) {
        self.outlet.set_patience(patience);
    }

    /// Most processes that are known.
    pub fn max_processes(&self) -> usize {
        self.correlator.max_processes()
    }

    /// Connections that are not reported yet.
    pub fn live(&self) -> usize {
        self.correlator.live()
    }
}

impl Batch {
    #[inline(always)]
    fn record(&mut self, record: &Record, output: &mut dyn Output) {
        if self.spares_room && matches!(record, Record::Exchange(_)) {
            self.left_out += u64::from(output.wants_exchanges());
            return;
        }
        self.add(|bytes| output.record(record, bytes));
    }

    #[inline(always)]
    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.records += u64::from(self.bytes.len() > before);
    }
}

/// Writes a record and the findings that it completes. The summary is the last line, always.
#[inline(always)]
fn put_out(record: &Record, findings: Option<&mut Findings>, output: &mut dyn Output, pending: &mut Batch) {
    let Some(findings) = findings else { return pending.record(record, output) };
    if let Record::Summary(summary) = record {
        findings.observe(record, &mut |finding| pending.add(|bytes| output.finding(&finding, bytes)));
        let mut summary = summary.clone();
        summary.remarks.extend(findings.remark());
        pending.record(&Record::Summary(summary), output);
    } else {
        pending.record(record, output);
        findings.observe(record, &mut |finding| pending.add(|bytes| output.finding(&finding, bytes)));
    }
}

/// Whether an error only says that nobody reads any more.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<SinkError>(), Some(SinkError::Closed))
}
