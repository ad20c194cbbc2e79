//! `conntracer diagnose`: what is wrong, of what happens now or of a recording.

use std::future::pending;

use anyhow::Result;

use super::{live::Session, open_diagnosis, replay};
use crate::{cli, target::selection::Selection};

/// Looks on until Ctrl-C, the given time, or the end of the targets, or reads a recording; then tells what is wrong. Returns how
/// much that is.
///
/// # Errors
/// If tracing is not possible, the recording cannot be read, or the output cannot be written.
pub async fn diagnose(options: &cli::Diagnose) -> Result<usize> {
    let open = || open_diagnosis(&options.to);
    if let Some(file) = &options.from {
        return replay::replay_to(file, open()?);
    }
    let selection = Selection::new(&options.target, &options.filter)?;
    let mut session = Session::begin(selection, &options.live, open)?;
    session.announce();
    session.until(pending::<()>()).await?;
    session.end()
}
