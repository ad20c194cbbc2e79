//! The data's way from an event to the output: recording, correlator, output, sink.

use anyhow::Result;

use super::{
    event::EventRef,
    recorder::Recorder,
    sink::{Sink, SinkError},
};
use crate::{
    findings::Findings,
    output::Output,
    track::{Correlator, record::Record},
};

/// Bytes of output that are written at once.
const FULL: usize = 64 * 1024;

/// The stages behind the decoder.
pub struct Pipeline {
    recording: Option<Recorder>,
    correlator: Correlator,
    findings: Option<Findings>,
    output: Box<dyn Output>,
    sink: Sink,
    pending: Vec<u8>,
}

impl Pipeline {
    /// Puts the stages together.
    pub fn new(
        recording: Option<Recorder>,
        mut correlator: Correlator,
        findings: Option<Findings>,
        output: Box<dyn Output>,
        sink: Sink,
    ) -> Self {
        correlator.put_out_exchanges(findings.is_some() || output.wants_exchanges());
        Self { recording, correlator, findings, output, sink, pending: Vec::with_capacity(2 * FULL) }
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
        if let Some(recording) = &mut self.recording {
            recording.push(event)?;
        }
        let Self { correlator, findings, output, pending, .. } = self;
        correlator.apply(event, &mut |record| put_out(record, findings.as_mut(), output.as_mut(), pending));
        if self.pending.len() >= FULL { self.flush() } else { Ok(()) }
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
        self.flush()
    }

    /// Tells findings that hold at this time of the boot clock, of what was seen by then.
    pub fn look(&mut self, at: u64) {
        let Self { correlator, findings, output, pending, .. } = self;
        if let Some(findings) = findings {
            findings.pass_to(correlator.wall(at), &mut |finding| output.finding(&finding, pending));
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
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = self.sink.write(&self.pending);
        self.pending.clear();
        Ok(written?)
    }

    /// Connections that are not reported yet.
    pub fn live(&self) -> usize {
        self.correlator.live()
    }
}

/// Writes a record and the findings that it completes. The summary is the last line, always.
#[inline(always)]
fn put_out(record: &Record, findings: Option<&mut Findings>, output: &mut dyn Output, pending: &mut Vec<u8>) {
    let Some(findings) = findings else { return output.record(record, pending) };
    if let Record::Summary(summary) = record {
        findings.observe(record, &mut |finding| output.finding(&finding, pending));
        let mut summary = summary.clone();
        summary.remarks.extend(findings.remark());
        output.record(&Record::Summary(summary), pending);
    } else {
        output.record(record, pending);
        findings.observe(record, &mut |finding| output.finding(&finding, pending));
    }
}

/// Whether an error only says that nobody reads any more.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<SinkError>(), Some(SinkError::Closed))
}
