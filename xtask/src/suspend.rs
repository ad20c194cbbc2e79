//! `cargo xtask suspend`: what is told of a connection that lasts while its machine sleeps.
//!
//! The guests of `machine.rs` cannot sleep: the driver of the share that holds their root refuses. This one has all it needs in its
//! initramfs. Its first process traces an echo, has the machine sleep (ACPI S3) until its clock rings, and prints what was told.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    build,
    command::{self, say},
    initrd,
    kernels::{self, Choice, Kernel},
    setup,
};

/// The first process.
const INIT: &str = include_str!("suspend/init.sh");

/// Until a machine that does not wake up is given up.
const TIMEOUT_SECONDS: &str = "600";

/// The alarm is set to whole seconds, eight ahead; to fall asleep takes some of that.
const ASLEEP_MS: f64 = 4_000.0;

/// What `suspend` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Kernels to run on: 5.10, 6.1, 6.12, 7.2 or all (repeatable)
    #[arg(long, default_value = "all", value_delimiter = ',', value_name = "VERSION")]
    kernel: Vec<Choice>,
}

/// Puts a machine to sleep on each kernel; fails if what is told of it is wrong.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure_everything()?;
    let tracer = build::tracer(true)?;
    for kernel in kernels::chosen(&args.kernel) {
        let lines = sleep(kernel, &tracer).with_context(|| format!("suspend {}", kernel.name))?;
        let seen = Seen::read(&lines).with_context(|| lines.join("\n")).with_context(|| kernel.name)?;
        say(format!("suspend {}: {}", kernel.name, seen.check().with_context(|| lines.join("\n"))?));
    }
    Ok(ExitCode::SUCCESS)
}

/// Boots the machine, and returns what it printed.
fn sleep(kernel: Kernel, tracer: &Path) -> Result<Vec<String>> {
    let unpacked = kernel.ensure()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("initrd.gz");
    let tree = folder.path().join("tree");
    fill(&tree, kernel, tracer)?;
    initrd::pack(&tree, &file)?;
    let mut qemu = Command::new("timeout");
    // In the foreground, so that Ctrl-C reaches it.
    qemu.arg("--foreground");
    qemu.args([TIMEOUT_SECONDS, "qemu-system-x86_64", "-machine", kernel.architecture.machine()])
        .args(["-accel", "tcg,thread=single", "-cpu", kernel.architecture.emulated_cpu(), "-smp", "2", "-m", "1024"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(unpacked.image())
        .arg("-initrd")
        .arg(&file)
        .args(["-append", &format!("console=ttyS0 quiet panic=-1 {}", kernel.parameters)])
        .stdin(std::process::Stdio::null());
    let mut lines = Vec::new();
    let status = command::status_by_line(&mut qemu, |line| lines.push(line.trim_end().to_owned()))?;
    ensure!(status.success(), "the machine did not come to its end ({status}):\n{}", lines.join("\n"));
    Ok(lines)
}

/// The initramfs's files: busybox, the tracer and its libraries.
fn fill(tree: &Path, kernel: Kernel, tracer: &Path) -> Result<()> {
    for dir in ["bin", "proc", "sys", "dev"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    fs::copy(initrd::busybox(kernel.architecture)?, tree.join("bin/busybox"))?;
    fs::copy(tracer, tree.join("bin/conntracer"))?;
    for library in libraries(tracer)? {
        let target = tree.join(library.strip_prefix("/").unwrap_or(&library));
        fs::create_dir_all(target.parent().context("a library has a folder")?)?;
        fs::copy(&library, target).with_context(|| format!("cannot copy {}", library.display()))?;
    }
    let init = tree.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The libraries that a program is linked to, and what loads them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = command::output(Command::new("ldd").arg(program))?;
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

/// What the machine printed.
struct Seen {
    /// How long it slept by the boot clock, in ms.
    slept_ms: f64,
    /// Its clock before and after the trace stopped, as the tracer writes times, to whole seconds.
    stopped: (String, String),
    told: Vec<Value>,
}

impl Seen {
    fn read(lines: &[String]) -> Result<Self> {
        let after = |mark: &'static str| lines.iter().filter_map(move |line| line.strip_prefix(mark));
        if let Some(failure) = after("failed: ").next() {
            bail!("{failure}");
        }
        let two =
            |mark| after(mark).next().and_then(|times| times.split_once(' ')).context("the machine tells two times");
        let (asleep_at, awake_at) = two("slept: ")?;
        let (from, to) = two("stopped: ")?;
        let told =
            after("told: ").map(serde_json::from_str).collect::<Result<_, _>>().context("the tracer's output")?;
        Ok(Self {
            slept_ms: (awake_at.parse::<f64>()? - asleep_at.parse::<f64>()?) * 1e3,
            stopped: (from.to_owned(), to.to_owned()),
            told,
        })
    }

    fn of_type<'s>(&'s self, kind: &'static str) -> impl Iterator<Item = &'s Value> {
        self.told.iter().filter(move |line| line["type"] == kind)
    }

    /// Both ends are told, with what was idle while the machine slept, and nothing is lost.
    fn check(&self) -> Result<String> {
        ensure!(self.slept_ms >= ASLEEP_MS, "the machine slept for {:.0} ms only", self.slept_ms);
        let ended = self.of_type("connection").filter(|connection| connection["open"] == false);
        let with_both = ended.filter(|connection| connection["exchanges"] == 2);
        ensure!(with_both.count() == 2, "both ends are told, each with two exchanges");
        let second = self.of_type("exchange").filter(|exchange| exchange["index"] == 1);
        let idle: Vec<f64> = second.filter_map(|exchange| exchange["idle_before_ms"].as_f64()).collect();
        ensure!(idle.len() == 2, "both ends tell their second exchange");
        for idle in &idle {
            ensure!(*idle >= self.slept_ms, "{idle} ms of idle time lack some of the sleep");
            ensure!(*idle < self.slept_ms + 20_000.0, "{idle} ms of idle time are more than the sleep");
        }
        let summary = self.of_type("summary").next().context("a summary")?;
        ensure!(summary["losses"] == Value::Array(Vec::new()), "nothing is lost");
        let (from, to) = &self.stopped;
        let stopped = summary["stopped_at"].as_str().context("a time")?;
        let seconds = stopped.split('.').next().unwrap_or_default();
        ensure!(
            from.as_str() <= seconds && seconds <= to.as_str(),
            "stopped at {stopped}, by the clock {from} to {to}"
        );
        Ok(format!(
            "asleep for {:.1} s; both ends told, idle for {:.1} s before their second exchanges; nothing lost",
            self.slept_ms / 1e3,
            idle[0] / 1e3
        ))
    }
}
