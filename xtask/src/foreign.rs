//! `cargo xtask aarch64`: the tests on another processor, cross-compiled and emulated.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::{
    architecture::Architecture,
    clients,
    command::{self, say},
    kernels::{self, Foreign},
    machine, paths, setup,
    tally::Tally,
    test::{self, Guest, InVm},
};

/// What it runs on.
const ARCHITECTURE: Architecture = Architecture::Aarch64;

/// The cases that are left out. There are no probes on libraries on this processor, which leaves nothing of `sessions`, `tls_libraries`,
/// `getaddrinfo` and `soak`, and too little of `rights`, whose rows they are part of; the guest's root has no Node, Java, Ruby or PHP, and is
/// not one that containers and control groups were tried in.
const LEFT_OUT: &[&str] = &[
    "containers::",
    "cpu_quota::",
    "dns::nodes_",
    "getaddrinfo::",
    "rights::",
    "sessions::",
    "soak::",
    "tls::java_",
    "tls::node_",
    "tls_libraries::",
];

/// What `aarch64` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Kernels to test on: 6.1-aarch64, 6.12-aarch64 or all (repeatable)
    #[arg(long, default_value = "all", value_delimiter = ',', value_name = "NAME")]
    kernel: Vec<Foreign>,
    #[command(flatten)]
    in_vm: InVm,
}

/// Builds all for the processor, and runs the tests on each kernel.
pub fn run(args: &Args) -> Result<ExitCode> {
    machine::check_privilege()?;
    let tracer = tracer()?;
    let cases = test::cases_for(ARCHITECTURE)?;
    clients::build(ARCHITECTURE)?;
    let kernels = kernels::chosen_foreign(&args.kernel);
    let guest = Guest::new(tracer, cases, &kernels)?;
    let named = &args.in_vm.filter;
    let arguments = if named.is_empty() { test::without(LEFT_OUT) } else { named.clone() };
    let mut total = Tally::default();
    for kernel in kernels {
        let tally = guest.run(&args.in_vm, kernel, &arguments).with_context(|| format!("vm {}", kernel.name))?;
        println!("vm {}: {tally}", kernel.name);
        total += tally;
    }
    println!("{total}");
    Ok(ExitCode::from(u8::from(total.failed > 0)))
}

/// rustc's own libraries for the processor.
fn ensure_rust_target() -> Result<()> {
    let target = ARCHITECTURE.rust_target();
    let installed = command::output(Command::new("rustup").args(["target", "list", "--installed"]))
        .context("rustc's libraries for another processor come by rustup: install it from https://rustup.rs")?;
    if installed.lines().any(|line| line == target) {
        return Ok(());
    }
    command::run(Command::new("rustup").args(["target", "add", target]))
}

/// Builds the tracer for the processor, with what that takes.
///
/// # Errors
/// If something cannot be installed or built.
pub fn tracer() -> Result<PathBuf> {
    setup::ensure_packages(setup::Purpose::Foreign)?;
    ensure_rust_target()?;
    say(format!("building the tracer and the BPF object for {}", ARCHITECTURE.name()));
    command::run(ARCHITECTURE.cargo("build").args(["--package", "tracer", "--release"]))?;
    Ok(paths::target_dir().join(ARCHITECTURE.target_folder()).join("release/conntracer"))
}
