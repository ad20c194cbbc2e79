//! From the command line to an exit code.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;

use crate::{
    cli::{Cli, Command},
    command::{diagnose, doctor, replay, run, trace},
    rights::Held,
    stage::pipeline::is_closed_pipe,
};

/// The command did not do what was asked. Wrong usage is 2, by clap.
const FAILED: u8 = 1;
/// Something was found, and that was asked to be told.
const FOUND: u8 = 3;

/// Runs the program.
pub fn main() -> ExitCode {
    // What a program's file gives comes into effect here, before anything is looked at.
    Held::at_start();
    match dispatch(&Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conntracer: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Returns the exit code.
fn dispatch(command: &Command) -> Result<u8> {
    match command {
        Command::Run(options) => block_on(run::run(options)).map(|()| 0),
        Command::Trace(options) => block_on(trace::trace(options)).map(|()| 0),
        Command::Diagnose(options) => {
            let found = block_on(diagnose::diagnose(options))?;
            Ok(if options.fail_on_finding && found > 0 { FOUND } else { 0 })
        }
        Command::Replay(options) => replay::replay(options).map(|()| 0),
        Command::Doctor(options) => block_on(doctor::doctor(options)).map(|works| if works { 0 } else { FAILED }),
    }
}

/// One thread is enough for a reader, timers and signals.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(future)
}
