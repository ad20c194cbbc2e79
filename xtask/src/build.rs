//! `cargo xtask build`: the BPF object and the tracer.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};

use crate::{
    command::{self, say},
    paths,
    setup::{self, Purpose},
    toolchain::Toolchain,
};

/// What `build` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Optimise, as for a release
    #[arg(long)]
    release: bool,
}

/// Builds the tracer; its build script builds the BPF object.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure_packages(Purpose::Build)?;
    let binary = tracer(args.release)?;
    say(format!("built {}", binary.display()));
    Ok(ExitCode::SUCCESS)
}

/// Builds the tracer and returns its path.
pub fn tracer(release: bool) -> Result<PathBuf> {
    let compiler = Toolchain::find().map_or("no compiler: it must come prebuilt", Toolchain::name);
    say(format!("building the tracer and the BPF object ({compiler})"));
    let mut build = cargo();
    build.args(["build", "--package", "tracer"]);
    if release {
        build.arg("--release");
    }
    command::run(&mut build)?;
    Ok(paths::target_dir().join(if release { "release" } else { "debug" }).join("conntracer"))
}

/// Builds the programs that run in the VMs beside the tests; returns the folder that holds them.
pub fn programs() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--package", "conntracer-tests", "--bins"]);
    if !command::status(&mut build)?.success() {
        bail!("the programs for the VMs do not build (messages above)");
    }
    Ok(paths::target_dir().join("debug"))
}

/// cargo in the checkout, with this machine's stable toolchain.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::project_root());
    // The tests take a debug build and a release: both hold the same BPF object.
    cargo.env("CONNTRACER_BPF_DIR", paths::target_dir().join("bpf"));
    cargo
}
