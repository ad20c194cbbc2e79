//! `cargo xtask setup`: installs what is missing, and says what before it does.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};

use crate::{
    command::{self, say},
    kernels::KERNELS,
    libraries, musl,
    packages::{self, TOOLS, Use},
    toolchain::Toolchain,
};

/// What `setup` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Install only what building needs: nothing for VMs and tests, no kernels
    #[arg(long)]
    build_only: bool,
}

/// What the machine is to be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Build everything.
    Build,
    /// Check the code.
    Lint,
    /// Run something in a VM.
    Vm,
    /// Fuzz something.
    Fuzz,
    /// Build, and run the tests and the demo.
    Everything,
    /// Measure what tracing costs, beside other tools.
    Bench,
    /// Build for another processor, and test there.
    Foreign,
}

impl Purpose {
    fn uses(self) -> &'static [Use] {
        match self {
            Self::Build => &[Use::BpfCompiler],
            Self::Lint => &[Use::BpfCompiler, Use::Lint],
            Self::Vm => &[Use::Vm],
            Self::Fuzz => &[Use::BpfCompiler, Use::Fuzz],
            Self::Bench => &[Use::BpfCompiler, Use::Vm, Use::Tests, Use::Bench],
            Self::Foreign => &[Use::BpfCompiler, Use::Vm, Use::Tests, Use::Foreign],
            Self::Everything => &[Use::BpfCompiler, Use::Lint, Use::Vm, Use::Tests],
        }
    }
}

/// Installs packages, and fetches the kernels.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.build_only {
        ensure_packages(Purpose::Build)?;
    } else {
        ensure_everything()?;
    }
    say("everything is in place");
    Ok(ExitCode::SUCCESS)
}

/// Packages, kernels and libraries: all that the tests and the demo need.
pub fn ensure_everything() -> Result<()> {
    ensure_packages(Purpose::Everything)?;
    libraries::ensure()?;
    for kernel in KERNELS {
        kernel.ensure()?;
    }
    musl::ensure_openssl()?;
    Ok(())
}

/// Installs the packages and tools that a purpose needs and that are missing.
pub fn ensure_packages(purpose: Purpose) -> Result<()> {
    let mut uses = purpose.uses().to_vec();
    let tools: Vec<_> = TOOLS.iter().filter(|tool| uses.contains(&tool.purpose) && tool.is_missing()).collect();
    uses.extend(tools.iter().filter_map(|tool| tool.built_with));
    if Toolchain::find() == Some(Toolchain::RustupNightly) {
        // rustup's compiler does instead of Debian's.
        uses.retain(|purpose| *purpose != Use::BpfCompiler);
    }
    let missing = packages::missing(&uses)?;
    let mut steps = Vec::new();
    if !missing.is_empty() {
        steps.extend(apt_get(&missing));
    }
    steps.extend(tools.iter().map(|tool| tool.install()));
    if steps.is_empty() {
        return Ok(());
    }
    if !missing.is_empty() && !is_root()? {
        bail!("packages are missing, and only root can install them:\n{}", as_typed(&steps));
    }
    say(format!("installing what is missing:\n{}", as_typed(&steps)));
    steps.iter_mut().try_for_each(command::run)
}

fn apt_get(packages: &[&str]) -> [Command; 2] {
    let mut update = Command::new("apt-get");
    update.args(["update", "-q"]);
    let mut install = Command::new("apt-get");
    // The archives are a third of a gigabyte, and nobody installs them twice.
    install
        .args(["install", "-y", "-q", "--no-install-recommends", "-o", "APT::Keep-Downloaded-Packages=false"])
        .args(packages);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    [update, install]
}

/// The commands, one a line, with the variables and the `sudo` they take.
fn as_typed(steps: &[Command]) -> String {
    let line = |step: &Command| {
        let variables = step.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let variables = variables.map(|(name, value)| format!("{}={} ", name.display(), value.display()));
        let sudo = if step.get_program() == "apt-get" { "sudo " } else { "" };
        format!("    {sudo}{}{}", variables.collect::<String>(), command::display(step))
    };
    steps.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Whether this process may do anything.
pub fn is_root() -> Result<bool> {
    // The owner of our own /proc entry is the effective user.
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}
