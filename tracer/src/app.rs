//! From the command line to an exit code.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;

use crate::{
    cli::{Cli, Command},
    command::{doctor, replay, run, trace},
    stage::pipeline::is_closed_pipe,
};

/// The command did not do what was asked. Wrong usage is 2, by clap.
const FAILED: u8 = 1;

/// Runs the program.
pub fn main() -> ExitCode {
    match dispatch(&Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conntracer: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn dispatch(command: &Command) -> Result<bool> {
    match command {
        Command::Run(options) => block_on(run::run(options)).map(|()| true),
        Command::Trace(options) => block_on(trace::trace(options)).map(|()| true),
        Command::Replay(options) => replay::replay(options).map(|()| true),
        Command::Doctor(options) => doctor::doctor(options),
    }
}

/// One thread is enough for a reader, timers and signals.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(future)
}
