//! The project's own commands: `cargo xtask COMMAND`.

mod accuracy;
mod architecture;
mod bench;
mod build;
mod cache;
mod clients;
mod command;
mod debian;
mod demo;
mod faults;
mod foreign;
mod fuzz;
mod guest_root;
mod incidents;
mod initrd;
mod kernel_support;
mod kernels;
mod libraries;
mod lint;
mod machine;
mod musl;
mod packages;
mod paths;
mod peers;
mod purity;
mod room;
mod setup;
mod soak;
mod spread;
mod suspend;
mod tally;
mod test;
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
    /// Show conntracer at work on real clients and servers
    Demo(demo::Args),
    /// Check format, clippy on both sides, and licences
    Lint,
    /// Run every test: native, lint, and in a VM on each kernel
    Test(test::Args),
    /// Feed random input to what reads untrusted bytes
    Fuzz(fuzz::Args),
    /// Play the five incidents, and write what is found into docs/incidents.md
    Incidents(incidents::Args),
    /// Count what tracing costs, beside other tools
    Bench(bench::Args),
    /// Compare what is traced with what happened
    Accuracy(accuracy::Args),
    /// Keep Node and Go under load while probes come and go
    Soak(soak::Args),
    /// See what is lost when things go wrong around a tracer
    Faults(faults::Args),
    /// Put a machine to sleep on each kernel while a connection is open
    Suspend(suspend::Args),
    /// Ask the doctor on each kernel, and write the tables of docs/kernel-support.md
    KernelSupport(kernel_support::Args),
    /// Run tests on 64-bit Arm: cross-compiled, and emulated
    Aarch64(foreign::Args),
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
        Task::Demo(args) => demo::run(args),
        Task::Lint => lint::run(),
        Task::Test(args) => test::run(args),
        Task::Fuzz(args) => fuzz::run(args),
        Task::Incidents(args) => incidents::run(args),
        Task::Bench(args) => bench::run(args),
        Task::Accuracy(args) => accuracy::run(args),
        Task::Soak(args) => soak::run(args),
        Task::Faults(args) => faults::run(args),
        Task::Suspend(args) => suspend::run(args),
        Task::KernelSupport(args) => kernel_support::run(args),
        Task::Aarch64(args) => foreign::run(args),
        Task::Vm(args) => vm::run(args),
    }
}
