//! `cargo xtask accuracy`: what is traced, compared with what happened.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result};

use crate::{
    build,
    command::say,
    kernels::{self, Choice, Kernel},
    machine::{Machine, Stream},
    setup,
    vm::Hardware,
};

/// Clients of the measurement; the first is the one to start.
const PROGRAMS: [&str; 3] = ["accuracy", "generator", "actor"];

/// Heads of the two tables; `accuracy` prints a row of each in turn.
const HEADS: [&str; 2] = [
    "\
| kernel | sockets | reported once | closer and manner right | bytes right | number of exchanges right | exchanges | exchanges right | handshakes | handshakes right | lookups | lookups right |
|---|---|---|---|---|---|---|---|---|---|---|---|",
    "\
| kernel | first byte | duration | idle before | idle at the end | the same by ticks | connect | release | handshake | dns |
|---|---|---|---|---|---|---|---|---|---|",
];

/// What `accuracy` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Kernels to measure on: 5.10, 6.1, 6.12, 7.2 or all (repeatable)
    #[arg(long, default_value = "all", value_delimiter = ',', value_name = "VERSION")]
    kernel: Vec<Choice>,
    /// Connections to make, with each kind of hooks
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    connections: u32,
    /// What the random connections depend on
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u32,
    /// Seconds until a VM is stopped
    #[arg(long, default_value_t = 900, value_name = "S")]
    timeout: u64,
    #[command(flatten)]
    hardware: Hardware,
}

/// Measures on each kernel and prints the tables of docs/accuracy.md; fails where a trace is worse than its bounds.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure_everything()?;
    let tracer = build::tracer(true)?;
    let programs = build::programs()?;
    let mut rows = String::new();
    let mut code = 0;
    for kernel in kernels::chosen(&args.kernel) {
        say(format!("accuracy {}: {} connections with each kind of hooks", kernel.name, args.connections));
        let worst = measure(args, kernel, &tracer, &programs, &mut rows)?;
        code = code.max(worst);
    }
    for (place, head) in HEADS.iter().enumerate() {
        println!("{head}");
        rows.lines().skip(place).step_by(HEADS.len()).for_each(|row| println!("{row}"));
        println!();
    }
    println!("Errors are p50 / p99 / max, in milliseconds.");
    if code != 0 {
        eprintln!("error: a trace was worse than its bounds (messages above)");
    }
    Ok(ExitCode::from(code))
}

/// Appends the rows of one kernel; returns the exit code.
fn measure(args: &Args, kernel: Kernel, tracer: &Path, programs: &Path, rows: &mut String) -> Result<u8> {
    let program = programs.join(PROGRAMS[0]).display().to_string();
    let command = vec![program, args.connections.to_string(), args.seed.to_string()];
    let timeout = Duration::from_secs(args.timeout);
    let machine = Machine {
        env: vec![("CONNTRACER".to_owned(), tracer.display().to_string())],
        ..args.hardware.machine(kernel, timeout, command)
    };
    let mut take = |stream, bytes: &[u8]| -> Result<()> {
        let text = String::from_utf8_lossy(bytes);
        match stream {
            Stream::Stdout => rows.push_str(&text),
            Stream::Stderr => eprint!("{text}"),
        }
        Ok(())
    };
    let outcome = machine.run(&mut take).with_context(|| format!("accuracy {}", kernel.name))?;
    Ok(outcome.code)
}
