//! The recording of a trace, in its file.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, anyhow};

use super::{event::EventRef, sink::create_private};
use crate::output::recording::{Header, Writer};

/// How long events may wait to be written: what a crash can lose.
const AGE: Duration = Duration::from_secs(1);

/// Writes events to a recording, and names its file when that fails.
pub struct Recorder {
    writer: Writer<File>,
    path: PathBuf,
}

impl Recorder {
    /// Makes the file, readable by its owner alone, and writes its header.
    ///
    /// # Errors
    /// If the file cannot be made or written.
    pub fn create(path: &Path, header: &Header) -> Result<Self> {
        let writer = Writer::new(create_private(path)?, header).map_err(|error| failure(path, &error))?;
        Ok(Self { writer, path: path.to_owned() })
    }

    /// Adds an event.
    ///
    /// # Errors
    /// If the file cannot be written; it replays up to its last whole block.
    pub fn push(&mut self, event: EventRef<'_>) -> Result<()> {
        self.writer.push(event).map_err(|error| failure(&self.path, &error))
    }

    /// Writes what has waited for long.
    ///
    /// # Errors
    /// As [`Recorder::push`].
    pub fn keep_up(&mut self) -> Result<()> {
        self.writer.flush_if_older(AGE).map_err(|error| failure(&self.path, &error))
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// As [`Recorder::push`].
    pub fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(|error| failure(&self.path, &error))
    }
}

fn failure(path: &Path, error: &std::io::Error) -> anyhow::Error {
    anyhow!("cannot write the recording '{}': {error}; what was written before can be replayed", path.display())
}
