//! `conntracer trace`: running processes, or the whole node.

use std::future::pending;

use anyhow::Result;

use super::{live::Session, open_output};
use crate::{cli, target::selection::Selection};

/// Traces until Ctrl-C, the given time, or the end of the targets.
///
/// # Errors
/// If tracing is not possible, or the output cannot be written.
pub async fn trace(options: &cli::Trace) -> Result<()> {
    let selection = Selection::new(&options.target, &options.filter)?;
    let mut session = Session::begin(selection, &options.live, || open_output(&options.output))?;
    session.announce();
    session.until(pending::<()>()).await?;
    session.end().map(drop)
}
