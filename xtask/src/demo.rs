//! `cargo xtask demo`: conntracer at work on real clients and servers.

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    architecture::Architecture,
    build, clients,
    command::{self, say},
    kernels::{self, Choice},
    machine::{self, Machine},
    paths, setup,
    vm::Hardware,
};

/// Real programs that open and close connections in every manner.
const SCRIPT: &str = "tests/clients/demo.sh";

/// What `demo` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Use a VM with this kernel even where the host could trace
    #[arg(long, value_name = "VERSION")]
    kernel: Option<Choice>,
    /// Play one of the five incidents instead, in a VM (6.12 if no kernel is named), and show what `diagnose` says of it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    incident: Option<u8>,
    #[command(flatten)]
    hardware: Hardware,
}

/// Builds the tracer and runs the demo, on the host where it can trace and in a VM where it cannot.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure_everything()?;
    let tracer = build::tracer(true)?;
    if let Some(number) = args.incident {
        return incident(args, number, &tracer);
    }
    let demo = [tracer.display().to_string(), "run".to_owned(), "--".to_owned(), SCRIPT.to_owned()];
    let kernel = match args.kernel {
        Some(choice) => choice,
        None if host_can_trace(&tracer)? => {
            say("this machine's kernel lets BPF programs trace: running the demo here");
            let status = command::status(Command::new(&demo[0]).args(&demo[1..]).current_dir(paths::project_root()))?;
            return Ok(exit_code(status.code()));
        }
        None => {
            say("this machine's kernel refuses BPF tracing programs (`conntracer doctor` says why): using a VM");
            "6.12".parse()?
        }
    };
    let mut code = 0;
    for kernel in kernels::chosen(&[kernel]) {
        say(format!("running the demo in a VM on kernel {}", kernel.name));
        let machine = args.hardware.machine(kernel, Duration::from_mins(3), demo.to_vec());
        let outcome = machine.run(&mut machine::pass_through).with_context(|| format!("vm {}", kernel.name))?;
        code = code.max(outcome.code);
    }
    Ok(ExitCode::from(code))
}

/// Plays an incident; what the tracer finds is all that goes to standard output.
fn incident(args: &Args, number: u8, tracer: &Path) -> Result<ExitCode> {
    let program = build::programs()?.join("incident");
    clients::build(Architecture::X86_64)?;
    let kernel = args.kernel.map_or_else(|| "6.12".parse(), Ok)?;
    let mut code = 0;
    for kernel in kernels::chosen(&[kernel]) {
        say(format!("playing incident {number} in a VM on kernel {}: a minute or two", kernel.name));
        let command = vec![program.display().to_string(), number.to_string()];
        let machine = Machine {
            env: vec![("CONNTRACER".to_owned(), tracer.display().to_string())],
            ..args.hardware.machine(kernel, Duration::from_mins(8), command)
        };
        let outcome = machine.run(&mut machine::pass_through).with_context(|| format!("vm {}", kernel.name))?;
        code = code.max(outcome.code);
    }
    Ok(ExitCode::from(code))
}

/// Asks the tracer itself: it knows what it needs, and tries to load it.
fn host_can_trace(tracer: &Path) -> Result<bool> {
    let mut doctor = Command::new(tracer);
    doctor.arg("doctor").stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command::status(&mut doctor)?.success())
}

fn exit_code(code: Option<i32>) -> ExitCode {
    // A process that a signal ended has no code.
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
