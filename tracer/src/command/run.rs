//! `conntracer run -- CMD`: starts a command and traces it and its children.

use std::{io, os::fd::AsFd as _, process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use tokio::process::{Child, Command};

use super::{live::Session, open_output, talk};
use crate::{cli, target::selection::Selection};

/// How long to wait, when the command has ended, for its last connections to end as well: a FIN takes a round trip.
const LINGER: Duration = Duration::from_millis(500);

/// Runs the command under trace. Hooks are in place before it starts: it becomes a target as it is forked.
///
/// # Errors
/// If tracing is not possible, the command cannot be started, or the output cannot be written.
pub async fn run(options: &cli::Run) -> Result<()> {
    let selection = Selection::children(&options.filter)?;
    let mut session = Session::begin(selection, &options.live, || open_output(&options.output))?;
    session.announce();
    let mut child = start(options)?;
    match session.until(child.wait()).await? {
        Some(status) => {
            let status = status.context("cannot wait for the command")?;
            if !status.success() {
                talk(&format!("the command ended with {status}"));
            }
            session.linger(LINGER).await?;
        }
        // Ctrl-C reaches the command as well, as it would without us; a deadline or a kill does not end it.
        None => talk("the command goes on, untraced"),
    }
    session.end().map(drop)
}

fn start(options: &cli::Run) -> Result<Child> {
    let (program, arguments) = options.command.split_first().context("no command given")?;
    let mut command = Command::new(program);
    command.args(arguments);
    if options.output.to.output.is_none() {
        // Our standard output carries data; the command's goes with the talk.
        command.stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
    }
    command.spawn().with_context(|| format!("cannot start '{}'", program.display()))
}
