//! How long tracers take until they trace, in one boot.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::{
    KERNEL,
    counts::{median, thousands},
    in_vm, one_kernel,
};
use crate::{
    command::{self, quote, say},
    paths,
    peers::{self, Peers},
};

/// The script that runs in the VM, and the program that it starts tracers by.
const GUEST: &str = "xtask/src/bench/attach.sh";
const STARTER: &str = "tests/clients/loops/attach.c";

/// Rounds, after one in which files are read.
const ROUNDS: usize = 5;

/// What tracers have written once they trace: conntracer says so, libbpf-tools write the heads of their tables.
const OUR_MARK: &str = "conntracer: tracing";
const PEERS_MARK: &str = "PID";

/// Starts each tracer on the kernel of the other figures, and returns a table: medians in instructions.
pub fn table(tracer: &Path, peers: &Peers) -> Result<String> {
    let starter = paths::target_dir().join("attach");
    let source = paths::project_root().join(STARTER);
    let mut compile = Command::new("gcc");
    command::run(compile.args(["-O2", "-Wall", "-Wextra", "-o"]).arg(&starter).arg(source).arg("-lutil"))?;

    say(format!("starting tracers on kernel {KERNEL}, {ROUNDS} rounds; some minutes"));
    let mut words = vec!["bash".to_owned(), GUEST.to_owned(), ROUNDS.to_string(), starter.display().to_string()];
    words.extend(plans(&tracer.display().to_string(), peers));
    let output = in_vm(one_kernel(KERNEL)?, words, Vec::new(), true)?;
    make_table(&output)
}

/// The script's words for each tracer: `NAME:MARK=WORDS`.
fn plans(tracer: &str, peers: &Peers) -> Vec<String> {
    let ours = [
        ("exchanges", ""),
        ("connections", "--detail connections"),
        ("one process", "-p $$"),
        ("one process, connections", "-p $$ --detail connections"),
    ];
    let ours = ours.map(|(name, options)| {
        format!("{name}:{OUR_MARK}={} trace {options} --format ndjson --output /dev/null", quote(tracer))
    });
    let words = |tool| peers.command(tool).iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
    let theirs = peers::TOOLS.map(|tool| format!("{tool}:{PEERS_MARK}={}", words(tool)));
    ours.into_iter().chain(theirs).collect()
}

/// A row for each tracer, in the order in which they came.
fn make_table(output: &str) -> Result<String> {
    let mut names = Vec::new();
    let mut figures = BTreeMap::<&str, [Vec<i64>; 3]>::new();
    for line in output.lines() {
        let Some(line) = line.strip_prefix("attach ") else { bail!("the VM printed a line that is no figure: {line}") };
        // A name may have spaces; the figures are the last three words.
        let mut words = line.rsplitn(4, ' ');
        let [gone, processor, ready] = [words.next(), words.next(), words.next()];
        let name = words.next().context("a line without a name")?;
        if !names.contains(&name) {
            names.push(name);
        }
        let of = figures.entry(name).or_default();
        for (all, word) in of.iter_mut().zip([ready, processor, gone]) {
            all.push(word.unwrap_or_default().parse().with_context(|| format!("no figures in: {line}"))?);
        }
    }
    let mut table =
        "| tracer | until it traces | of these its own | from the interrupt to its end |\n|---|---|---|---|\n"
            .to_owned();
    for name in names {
        let cells = figures[name].iter().map(|all| thousands(median(all.clone()) / 1_000_000)).collect::<Vec<_>>();
        writeln!(table, "| {name} | {} |", cells.join(" | "))?;
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_the_medians_in_millions() {
        let output = "attach one process 5000000 3000000 1000000\nattach tcplife 9000000 8000000 2000000\n\
                      attach one process 7000000 4000000 1000000\nattach one process 6000000 9000000 1999999999\n";
        let rows: Vec<_> = make_table(output).expect("a table").lines().skip(2).map(str::to_owned).collect();
        assert_eq!(rows, ["| one process | 6 | 4 | 1 |", "| tcplife | 9 | 8 | 2 |"]);
        assert!(make_table("attach one process 5 x 7\n").is_err());
        assert!(make_table("something else\n").is_err());
    }
}
