//! `cargo xtask bench`: what tracing costs, in instructions, beside other tools.
//!
//! One VM on one kernel counts instructions instead of time, so the same work gives the same figure on any machine. A
//! shell script in the VM runs the loops (see `bench/guest.sh`); this side builds what it needs and makes the tables.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    build,
    command::{self, say},
    kernels::{self, Choice, Kernel},
    machine::Stream,
    paths,
    peers::{self, Peers},
    setup,
    vm::Hardware,
};

/// The kernel on which tracers are compared.
const KERNEL: &str = "6.12";
/// What we are called in the tables.
const OURS: &str = "conntracer";
/// No tracer at all.
const NONE: &str = "none";
/// A new connection an iteration.
const CHURN: &str = "churn";
/// An exchange an iteration.
const RR: &str = "rr";
/// Most instructions that we may add to one iteration of churn: two ends, so two lives.
const CHURN_BOUND: i64 = 15_000;
/// Differences below this share of a loop are noise.
const NOISE: f64 = 0.005;
/// Most of a run passes in the guest's sleep, which takes no time; the rest is emulated slowly.
const TIMEOUT: Duration = Duration::from_mins(30);

/// The script that runs in the VM.
const GUEST: &str = "xtask/src/bench/guest.sh";
/// What a tracer is preloaded with to learn what the verifier looked at.
const VERIFIER_COUNTS: &str = "xtask/src/bench/verifier_counts.c";
/// Loads every program there is, and prints what the verifier told about each.
const VERIFIER_SCRIPT: &str = "set -e; export VERIFIER_COUNTS=/run/verifier_counts; \
    for backend in auto kprobe; do LD_PRELOAD=$2 \"$1\" doctor --verifier --backend $backend; done; \
    cat $VERIFIER_COUNTS";

/// Sources of the loops.
const LOOPS: &str = "tests/clients/loops";

/// What `bench` takes.
#[derive(clap::Args)]
pub struct Args {
    /// One round instead of three, and no verifier counts
    #[arg(long)]
    quick: bool,
    /// Only what the verifier looked at
    #[arg(long, conflicts_with = "quick")]
    verifier_only: bool,
}

/// Measures, prints the tables, and fails if a bound is missed.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure_packages(setup::Purpose::Everything)?;
    let tracer = build::tracer(true)?;
    if args.verifier_only {
        println!("{}", verifier_table(&tracer)?);
        return Ok(ExitCode::SUCCESS);
    }
    let counts = measure(&tracer, if args.quick { 1 } else { 3 })?;
    println!("{}", counts.table()?);
    let met = counts.verdicts()?;
    if !args.quick {
        println!("\n{}", verifier_table(&tracer)?);
    }
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the guest's script and gathers its figures.
fn measure(tracer: &Path, rounds: u32) -> Result<Counts> {
    let loops = build_loops()?;
    let peers = Peers::ensure()?;
    let mut words = vec!["bash".to_owned(), GUEST.to_owned(), rounds.to_string()];
    words.extend(peers::TOOLS.iter().map(|tool| format!("{tool}={}", shell_words(&peers.command(tool)))));
    let ours = [tracer.display().to_string(), "trace".to_owned(), "--detail".to_owned(), "connections".to_owned()];
    words.push(format!("{OURS}={} --format ndjson --output {{}}", shell_words(&ours)));

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
    for name in [CHURN, RR] {
        let source = paths::project_root().join(LOOPS).join(format!("{name}.c"));
        command::run(Command::new("gcc").args(["-O2", "-Wall", "-Wextra", "-o"]).arg(folder.join(name)).arg(source))?;
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

fn shell_words(words: &[String]) -> String {
    words.iter().map(|word| command::quote(word)).collect::<Vec<_>>().join(" ")
}

/// What the guest reported.
#[derive(Default)]
struct Counts {
    /// Tracers in the order in which they ran.
    tracers: Vec<String>,
    /// Instructions of an iteration by tracer and loop: all, and those of the tracer's own threads.
    samples: BTreeMap<(String, String), Vec<(i64, i64)>>,
    /// Lines that were found where others were expected.
    wrong_lines: Vec<String>,
}

impl Counts {
    /// Takes one line of the guest's script.
    fn take(&mut self, line: &str) -> Result<()> {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["count", tracer, of, all, own] => {
                if !self.tracers.iter().any(|known| known == tracer) {
                    self.tracers.push(tracer.to_owned());
                }
                let sample = (number(all)?, number(own)?);
                self.samples.entry((tracer.to_owned(), of.to_owned())).or_default().push(sample);
            }
            ["lines", tracer, written, iterations] => {
                let expected = expected_lines(tracer, number(iterations)?);
                if number(written)? != expected {
                    self.wrong_lines.push(format!("{tracer} wrote {written} lines of churn, not {expected}"));
                }
            }
            ["lost", tracer] => self.wrong_lines.push(format!("{tracer} reported losses")),
            _ => bail!("the VM printed a line that is not a figure: {line}"),
        }
        Ok(())
    }

    /// Median of what a loop cost beside a tracer.
    fn median(&self, tracer: &str, of: &str) -> Result<i64> {
        Ok(median(self.all(tracer, of)?))
    }

    fn all(&self, tracer: &str, of: &str) -> Result<Vec<i64>> {
        let samples = self.samples.get(&(tracer.to_owned(), of.to_owned()));
        let samples = samples.with_context(|| format!("the VM gave no figure for {tracer} on {of}"))?;
        Ok(samples.iter().map(|(all, _)| *all).collect())
    }

    /// Median of the part that ran in the tracer's own threads.
    fn own(&self, tracer: &str, of: &str) -> i64 {
        let samples = self.samples.get(&(tracer.to_owned(), of.to_owned()));
        samples.map_or(0, |samples| median(samples.iter().map(|(_, own)| *own).collect()))
    }

    /// What a tracer adds to an iteration.
    fn added(&self, tracer: &str, of: &str) -> Result<i64> {
        Ok(self.median(tracer, of)? - self.median(NONE, of)?)
    }

    fn table(&self) -> Result<String> {
        let mut table =
            String::from("| tracer | churn | own threads | spread | rr | spread |\n|---|---|---|---|---|---|\n");
        for tracer in &self.tracers {
            let cell = |of| {
                if tracer == NONE {
                    self.median(tracer, of).map(thousands)
                } else {
                    self.added(tracer, of).map(|added| format!("+{}", thousands(added)).replace("+-", "-"))
                }
            };
            writeln!(
                table,
                "| {tracer} | {} | {} | {} | {} | {} |",
                cell(CHURN)?,
                thousands(self.own(tracer, CHURN)),
                thousands(spread(&self.all(tracer, CHURN)?)),
                cell(RR)?,
                thousands(spread(&self.all(tracer, RR)?)),
            )?;
        }
        Ok(table)
    }

    /// Prints how we stand against the bounds; whether all are met.
    fn verdicts(&self) -> Result<bool> {
        let churn = self.added(OURS, CHURN)?;
        let rr = self.added(OURS, RR)?;
        let noise = (self.median(NONE, RR)? as f64 * NOISE) as i64;
        let verdicts = [
            (churn <= CHURN_BOUND, format!("churn: +{}, at most +{}", thousands(churn), thousands(CHURN_BOUND))),
            (rr <= noise, format!("rr: +{rr}, noise is up to {noise}")),
            (
                self.wrong_lines.is_empty(),
                match &self.wrong_lines[..] {
                    [] => "every connection has its line, with every tracer".to_owned(),
                    wrong => wrong.join("; "),
                },
            ),
        ];
        for (met, what) in &verdicts {
            println!("{} {what}", if *met { "PASS" } else { "MISS" });
        }
        Ok(verdicts.iter().all(|(met, _)| *met))
    }
}

/// Lines that a tracer writes for so many connections with both ends on the machine.
fn expected_lines(tracer: &str, connections: i64) -> i64 {
    match tracer {
        // Only clients.
        "tcpconnlat" => connections,
        // A line when it opens, a line when it closes.
        "tcptracer" => 4 * connections,
        _ => 2 * connections,
    }
}

fn number(word: &str) -> Result<i64> {
    word.parse().with_context(|| format!("the VM printed '{word}' where a number belongs"))
}

fn median(mut samples: Vec<i64>) -> i64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or(0)
}

/// Largest less smallest.
fn spread(samples: &[i64]) -> i64 {
    samples.iter().max().unwrap_or(&0) - samples.iter().min().unwrap_or(&0)
}

/// `1,234,567`
fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Instructions that each kernel's verifier looked at, by program: all that there are, those of the fallback too.
fn verifier_table(tracer: &Path) -> Result<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_instructions_are_the_difference_of_medians() -> Result<()> {
        let mut counts = Counts::default();
        for line in ["count none churn 100 0", "count none churn 104 0", "count none churn 101 0"] {
            counts.take(line)?;
        }
        counts.take("count conntracer churn 1301 500")?;
        counts.take("lines conntracer 8 4")?;
        assert_eq!(counts.added(OURS, CHURN)?, 1200);
        assert_eq!(counts.own(OURS, CHURN), 500);
        assert!(counts.wrong_lines.is_empty());
        counts.take("lines conntracer 7 4")?;
        assert_eq!(counts.wrong_lines, ["conntracer wrote 7 lines of churn, not 8"]);
        assert!(counts.take("bash: no such file").is_err());
        Ok(())
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, -43_100, 1_234_567].map(thousands), ["0", "999", "1,000", "-43,100", "1,234,567"]);
    }
}
