//! The data's way from an event to the output: recording, correlator, output, sink.

use anyhow::Result;

use super::{
    event::EventRef,
    recorder::Recorder,
    sink::{Sink, SinkError},
};
use crate::{output::Output, track::Correlator};

/// Bytes of output that are written at once.
const FULL: usize = 64 * 1024;

/// The stages behind the decoder.
pub struct Pipeline {
    recording: Option<Recorder>,
    correlator: Correlator,
    output: Box<dyn Output>,
    sink: Sink,
    pending: Vec<u8>,
}

impl Pipeline {
    /// Puts the stages together.
    pub fn new(recording: Option<Recorder>, mut correlator: Correlator, output: Box<dyn Output>, sink: Sink) -> Self {
        correlator.put_out_exchanges(output.wants_exchanges());
        Self { recording, correlator, output, sink, pending: Vec::with_capacity(2 * FULL) }
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
        let Self { correlator, output, pending, .. } = self;
        correlator.apply(event, &mut |record| output.record(record, pending));
        if self.pending.len() >= FULL { self.flush() } else { Ok(()) }
    }

    /// Ends a stream that had no stop.
    ///
    /// # Errors
    /// As [`Pipeline::event`].
    pub fn finish(&mut self, remark: Option<String>) -> Result<()> {
        let Self { correlator, output, pending, .. } = self;
        if let Some(remark) = remark {
            correlator.remark(remark);
        }
        correlator.finish(&mut |record| output.record(record, pending));
        if let Some(recording) = &mut self.recording {
            recording.flush()?;
        }
        self.flush()
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

/// Whether an error only says that nobody reads any more.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<SinkError>(), Some(SinkError::Closed))
}
