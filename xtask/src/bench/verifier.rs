//! What the kernels' verifiers go through to accept each program.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::in_vm;
use crate::{
    command::{self, say},
    kernels, paths,
};

/// What a tracer is preloaded with to learn what the verifier looked at.
const VERIFIER_COUNTS: &str = "xtask/src/bench/verifier_counts.c";
/// Loads every program there is, and prints what the verifier told about each.
const VERIFIER_SCRIPT: &str = "set -e; export VERIFIER_COUNTS=/run/verifier_counts; \
    for options in '--backend auto' '--backend kprobe' \
        '--backend kprobe --without-hook security_sock_graft --without-hook skb_consume_udp'; \
    do LD_PRELOAD=$2 \"$1\" doctor --verifier $options; done; \
    cat $VERIFIER_COUNTS";

/// Instructions that each kernel's verifier looked at, by program: all that there are, those of the fallback too.
pub fn table(tracer: &Path) -> Result<String> {
    /// The kernel cuts names to so many bytes.
    const NAME_LEN: usize = 15;
    let library = build_verifier_counts()?;
    let mut programs = BTreeMap::<String, BTreeMap<&str, String>>::new();
    for kernel in kernels::KERNELS {
        say(format!("asking the verifier of kernel {}", kernel.name));
        let words = ["bash", "-c", VERIFIER_SCRIPT, "verifier"].map(str::to_owned);
        let words = words.into_iter().chain([tracer.display().to_string(), library.display().to_string()]);
        let output = in_vm(kernel, words.collect(), Vec::new(), false)?;
        let lines = || output.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let counts: BTreeMap<_, _> = lines()
            .filter_map(|words| match words[..] {
                ["processed", name, count] => Some((name.to_owned(), count.to_owned())),
                _ => None,
            })
            .collect();
        for words in lines() {
            if let ["verified", program, _] = words[..] {
                let counts_of = programs.entry(program.to_owned()).or_default();
                let cut = program.get(..NAME_LEN).unwrap_or(program);
                let count = counts.get(cut).with_context(|| format!("{}: no count for {program}", kernel.name))?;
                counts_of.insert(kernel.name, count.clone());
            }
        }
    }
    let names = kernels::KERNELS.map(|kernel| kernel.name);
    let mut table = format!("| program | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (program, counts) in &programs {
        let cells = names.map(|name| counts.get(name).map_or("-", String::as_str));
        writeln!(table, "| {program} | {} |", cells.join(" | "))?;
    }
    Ok(table)
}

/// The library that makes the verifier tell, see its source.
fn build_verifier_counts() -> Result<PathBuf> {
    let library = paths::target_dir().join("verifier_counts.so");
    let source = paths::project_root().join(VERIFIER_COUNTS);
    command::run(
        Command::new("gcc").args(["-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o"]).arg(&library).arg(source),
    )?;
    Ok(library)
}
