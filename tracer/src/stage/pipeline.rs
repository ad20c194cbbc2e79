//! The data's way from an event to the output: recording, correlator, output, sink.

use std::{fs::File, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    event::EventRef,
    sink::{Sink, SinkError},
};
use crate::{
    output::{Output, recording},
    track::Correlator,
};

/// Bytes of output that are written at once.
const FULL: usize = 64 * 1024;
/// How long events may wait to be written to a recording: what a crash can lose.
const RECORDING_AGE: Duration = Duration::from_secs(1);

/// The stages behind the decoder.
pub struct Pipeline {
    recording: Option<recording::Writer<File>>,
    correlator: Correlator,
    output: Box<dyn Output>,
    sink: Sink,
    pending: Vec<u8>,
}

impl Pipeline {
    /// Puts the stages together.
    pub fn new(
        recording: Option<recording::Writer<File>>,
        correlator: Correlator,
        output: Box<dyn Output>,
        sink: Sink,
    ) -> Self {
        Self { recording, correlator, output, sink, pending: Vec::with_capacity(2 * FULL) }
    }

    /// Takes one event all the way.
    ///
    /// # Errors
    /// If the recording or the output cannot be written.
    pub fn event<'e>(&mut self, event: impl Into<EventRef<'e>>) -> Result<()> {
        let event = event.into();
        if let Some(recording) = &mut self.recording {
            recording.push(event).context("cannot write the recording; what was written before can be replayed")?;
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
            recording.flush().context("cannot write the end of the recording")?;
        }
        self.flush()
    }

    /// Writes what waits, so that a person sees it.
    ///
    /// # Errors
    /// As [`Pipeline::event`].
    pub fn flush(&mut self) -> Result<()> {
        if let Some(recording) = &mut self.recording {
            recording.flush_if_older(RECORDING_AGE).context("cannot write the recording")?;
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
