//! `cargo xtask test`: everything, with one closing line at the very end.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    architecture::Architecture,
    build::{self, cargo},
    clients,
    command::{self, say},
    kernels::{self, Choice, Kernel},
    lint,
    machine::{self, Machine, Stream},
    paths, room, setup,
    spread::{self, Extent},
    tally::{Reader, Tally},
    vm::Hardware,
};

/// The tests that load BPF, of which cargo takes note only if they are named.
pub const LOADING_BPF: [&str; 4] = ["--test", "cases", "--test", "incidents"];

/// More would only slow each other down: a VM is two busy processors.
const VMS_AT_ONCE: usize = 2;

/// What `test` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Kernels to test on: 5.10, 6.1, 6.12, 7.2 or all (repeatable)
    #[arg(long, default_value = "all", value_delimiter = ',', value_name = "VERSION")]
    kernel: Vec<Choice>,
    /// Leave the VMs out
    #[arg(long, conflicts_with_all = ["kernel", "vm_only"])]
    native_only: bool,
    /// Run in the VMs only: no native tests, no lint
    #[arg(long)]
    vm_only: bool,
    /// The long cases too, each on its kernels (see xtask/src/spread.rs)
    #[arg(long)]
    long: bool,
    /// Every case on every kernel
    #[arg(long, conflicts_with = "long")]
    all_cases: bool,
    #[command(flatten)]
    in_vm: InVm,
}

/// How tests run in a VM.
#[derive(clap::Args)]
pub struct InVm {
    /// Seconds until a VM is stopped
    #[arg(long, default_value_t = 3600, value_name = "S")]
    timeout: u64,
    #[command(flatten)]
    hardware: Hardware,
    /// Arguments of the test binary in the VMs, such as a part of a test's name
    #[arg(last = true, value_name = "ARG")]
    pub filter: Vec<String>,
}

/// Runs what was asked for; the last line counts all tests.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut total = Tally::default();
    // A part that cannot even run is a failure too, and must not take the closing line with it.
    let mut part = |what: &str, result: Result<Tally>| -> Result<()> {
        command::check_interrupted()?;
        let tally = result.unwrap_or_else(|error| {
            eprintln!("error: {what}: {error:#}");
            // What a full disk leads to seldom names it.
            room::tell().unwrap_or_else(|error| eprintln!("error: {error:#}"));
            Tally::FAILED
        });
        println!("{what}: {tally}");
        total += tally;
        Ok(())
    };
    room::tell()?;
    setup::ensure_everything()?;
    if !args.native_only {
        machine::check_privilege()?;
    }
    if !args.vm_only {
        thread::scope(|scope| {
            if !args.native_only {
                scope.spawn(build_ahead);
            }
            part("native", native())?;
            part("lint", lint::check_all())
        })?;
    }
    if !args.native_only {
        match Guest::build(args) {
            Ok(guest) => guest.run_all(args, &mut |kernel, result| part(&format!("vm {}", kernel.name), result))?,
            Err(error) => part("vm", Err(error))?,
        }
    }
    println!("{total}");
    Ok(ExitCode::from(u8::from(total.failed > 0)))
}

/// Builds what the VMs take, meanwhile: the tracer takes one processor for minutes, most of that to link, and so do the native tests.
fn build_ahead() {
    // If it fails, it is built once more when it is needed, and fails there.
    if let Err(error) = for_vms() {
        say(format!("building ahead: {error:#}"));
    }
}

/// Builds the tracer and the binaries of the tests.
fn for_vms() -> Result<(PathBuf, Vec<PathBuf>)> {
    let tracer = build::tracer(true)?;
    clients::build(Architecture::X86_64)?;
    Ok((tracer, test_binaries()?))
}

/// The tests that need no kernel of their own.
fn native() -> Result<Tally> {
    say("testing natively: cargo test --workspace");
    let mut test = cargo();
    test.args(["test", "--workspace", "--no-fail-fast"]);
    let mut reader = Reader::default();
    let status = command::status_by_line(&mut test, |line| {
        println!("{line}");
        reader.line(line);
    })?;
    Ok(reader.finish(None, status.success()))
}

/// What runs in each VM.
pub struct Guest {
    tracer: PathBuf,
    binaries: Vec<PathBuf>,
    logs: PathBuf,
}

impl Guest {
    fn build(args: &Args) -> Result<Self> {
        let (tracer, binaries) = for_vms()?;
        Self::new(tracer, binaries, &kernels::chosen(&args.kernel))
    }

    /// With what has been built, about to run on these kernels.
    pub fn new(tracer: PathBuf, binaries: Vec<PathBuf>, kernels: &[Kernel]) -> Result<Self> {
        let logs = paths::target_dir().join("vm-logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        let names = kernels.iter().map(|kernel| kernel.name).collect::<Vec<_>>().join(", ");
        say(format!("testing in VMs: {names}; logs in {}", logs.display()));
        Ok(Self { tracer, binaries, logs })
    }

    /// Runs the tests on each kernel, a few at a time, and reports each as it ends.
    fn run_all(&self, args: &Args, report: &mut (dyn FnMut(Kernel, Result<Tally>) -> Result<()> + Send)) -> Result<()> {
        // The newest first: they take longest, and what is short fills up the end.
        let queue: VecDeque<_> = kernels::chosen(&args.kernel).into_iter().rev().collect();
        let queue = Mutex::new(queue);
        let report = Mutex::new((report, Ok(())));
        let workers = thread::available_parallelism().map_or(1, usize::from).min(VMS_AT_ONCE);
        let work = || {
            // A statement of its own: the queue must not stay locked while the VM runs.
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            while let Some(kernel) = next() {
                let result = self.run(&args.in_vm, kernel, &arguments(args, kernel));
                let (report, outcome) = &mut *report.lock().unwrap_or_else(PoisonError::into_inner);
                if outcome.is_ok() {
                    *outcome = report(kernel, result);
                }
            }
        };
        thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
        report.into_inner().unwrap_or_else(PoisonError::into_inner).1
    }

    /// A guest that dies is run once more, and that is said: an emulator's slip and a tracer that kills kernels look alike
    /// at first, but only the tracer does it twice. One that used up its time would do so again.
    pub fn run(&self, how: &InVm, kernel: Kernel, arguments: &[String]) -> Result<Tally> {
        let began = Instant::now();
        self.attempt(how, kernel, arguments).or_else(|error| {
            command::check_interrupted()?;
            if began.elapsed() >= Duration::from_secs(how.timeout) {
                return Err(error);
            }
            say(format!("vm {}: {error:#}", kernel.name));
            say(format!("vm {}: running its tests once more", kernel.name));
            self.attempt(how, kernel, arguments)
        })
    }

    fn attempt(&self, how: &InVm, kernel: Kernel, arguments: &[String]) -> Result<Tally> {
        command::check_interrupted()?;
        let env = [("CONNTRACER", self.tracer.display().to_string()), ("RUST_BACKTRACE", "1".to_owned())];
        let machine = how.hardware.machine(kernel, Duration::from_secs(how.timeout), self.command(arguments));
        let machine = Machine { env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(), ..machine };
        let mut log = Log::create(kernel, &self.logs)?;
        let outcome = machine.run(&mut |stream, bytes| log.take(stream, bytes));
        log.tell_slowest();
        let outcome = outcome?;
        Ok(log.reader.finish(Some(self.binaries.len()), outcome.code == 0))
    }

    /// Every test binary in turn, one test at a time: they share the kernel, and some slow down the network.
    fn command(&self, filter: &[String]) -> Vec<String> {
        const SCRIPT: &str = "code=0; n=$1; shift; binaries=(\"${@:1:n}\"); shift \"$n\"; \
                              for binary in \"${binaries[@]}\"; do \"$binary\" --test-threads=1 \"$@\" || code=$?; done; \
                              exit $code";
        let mut command = ["bash", "-c", SCRIPT, "tests"].map(str::to_owned).to_vec();
        command.push(self.binaries.len().to_string());
        command.extend(self.binaries.iter().map(|binary| binary.display().to_string()));
        command.extend(filter.iter().cloned());
        command
    }
}

/// What the test binary is told on one kernel; says which cases are left out. Who names cases gets those.
fn arguments(args: &Args, kernel: Kernel) -> Vec<String> {
    if !args.in_vm.filter.is_empty() {
        return args.in_vm.filter.clone();
    }
    let extent = match (args.all_cases, args.long) {
        (true, _) => Extent::All,
        (false, true) => Extent::Long,
        (false, false) => Extent::Usual,
    };
    let left_out = spread::left_out(kernel, extent);
    if !left_out.is_empty() {
        say(format!(
            "vm {}: left to other kernels, or to --long (--all-cases runs them here too): {}",
            kernel.name,
            left_out.join(", ")
        ));
    }
    without(&left_out)
}

/// What a test binary is told to leave cases out.
pub fn without(cases: &[&str]) -> Vec<String> {
    cases.iter().flat_map(|case| ["--skip", case]).map(str::to_owned).collect()
}

/// Builds the integration tests and returns their binaries.
pub fn test_binaries() -> Result<Vec<PathBuf>> {
    let mut build = cargo();
    // Of the whole workspace, as the native tests are: dependencies have the same features then, and are not compiled again.
    build.args(["test", "--no-run", "--workspace"]).args(LOADING_BPF);
    built_by(build)
}

/// Builds the cases, and the programs that they run, for a processor; returns the binary of the cases, alone.
pub fn cases_for(architecture: Architecture) -> Result<Vec<PathBuf>> {
    let mut programs = architecture.cargo("build");
    programs.args(["--package", "conntracer-tests", "--bins"]);
    command::run(&mut programs)?;
    let mut build = architecture.cargo("test");
    build.args(["--no-run", "--package", "conntracer-tests", "--test", "cases"]);
    built_by(build)
}

fn built_by(mut build: std::process::Command) -> Result<Vec<PathBuf>> {
    say("building the tests for the VMs");
    build.arg("--message-format=json-render-diagnostics");
    let mut binaries = Vec::new();
    let status = command::status_by_line(&mut build, |line| binaries.extend(test_binary(line)))?;
    if !status.success() {
        bail!("the tests for the VMs do not build (messages above)");
    }
    if binaries.is_empty() {
        bail!("the package conntracer-tests holds no integration test");
    }
    Ok(binaries)
}

/// The binary that one of cargo's JSON messages announces.
fn test_binary(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_test = message.pointer("/target/kind")?.as_array()?.iter().any(|kind| kind == "test");
    is_test.then(|| message.get("executable")?.as_str().map(PathBuf::from)).flatten()
}

/// A VM's output: whole to a file, line by line with the kernel's name to the user, and counted.
struct Log<'a> {
    kernel: Kernel,
    dir: &'a Path,
    file: File,
    /// The line that has begun on each stream.
    pending: [Vec<u8>; 2],
    reader: Reader,
}

impl<'a> Log<'a> {
    fn create(kernel: Kernel, dir: &'a Path) -> Result<Self> {
        let path = dir.join(format!("{}.log", kernel.name));
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { kernel, dir, file, pending: Default::default(), reader: Reader::default() })
    }

    /// A VM's time is most of a run's: what takes it has to be seen. The slowest are told, and a file beside the log has all.
    fn tell_slowest(&self) {
        const TOLD: usize = 12;
        let all: String = (self.reader.slowest(usize::MAX).iter())
            .map(|(name, time)| format!("{:.1} {name}\n", time.as_secs_f64()))
            .collect();
        if let Err(error) = fs::write(self.dir.join(format!("{}.seconds", self.kernel.name)), all) {
            say(format!("vm {}: cannot write how long each case took: {error}", self.kernel.name));
        }
        for (what, slowest) in
            [("tests", self.reader.slowest(TOLD)), ("modules", self.reader.slowest_modules(2 * TOLD))]
        {
            let slowest: Vec<_> = slowest.iter().map(|(name, time)| format!("{name} {} s", time.as_secs())).collect();
            if !slowest.is_empty() {
                say(format!("vm {}: slowest {what}: {}", self.kernel.name, slowest.join(", ")));
            }
        }
    }

    fn take(&mut self, stream: Stream, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).context("cannot write a VM's log")?;
        let pending = &mut self.pending[usize::from(stream == Stream::Stderr)];
        pending.extend_from_slice(bytes);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            println!("{:>4} | {}", self.kernel.name, line.trim_end());
            if stream == Stream::Stdout {
                self.reader.line(&line);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_that_cargo_leaves_out_is_named() {
        let manifest = fs::read_to_string(paths::project_root().join("tests/Cargo.toml")).expect("the tests' manifest");
        let tests = manifest.split("[[test]]\n").skip(1).map(|section| {
            let name =
                section.lines().next().and_then(|line| line.strip_prefix("name = ")).expect("a name comes first");
            name.trim_matches('"').to_owned()
        });
        let named: Vec<_> = LOADING_BPF.into_iter().filter(|word| *word != "--test").map(str::to_owned).collect();
        assert_eq!(tests.collect::<Vec<_>>(), named);
    }

    #[test]
    fn only_integration_tests_count_as_binaries() {
        let message = |kind: &str| {
            format!(r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"]}},"executable":"/t/vm-1"}}"#)
        };
        assert_eq!(test_binary(&message("test")), Some(PathBuf::from("/t/vm-1")));
        assert_eq!(test_binary(&message("bin")), None);
        assert_eq!(test_binary(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(test_binary("not JSON"), None);
    }
}
