//! A throw-away virtual machine on a chosen kernel, whose root is this machine's own root, copy on write; for another processor it is one
//! from the cache.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    command::{self, Running, quote, say},
    guest_root, initrd,
    kernels::Kernel,
    paths, setup,
};

/// Debian 12 has virtiofsd in qemu's own folder, later ones elsewhere.
const VIRTIOFSD: [&str; 2] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];

/// The guest kernel's command line behind its console: no chatter, power off on a panic, sysrq to power off.
const KERNEL_COMMAND_LINE: &str = "quiet panic=-1 sysctl.kernel.sysrq=1";

/// A guest takes some 3 s to come up, 10 s on a busy machine; without a sign of life after this it never will.
const BOOT_TIMEOUT: Duration = Duration::from_secs(90);

/// Kernel messages that are worth showing even when the command succeeded.
const KERNEL_COMPLAINTS: [&str; 5] = ["BUG:", "WARNING:", "Oops", "Kernel panic", "rcu_sched self-detected"];

/// How many lines of the kernel's console go with a failure.
const CONSOLE_TAIL: usize = 30;

/// The share that holds what was built, for a guest with a foreign root: this machine's own root.
const BUILT: &str = "built";

/// The part of a run script that is the same in every run.
const RUN_SCRIPT: &str = include_str!("machine/run.sh");

/// What to run, and on what.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The kernel to boot.
    pub kernel: Kernel,
    /// Memory in MB; it is taken from the host only as the guest uses it.
    pub memory: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// Makes the guest's clock the count of executed instructions; takes one processor.
    pub count_instructions: bool,
    /// Hardware virtualisation instead of emulation.
    pub kvm: bool,
    /// When to give up.
    pub timeout: Duration,
    /// What the guest sees as /host; a temporary folder if not given.
    pub out: Option<PathBuf>,
    /// Environment of the command, on top of the plain one.
    pub env: Vec<(String, String)>,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// How a run ended.
pub struct Outcome {
    /// `uname -r` in the guest.
    pub release: String,
    /// The command's exit code.
    pub code: u8,
    /// From start to end, boot included.
    pub took: Duration,
}

/// Which of the command's streams some output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes the command's output as it comes.
pub type Sink<'a> = &'a mut dyn FnMut(Stream, &[u8]) -> Result<()>;

/// Passes the output on to this process' own streams.
pub fn pass_through(stream: Stream, bytes: &[u8]) -> Result<()> {
    match stream {
        Stream::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
        Stream::Stderr => std::io::stderr().write_all(bytes),
    }
    .context("cannot pass on the output of the VM")
}

/// Fails where no VM can be started, before time goes into building what would run there.
pub fn check_privilege() -> Result<()> {
    if !setup::is_root()? {
        bail!(
            "a VM shares this machine's root through virtiofsd, which has to run as root: \
             try again with `sudo --preserve-env=HOME,PATH`, or as root"
        );
    }
    Ok(())
}

impl Machine {
    /// Runs the command in a fresh VM. A guest that shows no sign of life is started once more.
    pub fn run(&self, sink: Sink<'_>) -> Result<Outcome> {
        check_privilege()?;
        let files = BootFiles::ensure(self.kernel)?;
        match self.attempt(&files, sink)? {
            Attempt::Ended(outcome) => Ok(outcome),
            Attempt::NoSignOfLife(console) => {
                say(format!("vm {}: did not come up, trying once more", self.kernel.name));
                match self.attempt(&files, sink)? {
                    Attempt::Ended(outcome) => Ok(outcome),
                    Attempt::NoSignOfLife(_) => {
                        bail!("the VM did not come up, twice; its console said:\n{}", tail(&console))
                    }
                }
            }
        }
    }

    fn attempt(&self, files: &BootFiles, sink: Sink<'_>) -> Result<Attempt> {
        let started = Instant::now();
        let run = RunDir::create(self, files)?;
        let mut processes = self.start(files, &run)?;
        let mut output = Output::new(&run);
        loop {
            let ended = processes.qemu.try_wait()?.is_some();
            output.forward(sink)?;
            let release = run.read("control/release");
            if let (Some(release), Some(status)) = (&release, run.read("control/status")) {
                output.forward(sink)?;
                let code = status.parse().with_context(|| format!("the VM gave an exit code of `{status}`"))?;
                report_complaints(self.kernel, &run.console());
                return Ok(Attempt::Ended(Outcome { release: release.clone(), code, took: started.elapsed() }));
            }
            if release.is_none() && (ended || started.elapsed() > BOOT_TIMEOUT) {
                return Ok(Attempt::NoSignOfLife(run.console()));
            }
            if ended {
                bail!("the VM died while the command ran; its console said:\n{}", tail(&run.console()));
            }
            if started.elapsed() > self.timeout {
                let console = tail(&run.console());
                bail!("no end after {} s (see --timeout); the VM's console said:\n{console}", self.timeout.as_secs());
            }
            command::check_interrupted()?;
            thread::sleep(command::POLL);
        }
    }

    fn start(&self, files: &BootFiles, run: &RunDir) -> Result<Processes> {
        let native = self.kernel.architecture.is_native();
        if self.kvm && !native {
            bail!(
                "--kvm is this machine's own processor, and the kernel {} is for another: leave it out",
                self.kernel.name
            );
        }
        let root = if native { PathBuf::from("/") } else { guest_root::ensure(self.kernel.architecture)? };
        let host = self.out.clone().unwrap_or_else(|| run.path("host"));
        // Nothing else writes to the host's root while a VM looks at it for the first time, so all of it may be cached.
        let shares = [
            Share { tag: "rootfs", source: &root, cache: "always" },
            Share { tag: "control", source: &run.path("control"), cache: "auto" },
            Share { tag: "host", source: &host, cache: "auto" },
        ];
        // What was built is not in a foreign root.
        let built = Share { tag: BUILT, source: Path::new("/"), cache: "auto" };
        let shares: Vec<_> = shares.into_iter().chain((!native).then_some(built)).collect();
        let daemons = shares.iter().map(|share| share.serve(run)).collect::<Result<Vec<_>>>()?;
        for share in &shares {
            share.wait_for_socket(run)?;
        }
        let mut qemu = self.qemu(files, run);
        for share in &shares {
            qemu.args(share.device(run));
        }
        Ok(Processes { qemu: Running::start(&mut qemu)?, _daemons: daemons })
    }

    fn qemu(&self, files: &BootFiles, run: &RunDir) -> Command {
        let architecture = self.kernel.architecture;
        let (accelerator, cpu) = match (self.kvm, self.count_instructions) {
            (true, _) => ("kvm", "host"),
            (false, true) => ("tcg", architecture.emulated_cpu()),
            // All guest processors in one thread: run in parallel, they now and then execute an instruction of which another
            // has half finished the patching (a breakpoint where a tracepoint is switched), and the guest's kernel dies.
            (false, false) => ("tcg,thread=single", architecture.emulated_cpu()),
        };
        let cpus = if self.count_instructions { 1 } else { self.cpus };
        let mut qemu = bound_to_us(&format!("qemu-system-{}", architecture.name()));
        qemu.args(["-machine", architecture.machine(), "-accel", accelerator, "-cpu", cpu])
            .args(["-smp", &cpus.to_string(), "-m", &format!("{}M", self.memory)])
            // virtiofsd reads and writes the guest's memory, hence shared.
            .args(["-object", &format!("memory-backend-memfd,id=mem,size={}M,share=on", self.memory)])
            .args(["-numa", "node,memdev=mem"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"])
            .args(["-serial", &format!("file:{}", run.path("console").display())])
            .args(["-device", "virtio-serial-pci"]);
        for stream in ["stdout", "stderr"] {
            qemu.args(["-chardev", &format!("file,id={stream},path={}", run.path(stream).display())])
                .args(["-device", &format!("virtserialport,chardev={stream},name={stream}")]);
        }
        if self.count_instructions {
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        qemu.arg("-kernel")
            .arg(&files.image)
            .arg("-initrd")
            .arg(&files.initrd)
            .args([
                "-append",
                &format!("console={} {KERNEL_COMMAND_LINE} {}", architecture.console(), self.kernel.parameters),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        qemu
    }

    /// The script that the guest's first process hands over to.
    fn script(&self, files: &BootFiles) -> Result<String> {
        let home = paths::home()?;
        let path =
            format!("{}/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", home.display());
        let mut environment = BTreeMap::from([
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), home.display().to_string()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("TERM".to_owned(), "dumb".to_owned()),
        ]);
        environment.extend(self.env.iter().cloned());
        let visible = [paths::project_root().to_owned(), paths::target_dir(), paths::cache_dir()?];

        let mut script = String::new();
        for (name, value) in environment {
            writeln!(script, "export {name}={}", quote(&value))?;
        }
        writeln!(script, "built={}", if self.kernel.architecture.is_native() { "" } else { BUILT })?;
        writeln!(script, "modules={}", quote(&files.modules.display().to_string()))?;
        writeln!(script, "directory={}", quote(&paths::project_root().display().to_string()))?;
        writeln!(script, "visible=({})", words(visible.iter().map(|dir| dir.display().to_string())))?;
        writeln!(script, "command=({})", words(self.command.iter().cloned()))?;
        script.push_str(RUN_SCRIPT);
        Ok(script)
    }
}

fn words(list: impl Iterator<Item = String>) -> String {
    list.map(|word| quote(&word)).collect::<Vec<_>>().join(" ")
}

/// How one start of the VM ended.
enum Attempt {
    Ended(Outcome),
    /// Holds the console.
    NoSignOfLife(String),
}

/// What QEMU boots.
struct BootFiles {
    image: PathBuf,
    initrd: PathBuf,
    modules: PathBuf,
}

impl BootFiles {
    fn ensure(kernel: Kernel) -> Result<Self> {
        let unpacked = kernel.ensure()?;
        let initrd = initrd::ensure(kernel, &unpacked).context("cannot build the initramfs")?;
        Ok(Self { image: unpacked.image(), initrd, modules: unpacked.modules()? })
    }
}

/// QEMU, and the daemons that serve its file systems; dropped in this order.
struct Processes {
    qemu: Running,
    _daemons: Vec<Running>,
}

/// A folder of the host that the guest can mount.
struct Share<'a> {
    tag: &'static str,
    source: &'a Path,
    cache: &'static str,
}

impl Share<'_> {
    fn socket(&self, run: &RunDir) -> PathBuf {
        run.path(&format!("{}.sock", self.tag))
    }

    fn serve(&self, run: &RunDir) -> Result<Running> {
        let virtiofsd = VIRTIOFSD.iter().find(|path| Path::new(path).is_file());
        let virtiofsd = virtiofsd.context("virtiofsd is missing: run `cargo xtask setup` (package qemu-system-x86)")?;
        let log = File::create(run.path(&format!("{}.log", self.tag)))?;
        let mut command = bound_to_us(virtiofsd);
        command
            .arg(format!("--socket-path={}", self.socket(run).display()))
            .args(["-o", &format!("source={}", self.source.display())])
            .args(["-o", "sandbox=chroot", "-o", &format!("cache={}", self.cache)])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Running::start(&mut command)
    }

    fn wait_for_socket(&self, run: &RunDir) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.socket(run).exists() {
            if Instant::now() > deadline {
                let log = run.read(&format!("{}.log", self.tag)).unwrap_or_default();
                bail!("virtiofsd did not start for {}: {log}", self.source.display());
            }
            thread::sleep(command::POLL);
        }
        Ok(())
    }

    fn device(&self, run: &RunDir) -> [String; 4] {
        let tag = self.tag;
        [
            "-chardev".to_owned(),
            format!("socket,id={tag},path={}", self.socket(run).display()),
            "-device".to_owned(),
            format!("vhost-user-fs-pci,chardev={tag},tag={tag}"),
        ]
    }
}

/// A program that the kernel kills should this process be killed before it can clean up.
fn bound_to_us(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// The files of one run, gone when dropped.
struct RunDir(tempfile::TempDir);

impl RunDir {
    fn create(machine: &Machine, files: &BootFiles) -> Result<Self> {
        let run = Self(tempfile::Builder::new().prefix("conntracer-vm-").tempdir()?);
        for dir in ["control", "host"] {
            fs::create_dir(run.path(dir))?;
        }
        fs::write(run.path("control/run.sh"), machine.script(files)?)?;
        Ok(run)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A complete line that the guest wrote, if it has.
    fn read(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(name)).ok()?;
        text.ends_with('\n').then(|| text.trim_end().to_owned())
    }

    fn console(&self) -> String {
        fs::read(self.path("console")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

/// The command's output, which QEMU appends to two files.
struct Output {
    streams: [(Stream, PathBuf, Option<File>); 2],
}

impl Output {
    fn new(run: &RunDir) -> Self {
        Self { streams: [(Stream::Stdout, run.path("stdout"), None), (Stream::Stderr, run.path("stderr"), None)] }
    }

    /// Hands on what has come since the last time.
    fn forward(&mut self, sink: Sink<'_>) -> Result<()> {
        for (stream, path, file) in &mut self.streams {
            if file.is_none() {
                *file = File::open(path).ok();
            }
            let mut fresh = Vec::new();
            if let Some(file) = file {
                file.read_to_end(&mut fresh).context("cannot read the output of the VM")?;
            }
            if !fresh.is_empty() {
                sink(*stream, &fresh)?;
            }
        }
        Ok(())
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return "(nothing)".to_owned();
    }
    lines[lines.len().saturating_sub(CONSOLE_TAIL)..].join("\n")
}

fn report_complaints(kernel: Kernel, console: &str) {
    for line in console.lines().filter(|line| KERNEL_COMPLAINTS.iter().any(|complaint| line.contains(complaint))) {
        eprintln!("vm {}: the kernel complained: {}", kernel.name, line.trim_end());
    }
}
