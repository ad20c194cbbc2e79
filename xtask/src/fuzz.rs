//! `cargo xtask fuzz`: random input, led by what code it reaches.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    build::cargo,
    command::{self, say},
    paths,
    setup::{self, Purpose},
};

/// What `fuzz` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Seconds until it is enough, for each target
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// What to fuzz: files' names in fuzz/fuzz_targets [default: each in turn]
    targets: Vec<String>,
}

/// Fuzzes the targets one after the other; fails at the first input that makes one panic, hang or take too much memory. The input is
/// then in `fuzz/artifacts`; what reached new code stays in `fuzz/corpus` and is where the next run begins.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure_packages(Purpose::Fuzz)?;
    let folder = paths::project_root().join("fuzz");
    let all = all_targets(&folder)?;
    if let Some(unknown) = args.targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no target {unknown}; there are {}", all.join(", "));
    }
    let targets = if args.targets.is_empty() { &all } else { &args.targets };
    for target in targets {
        say(format!("fuzzing {target} for {} s", args.seconds));
        let corpus = folder.join("corpus").join(target);
        fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
        command::run(&mut fuzzer(target, args.seconds))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The names of all targets, in order.
fn all_targets(folder: &Path) -> Result<Vec<String>> {
    let name_of = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let files = fs::read_dir(folder.join("fuzz_targets")).context("cannot read fuzz/fuzz_targets")?;
    let mut names: Vec<_> = files.filter_map(|file| name_of(file.ok()?.path())).collect();
    names.sort();
    Ok(names)
}

/// Without a sanitizer: those take unstable flags, and the code under test is safe Rust.
fn fuzzer(target: &str, seconds: u32) -> Command {
    let mut fuzz = cargo();
    fuzz.args(["fuzz", "run", "--sanitizer", "none", "--target-dir"]).arg(paths::target_dir().join("fuzz"));
    fuzz.args([target, "--", "-print_final_stats=1", "-timeout=10"]);
    fuzz.arg(format!("-max_total_time={seconds}"));
    fuzz
}
