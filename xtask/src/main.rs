//! The project's own commands: `cargo xtask COMMAND`.

mod build;
mod cache;
mod command;
mod debian;
mod initrd;
mod kernels;
mod machine;
mod packages;
mod paths;
mod setup;
#[path = "../../tracer/build/toolchain.rs"]
mod toolchain;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Build, test and try conntracer.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need; does nothing when all is there
    Setup(setup::Args),
    /// Build the BPF object and the tracer
    Build(build::Args),
    /// Run a command as root in a VM on a Debian kernel
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match command::watch_signals().and_then(|()| run(&cli.command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<ExitCode> {
    match task {
        Task::Setup(args) => setup::run(args),
        Task::Build(args) => build::run(args),
        Task::Vm(args) => vm::run(args),
    }
}
