//! `cargo xtask faults`: what goes wrong around a tracer, in the forms that take too long for every run of the tests.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    build,
    command::say,
    kernels::{self, Choice},
    machine::{self, Machine, Stream},
    setup, test,
    vm::Hardware,
};

/// Begins the lines in which a case tells what it measured.
const MEASURED: &str = "measured: ";
/// What the cases print when none of them is meant.
const NOTHING_RUN: &str = "running 0 tests";

/// What `faults` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Kernels to run on: 5.10, 6.1, 6.12, 7.2 or all (repeatable)
    #[arg(long, default_value = "6.12", value_delimiter = ',', value_name = "VERSION")]
    kernel: Vec<Choice>,
    /// The long forms too: a minute of SIGSTOP, 100,000 open sockets, a minute of new connections, 2,000 processes
    #[arg(long)]
    full: bool,
    /// Seconds until a VM is stopped
    #[arg(long, default_value_t = 3600, value_name = "S")]
    timeout: u64,
    #[command(flatten)]
    hardware: Hardware,
    /// A part of the names of the cases to run, with their modules, instead of all: `faults::crowds`
    #[arg(last = true, value_name = "CASE")]
    case: Option<String>,
}

/// Runs the cases on each kernel, and prints at the end what they measured.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure_everything()?;
    machine::check_privilege()?;
    let tracer = build::tracer(true)?;
    let binaries = test::test_binaries()?;
    let is_cases =
        |path: &&std::path::PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cases-"));
    let Some(cases) = binaries.iter().find(is_cases) else { bail!("there is no test binary `cases`") };
    let mut code = 0;
    let mut figures = Vec::new();
    for kernel in kernels::chosen(&args.kernel) {
        let mut command = vec![cases.display().to_string(), args.case.clone().unwrap_or_else(|| "faults::".to_owned())];
        command.extend(["--test-threads=1", "--nocapture"].map(str::to_owned));
        command.extend(args.full.then(|| "--include-ignored".to_owned()));
        let machine = Machine {
            env: vec![("CONNTRACER".to_owned(), tracer.display().to_string())],
            ..args.hardware.machine(kernel, Duration::from_secs(args.timeout), command)
        };
        let mut seen = Vec::new();
        let outcome = machine.run(&mut |stream, bytes| {
            if stream == Stream::Stdout {
                seen.extend_from_slice(bytes);
            }
            machine::pass_through(stream, bytes)
        });
        let outcome = outcome.with_context(|| format!("faults {}", kernel.name))?;
        let seen = String::from_utf8_lossy(&seen).into_owned();
        if seen.contains(NOTHING_RUN) {
            bail!("no case has {:?} in its name", args.case.as_deref().unwrap_or_default());
        }
        code = code.max(outcome.code);
        figures.push((kernel.name, seen));
    }
    for (kernel, text) in &figures {
        for figure in text.lines().filter_map(|line| line.split_once(MEASURED)).map(|(_, figure)| figure) {
            say(format!("faults {kernel}: {figure}"));
        }
    }
    Ok(ExitCode::from(code))
}
