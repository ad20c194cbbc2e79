//! `cargo xtask incidents`: plays the incidents, and puts what is found into docs/incidents.md.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    architecture::Architecture,
    build, clients,
    command::say,
    kernels::{self, Choice},
    machine::{self, Machine},
    paths, setup,
    test::test_binaries,
    vm::Hardware,
};

/// The page.
const PAGE: &str = "docs/incidents.md";

/// Where the tests write the page's blocks instead of comparing them, one a file.
const BLOCKS: &str = "CONNTRACER_PAGE";

/// The tests' own program.
const TESTS: &str = "incidents-";

/// What `incidents` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel to play them on
    #[arg(long, default_value = "6.12", value_name = "VERSION")]
    kernel: Choice,
    #[command(flatten)]
    hardware: Hardware,
    /// Arguments of the test binary, such as a part of a test's name: the other blocks stay as they are
    #[arg(last = true, value_name = "ARG")]
    filter: Vec<String>,
}

/// Runs the tests of the incidents, and writes what they found into the page.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure_everything()?;
    let tracer = build::tracer(true)?;
    let is_its = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TESTS));
    let tests = test_binaries()?.into_iter().find(is_its).context("the tests of the incidents are not there")?;
    clients::build(Architecture::X86_64)?;
    let blocks = tempfile::tempdir().context("cannot make a folder")?;
    for kernel in kernels::chosen(&[args.kernel]) {
        let words = [tests.display().to_string(), "--test-threads=1".to_owned()];
        let command = words.into_iter().chain(args.filter.iter().cloned()).collect();
        let env = [("CONNTRACER", tracer.display().to_string()), (BLOCKS, "/host".to_owned())];
        let machine = Machine {
            env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            out: Some(blocks.path().to_owned()),
            ..args.hardware.machine(kernel, Duration::from_mins(25), command)
        };
        let outcome = machine.run(&mut machine::pass_through).with_context(|| format!("vm {}", kernel.name))?;
        if outcome.code != 0 {
            bail!("a test failed (messages above): {PAGE} stays as it is");
        }
    }
    let page = paths::project_root().join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| format!("cannot read {PAGE}"))?;
    fs::write(&page, with_blocks(&text, blocks.path())?).with_context(|| format!("cannot write {PAGE}"))?;
    say(format!("wrote {PAGE}"));
    Ok(ExitCode::SUCCESS)
}

/// The page with the blocks for which there is a file.
fn with_blocks(page: &str, folder: &Path) -> Result<String> {
    let mut text = page.to_owned();
    for entry in fs::read_dir(folder).context("cannot list the blocks")? {
        let path = entry.context("cannot list the blocks")?.path();
        let (Some(name), Some("txt")) = (path.file_stem(), path.extension().and_then(|kind| kind.to_str())) else {
            continue;
        };
        let new = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mark = format!("<!-- block: {} -->\n```text\n", name.display());
        let (before, rest) =
            text.split_once(&mark).with_context(|| format!("{PAGE} has no block {}", name.display()))?;
        let (_, after) = rest.split_once("```").with_context(|| format!("block {} has no end", name.display()))?;
        text = format!("{before}{mark}{new}```{after}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_replaced_where_there_is_a_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("one.txt"), "new\n").expect("a file");
        let page = "a\n<!-- block: one -->\n```text\nold\n```\nb\n<!-- block: two -->\n```text\nkept\n```\n";
        let expected = page.replace("old", "new");
        assert_eq!(with_blocks(page, folder.path()).expect("a page"), expected);
        fs::write(folder.path().join("three.txt"), "new\n").expect("a file");
        assert!(with_blocks(page, folder.path()).is_err());
    }
}
