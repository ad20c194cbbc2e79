//! `cargo xtask soak`: Node and Go under load, while probes on their TLS libraries come and go.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};

use crate::{
    architecture::Architecture,
    build, clients,
    command::say,
    kernels::{self, Choice},
    machine::{self, Machine},
    setup,
    vm::Hardware,
};

/// Names the program that runs in the VM.
const PROGRAM: &str = "soak";

/// For the VM to boot, the programs to start, and the last trace to end.
const MARGIN: Duration = Duration::from_mins(10);

/// What `soak` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Kernels to run on: 5.10, 6.1, 6.12, 7.2 or all (repeatable)
    #[arg(long, default_value = "6.12", value_delimiter = ',', value_name = "VERSION")]
    kernel: Vec<Choice>,
    /// How long the programs run on each
    #[arg(long, default_value_t = 30, value_name = "N")]
    minutes: u32,
    /// Trace with this binary instead of building one
    #[arg(long, value_name = "FILE")]
    tracer: Option<PathBuf>,
    #[command(flatten)]
    hardware: Hardware,
}

/// Runs it on each kernel; fails if a request failed, a program ended, a probe stayed, or a head was told of another connection.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure_everything()?;
    machine::check_privilege()?;
    let tracer = match &args.tracer {
        Some(tracer) => tracer.canonicalize().with_context(|| format!("cannot use {}", tracer.display()))?,
        None => build::tracer(true)?,
    };
    let program = build::programs()?.join(PROGRAM);
    clients::build(Architecture::X86_64)?;
    let mut code = 0;
    for kernel in kernels::chosen(&args.kernel) {
        say(format!("soak {}: {} minutes, a trace every 10 s or so", kernel.name, args.minutes));
        let command = vec![program.display().to_string(), args.minutes.to_string()];
        let timeout = Duration::from_mins(args.minutes.into()) + MARGIN;
        let machine = Machine {
            env: vec![("CONNTRACER".to_owned(), tracer.display().to_string())],
            ..args.hardware.machine(kernel, timeout, command)
        };
        let outcome = machine.run(&mut machine::pass_through).with_context(|| format!("soak {}", kernel.name))?;
        code = code.max(outcome.code);
    }
    Ok(ExitCode::from(code))
}
