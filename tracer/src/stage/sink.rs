//! Where the output's bytes go: standard output or a file.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::fs::{FileType, fstat};
use thiserror::Error;

/// Why no more can be written.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The reader has gone: a closed pipe is no failure, the work is simply over.
    #[error("the reader of the output has gone")]
    Closed,
    /// Disk full, and the like.
    #[error("cannot write {to}: {reason}; what was written before is complete and readable")]
    Failed {
        /// The file, or `standard output`.
        to: String,
        /// What the system said.
        reason: io::Error,
    },
}

/// The output's destination.
pub struct Sink {
    out: Box<dyn Write + Send>,
    is_plain_file: bool,
    /// The file that it is, if it is one.
    file: Option<(PathBuf, File)>,
    /// A file's length up to the last whole record.
    whole: u64,
}

impl Sink {
    /// Opens a file, readable by its owner alone, or takes standard output.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self {
                out: Box::new(io::stdout()),
                is_plain_file: is_plain_file(io::stdout()),
                file: None,
                whole: 0,
            });
        };
        let file = create_private(path)?;
        let is_plain_file = is_plain_file(&file);
        let out = Box::new(file.try_clone().with_context(|| format!("cannot write '{}'", path.display()))?);
        Ok(Self { out, is_plain_file, file: Some((path.to_owned(), file)), whole: 0 })
    }

    /// Takes whatever comes, and keeps nothing.
    pub fn nowhere() -> Self {
        Self { out: Box::new(io::sink()), is_plain_file: true, file: None, whole: 0 }
    }

    /// Any writer, which may keep who writes waiting.
    #[cfg(test)]
    pub(super) fn to(out: Box<dyn Write + Send>) -> Self {
        Self { out, is_plain_file: false, file: None, whole: 0 }
    }

    /// Whether it never waits for a reader, as a file on a disk.
    pub fn is_plain_file(&self) -> bool {
        self.is_plain_file
    }

    /// Whether a person is looking.
    pub fn is_terminal(&self) -> bool {
        self.file.is_none() && io::stdout().is_terminal()
    }

    /// Writes whole records.
    ///
    /// # Errors
    /// When the reader has gone, or the disk is full; a file then ends with its last whole line.
    pub fn write(&mut self, records: &[u8]) -> Result<(), SinkError> {
        let mut written = 0;
        while written < records.len() {
            match self.out.write(&records[written..]) {
                Ok(0) => return Err(self.failed(&records[..written], io::ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(&records[..written], error)),
            }
        }
        self.whole += records.len() as u64;
        self.out.flush().map_err(|error| self.failed(&[], error))
    }

    /// Cuts off what was half written, so that every line of a file is whole.
    fn failed(&self, written: &[u8], reason: io::Error) -> SinkError {
        if reason.kind() == io::ErrorKind::BrokenPipe {
            return SinkError::Closed;
        }
        let Some((path, file)) = &self.file else {
            return SinkError::Failed { to: "standard output".to_owned(), reason };
        };
        let lines = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let whole = self.whole + lines as u64;
        // If even this fails, the last line stays cut; the error says what happened.
        let _ = file.set_len(whole);
        SinkError::Failed { to: format!("'{}'", path.display()), reason }
    }
}

fn is_plain_file(file: impl AsFd) -> bool {
    fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// Creates a file that only its owner can read: it names what runs here and whom it talks to.
///
/// # Errors
/// If that is not possible; the message says which file and what to do.
pub fn create_private(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(|error| {
        anyhow::anyhow!(
            "cannot write '{}': {error}; choose a file in a directory that you may write to",
            path.display()
        )
    })
}
