//! Where the output's bytes go: standard output or a file.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Why no more can be written.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The reader has gone: a closed pipe is no failure, the work is simply over.
    #[error("the reader of the output has gone")]
    Closed,
    /// Disk full, and the like.
    #[error("cannot write {to}: {source}; what was written before is complete and readable")]
    Failed {
        /// The file, or `standard output`.
        to: String,
        /// Why.
        source: io::Error,
    },
}

/// The output's destination.
pub struct Sink {
    out: Box<dyn Write>,
    path: Option<PathBuf>,
    /// A file's length up to the last whole record.
    whole: u64,
}

impl Sink {
    /// Opens a file, readable by its owner alone, or takes standard output.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let out: Box<dyn Write> = match path {
            Some(path) => Box::new(create_private(path)?),
            None => Box::new(io::stdout()),
        };
        Ok(Self { out, path: path.map(Path::to_owned), whole: 0 })
    }

    /// Whether a person is looking.
    pub fn is_terminal(&self) -> bool {
        self.path.is_none() && io::stdout().is_terminal()
    }

    /// Writes whole records.
    ///
    /// # Errors
    /// When the reader has gone, or the disk is full; a file then ends with its last whole record.
    pub fn write(&mut self, records: &[u8]) -> Result<(), SinkError> {
        match self.out.write_all(records).and_then(|()| self.out.flush()) {
            Ok(()) => {
                self.whole += records.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(SinkError::Closed),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Cuts off what was half written, so that every line of the file is whole.
    fn failed(&self, source: io::Error) -> SinkError {
        let to = match &self.path {
            Some(path) => {
                // If even this fails, the last line stays cut; the error below says what happened.
                let _ = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(self.whole));
                format!("'{}'", path.display())
            }
            None => "standard output".to_owned(),
        };
        SinkError::Failed { to, source }
    }
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
