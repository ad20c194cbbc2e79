//! `cargo xtask kernel-support`: asks the doctor on each kernel, and writes the tables of docs/kernel-support.md.

use std::{fmt::Write as _, fs, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{
    build,
    command::say,
    foreign, kernels,
    machine::{Machine, Stream},
    paths, setup,
    vm::Hardware,
};

/// The page.
const PAGE: &str = "docs/kernel-support.md";

/// Asks with each backend. The self-test is for the tests.
const ASK: &str = r#"for backend in auto kprobe; do "$1" doctor --json --no-self-test --backend $backend; done"#;

/// The backends, in the order in which they are asked for.
const BACKENDS: [&str; 2] = ["auto", "kprobe"];

/// What `kernel-support` takes.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    hardware: Hardware,
}

/// What is of use here of the doctor's report.
#[derive(Deserialize)]
struct Report {
    kernel: Kernel,
    btf: Btf,
    tracing: Tracing,
}

#[derive(Deserialize)]
struct Kernel {
    release: String,
    preempts_in_hooks: bool,
}

#[derive(Deserialize)]
struct Btf {
    missing_fields: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Tracing {
    records_kept_in: String,
    hooks: Vec<Hook>,
}

#[derive(Deserialize)]
struct Hook {
    name: String,
    backend: Option<String>,
}

/// Asks, and writes.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure_everything()?;
    let (native, foreign) = (build::tracer(true)?, foreign::tracer()?);
    let mut reports = Vec::new();
    for kernel in kernels::KERNELS.into_iter().chain(kernels::FOREIGN) {
        let tracer = if kernel.architecture.is_native() { &native } else { &foreign };
        say(format!("asking the doctor on kernel {}", kernel.name));
        let command = ["sh", "-c", ASK, "doctor"].map(str::to_owned).into_iter().chain([tracer.display().to_string()]);
        let machine: Machine = args.hardware.machine(kernel, Duration::from_mins(5), command.collect());
        let mut stdout = Vec::new();
        let outcome = machine
            .run(&mut |stream, bytes| {
                if stream == Stream::Stdout {
                    stdout.extend_from_slice(bytes);
                }
                Ok(())
            })
            .with_context(|| format!("vm {}", kernel.name))?;
        if outcome.code != 0 {
            bail!("the doctor failed on {}: {}", kernel.name, String::from_utf8_lossy(&stdout));
        }
        let asked: Result<Vec<Report>, _> = serde_json::Deserializer::from_slice(&stdout).into_iter().collect();
        let asked = asked.with_context(|| format!("the doctor's report on {}", kernel.name))?;
        let asked: [Report; BACKENDS.len()] = asked.try_into().ok().context("one report for each backend")?;
        reports.push((kernel.name, asked));
    }
    let page = paths::project_root().join(PAGE);
    let mut text = fs::read_to_string(&page).with_context(|| format!("cannot read {PAGE}"))?;
    let of = |backend: usize| -> Vec<(&str, &Report)> {
        reports.iter().map(|(kernel, asked)| (*kernel, &asked[backend])).collect()
    };
    text = with_table(&text, "kernels", &kernels_table(&of(0)))?;
    for (at, backend) in BACKENDS.iter().enumerate() {
        text = with_table(&text, backend, &hooks_table(&of(at)))?;
    }
    fs::write(&page, text).with_context(|| format!("cannot write {PAGE}"))?;
    say(format!("wrote {PAGE}"));
    Ok(ExitCode::SUCCESS)
}

/// A row for each kernel.
fn kernels_table(reports: &[(&str, &Report)]) -> String {
    let mut table = "| kernel | as tested | records kept in | kernel fields not found | preempts in hooks |\n|---|---|---|---|---|\n".to_owned();
    for (kernel, report) in reports {
        let preempts = if report.kernel.preempts_in_hooks { "yes" } else { "no" };
        // Writing to a String does not fail.
        let _ = writeln!(
            table,
            "| {kernel} | {} | {} | {} | {preempts} |",
            report.kernel.release,
            report.tracing.records_kept_in,
            report.btf.missing_fields.len()
        );
    }
    table
}

/// A row for each hook, and a column for each kernel.
fn hooks_table(reports: &[(&str, &Report)]) -> String {
    let heads: Vec<_> = reports.iter().map(|(kernel, _)| *kernel).collect();
    let mut table = format!("| hook | {} |\n|---|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
    for name in all_hooks(reports) {
        let cell = |(_, report): &(&str, &Report)| {
            let hook = report.tracing.hooks.iter().find(|hook| hook.name == name);
            hook.map_or_else(|| "not there".to_owned(), |hook| hook.backend.clone().unwrap_or_else(|| "-".to_owned()))
        };
        let cells: Vec<_> = reports.iter().map(cell).collect();
        let _ = writeln!(table, "| `{name}` | {} |", cells.join(" | "));
    }
    table
}

/// The names of all kernels' hooks, in the order that each kernel has them in.
fn all_hooks<'r>(reports: &[(&str, &'r Report)]) -> Vec<&'r str> {
    let mut names: Vec<&str> = Vec::new();
    for (_, report) in reports {
        let mut after = 0;
        for hook in &report.tracing.hooks {
            match names.iter().position(|name| *name == hook.name) {
                Some(at) => after = at + 1,
                None => {
                    names.insert(after, &hook.name);
                    after += 1;
                }
            }
        }
    }
    names
}

/// The page with another table of this name.
fn with_table(page: &str, name: &str, table: &str) -> Result<String> {
    let mark = format!("<!-- table: {name} -->\n");
    let (before, rest) = page.split_once(&mark).with_context(|| format!("{PAGE} has no table {name}"))?;
    let (_, after) = rest.split_once("\n\n").with_context(|| format!("no empty line after table {name}"))?;
    Ok(format!("{before}{mark}{table}\n{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(hooks: &[(&str, Option<&str>)]) -> Report {
        let hook = |(name, backend): &(&str, Option<&str>)| Hook {
            name: (*name).to_owned(),
            backend: backend.map(str::to_owned),
        };
        Report {
            kernel: Kernel { release: "1.2.3".to_owned(), preempts_in_hooks: false },
            btf: Btf { missing_fields: Vec::new() },
            tracing: Tracing { records_kept_in: "a drawer".to_owned(), hooks: hooks.iter().map(hook).collect() },
        }
    }

    #[test]
    fn a_hook_of_some_kernels_stands_where_they_have_it() {
        let old = report(&[("a", Some("x")), ("b", None), ("c", Some("y"))]);
        let new = report(&[("a", Some("z")), ("c", Some("y")), ("d", Some("y"))]);
        let table = hooks_table(&[("1", &old), ("2", &new)]);
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(rows, ["| `a` | x | z |", "| `b` | - | not there |", "| `c` | y | y |", "| `d` | not there | y |"]);
        assert!(kernels_table(&[("1", &old)]).ends_with("| 1 | 1.2.3 | a drawer | 0 | no |\n"));
    }

    #[test]
    fn a_table_is_replaced_up_to_the_empty_line_behind_it() {
        let page = "a\n\n<!-- table: one -->\nold\nold\n\nb\n";
        assert_eq!(with_table(page, "one", "new\n").expect("a page"), "a\n\n<!-- table: one -->\nnew\n\nb\n");
        assert!(with_table(page, "two", "new\n").is_err());
    }
}
