//! `cargo xtask bench`: what tracing costs, in instructions, beside other tools.
//!
//! One VM on one kernel counts instructions instead of time, so the same work gives the same figure on any machine. A
//! shell script in the VM runs the loops (see `bench/guest.sh`); this side builds what it needs and makes the tables.

mod attach;
mod counts;
mod plan;
mod verifier;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use counts::Counts;

use crate::{
    build,
    command::{self, say},
    kernels::{self, Choice, Kernel},
    machine::Stream,
    paths,
    peers::Peers,
    setup,
    vm::Hardware,
};

/// The kernel on which tracers are compared.
const KERNEL: &str = "6.12";
/// Most of a run passes in the guest's sleep, which takes no time; the rest is emulated slowly.
const TIMEOUT: Duration = Duration::from_mins(40);

/// The script that runs in the VM.
const GUEST: &str = "xtask/src/bench/guest.sh";
/// Sources of the loops.
const LOOPS: &str = "tests/clients/loops";

/// What `bench` takes.
#[derive(clap::Args)]
pub struct Args {
    /// One round instead of three, no other tools, and no verifier counts
    #[arg(long)]
    quick: bool,
    /// Only what the verifier looked at
    #[arg(long, conflicts_with = "quick")]
    verifier_only: bool,
    /// Only how long tracers take until they trace
    #[arg(long, conflicts_with_all = ["quick", "verifier_only"])]
    attach_only: bool,
}

/// Measures, prints the tables, and fails if a bound is missed.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure_packages(setup::Purpose::Bench)?;
    let tracer = build::tracer(true)?;
    if args.verifier_only {
        println!("{}", verifier::table(&tracer)?);
        return Ok(ExitCode::SUCCESS);
    }
    if args.attach_only {
        println!("{}", attach::table(&tracer, &Peers::ensure()?)?);
        return Ok(ExitCode::SUCCESS);
    }
    let counts = measure(&tracer, args.quick)?;
    println!("{}", counts.table()?);
    let met = counts.verdicts()?;
    if !args.quick {
        println!("\n{}", attach::table(&tracer, &Peers::ensure()?)?);
        println!("{}", verifier::table(&tracer)?);
    }
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the guest's script and gathers its figures.
fn measure(tracer: &Path, quick: bool) -> Result<Counts> {
    let loops = build_loops()?;
    let peers = if quick { None } else { Some(Peers::ensure()?) };
    let rounds = if quick { 1 } else { 3 };
    let mut words = vec!["bash".to_owned(), GUEST.to_owned(), rounds.to_string()];
    words.extend(plan::plans(&tracer.display().to_string(), peers.as_ref()));

    say(format!("counting instructions on kernel {KERNEL}, {rounds} round(s); some minutes"));
    let env = vec![("LOOPS".to_owned(), loops.display().to_string())];
    let output = in_vm(one_kernel(KERNEL)?, words, env, true)?;
    let mut counts = Counts::default();
    output.lines().try_for_each(|line| counts.take(line))?;
    Ok(counts)
}

/// Compiles every loop; returns their folder.
fn build_loops() -> Result<PathBuf> {
    let folder = paths::target_dir().join("loops");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for name in plan::LOOPS {
        let source = paths::project_root().join(LOOPS).join(format!("{name}.c"));
        let mut compile = Command::new("gcc");
        compile.args(["-O2", "-Wall", "-Wextra", "-o"]).arg(folder.join(name)).arg(source);
        // The linker leaves out what a loop does not call.
        command::run(compile.args(["-Wl,--as-needed", "-lssl", "-lcrypto"]))?;
    }
    Ok(folder)
}

fn one_kernel(name: &str) -> Result<Kernel> {
    let choice: Choice = name.parse()?;
    kernels::chosen(&[choice]).first().copied().context("no such kernel")
}

/// Runs a command in a VM; returns what it printed, passing on what it complained about.
fn in_vm(kernel: Kernel, words: Vec<String>, env: Vec<(String, String)>, counting: bool) -> Result<String> {
    let hardware = Hardware { memory: 3072, cpus: 2, count_instructions: counting, kvm: false };
    let mut machine = hardware.machine(kernel, TIMEOUT, words);
    machine.env = env;
    let mut printed = Vec::new();
    let outcome = machine.run(&mut |stream, bytes| {
        match stream {
            Stream::Stdout => printed.extend_from_slice(bytes),
            Stream::Stderr => eprint!("{}", String::from_utf8_lossy(bytes)),
        }
        Ok(())
    })?;
    if outcome.code != 0 {
        bail!("the command in the VM on {} failed with exit code {}", kernel.name, outcome.code);
    }
    Ok(String::from_utf8_lossy(&printed).into_owned())
}
