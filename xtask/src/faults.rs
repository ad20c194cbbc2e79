//! `cargo xtask faults`: what goes wrong around a tracer, in the forms that take too long for every run of the tests.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    build,
    command::say,
    kernels::{self, Choice},
    machine::{self, Machine, Stream},
    setup,
    tally::Tally,
    test,
    vm::Hardware,
};

/// Begins the lines in which a case tells what it measured.
const MEASURED: &str = "measured: ";

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
    /// A part of the names of the cases to run, with their modules, instead of `faults::`
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
        if outcome.code == 0 && !seen.lines().any(has_run_one) {
            bail!("no case was run: none has that in its name, or it is one of the long forms (--full)");
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

/// Whether a line that the cases print is the result of one that was not left out.
fn has_run_one(line: &str) -> bool {
    Tally::from_closing_line(line).is_some_and(|tally| tally != Tally::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_which_every_case_was_left_out_has_run_none() {
        assert!(has_run_one(
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 255 filtered out; finished in 69.23s"
        ));
        assert!(has_run_one(
            "test result: FAILED. 0 passed; 10 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s"
        ));
        assert!(!has_run_one(
            "test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 255 filtered out; finished in 0.00s"
        ));
        assert!(!has_run_one("running 1 test"));
    }
}
