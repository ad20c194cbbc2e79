//! `cargo xtask aarch64`: the tests on another processor, cross-compiled and emulated.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    architecture::Architecture,
    clients,
    command::{self, say},
    kernels::{self, Foreign, Kernel},
    machine::{self, Machine, Stream},
    paths, setup,
    tally::{Reader, Tally},
    test,
    vm::Hardware,
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
    /// Seconds until a VM is stopped
    #[arg(long, default_value_t = 5400, value_name = "S")]
    timeout: u64,
    #[command(flatten)]
    hardware: Hardware,
    /// Arguments of the test binary, such as parts of tests' names, instead of all that can run there
    #[arg(last = true, value_name = "ARG")]
    filter: Vec<String>,
}

/// Builds all for the processor, and runs the tests on each kernel.
pub fn run(args: &Args) -> Result<ExitCode> {
    machine::check_privilege()?;
    let tracer = tracer()?;
    let tests = test::cases_for(ARCHITECTURE)?;
    clients::build(ARCHITECTURE)?;
    let mut total = Tally::default();
    for kernel in kernels::chosen_foreign(&args.kernel) {
        let tally = run_on(args, kernel, &tracer, &tests).with_context(|| format!("vm {}", kernel.name))?;
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

fn run_on(args: &Args, kernel: Kernel, tracer: &Path, tests: &Path) -> Result<Tally> {
    let mut command = vec![tests.display().to_string(), "--test-threads=1".to_owned()];
    if args.filter.is_empty() {
        command.extend(LEFT_OUT.iter().flat_map(|case| ["--skip".to_owned(), (*case).to_owned()]));
    } else {
        command.extend(args.filter.iter().cloned());
    }
    let env = [("CONNTRACER", tracer.display().to_string()), ("RUST_BACKTRACE", "1".to_owned())];
    let machine = Machine {
        env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        ..args.hardware.machine(kernel, Duration::from_secs(args.timeout), command)
    };
    let (mut reader, mut pending) = (Reader::default(), String::new());
    let outcome = machine.run(&mut |stream, bytes| {
        if stream == Stream::Stdout {
            pending.push_str(&String::from_utf8_lossy(bytes));
            while let Some(end) = pending.find('\n') {
                reader.line(&pending[..end]);
                pending.drain(..=end);
            }
        }
        machine::pass_through(stream, bytes)
    })?;
    Ok(reader.finish(Some(1), outcome.code == 0))
}
