//! `cargo xtask fuzz`: random input, led by what code it reaches.

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::{
    build::cargo,
    command, paths,
    setup::{self, Purpose},
};

/// What `fuzz` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Seconds until it is enough
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// What to fuzz: a file's name in fuzz/fuzz_targets
    #[arg(default_value = "recording")]
    target: String,
}

/// Fuzzes one target; fails if an input makes it panic, hang or take too much memory. The input is then in
/// `fuzz/artifacts`; what reached new code stays in `fuzz/corpus` and is where the next run begins.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure_packages(Purpose::Fuzz)?;
    let corpus = paths::project_root().join("fuzz/corpus").join(&args.target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
    command::run(&mut fuzzer(args))?;
    Ok(ExitCode::SUCCESS)
}

/// Without a sanitizer: those take unstable flags, and the code under test is safe Rust.
fn fuzzer(args: &Args) -> Command {
    let mut fuzz = cargo();
    fuzz.args(["fuzz", "run", "--sanitizer", "none", "--target-dir"]).arg(paths::target_dir().join("fuzz"));
    fuzz.args([&args.target, "--", "-print_final_stats=1", "-timeout=10"]);
    fuzz.arg(format!("-max_total_time={}", args.seconds));
    fuzz
}
