//! Programs with names of their own, in a group that is traced.

use std::{
    fmt::Debug,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{libraries, source};
use crate::{
    Cgroup, client_binary,
    commands::output_within,
    java,
    tls::{Authority, stripped},
};

/// For the slowest of them to start, and do its work.
const PATIENCE: Duration = Duration::from_secs(200);

/// What a client says of one of its calls.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// When it began, on a clock of the client's own.
    pub at_ms: f64,
    /// How long it took.
    pub took_ms: f64,
    /// From its beginning until its first try failed, if it did.
    #[serde(default)]
    pub failed_ms: Option<f64>,
    /// The kind of that failure.
    #[serde(default)]
    pub error: Option<String>,
}

/// A program; the scripts are in `tests/clients/incidents`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// A script for Node.
    Node(&'static str),
    /// A script for Python.
    Python(&'static str),
    /// `Writes.java`.
    Writes,
    /// `rustls.rs`, stripped.
    Function,
    /// One that is installed.
    Installed(&'static str),
}

impl Program {
    fn path(self) -> PathBuf {
        match self {
            Self::Node(_) => "/usr/bin/node".into(),
            Self::Python(_) => "/usr/bin/python3".into(),
            Self::Writes => "/usr/lib/jvm/java-17-openjdk-amd64/bin/java".into(),
            Self::Function => stripped(&client_binary("rustls_client")),
            Self::Installed(path) => path.into(),
        }
    }

    /// What follows it before its settings.
    fn arguments(self) -> Vec<String> {
        let text = |path: PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
        match self {
            Self::Node(script) | Self::Python(script) => vec![text(source(script))],
            Self::Function | Self::Installed(_) => Vec::new(),
            Self::Writes => {
                let classes = format!("{}:/usr/share/java/*", text(client_binary("java_writes")));
                java::OPTIONS.into_iter().chain(["-cp", &classes, "Writes"]).map(str::to_owned).collect()
            }
        }
    }

    /// Where its libraries are, and whom it trusts if it does not ask.
    fn set_environment(self, command: &mut Command) {
        match self {
            Self::Node(_) => {
                command.env("NODE_PATH", libraries("node").join("node_modules"));
                command.env("NODE_EXTRA_CA_CERTS", Authority::get().root.path());
            }
            Self::Python(_) => {
                command.env("PYTHONPATH", libraries("python")).env("PYTHONDONTWRITEBYTECODE", "1");
            }
            Self::Writes | Self::Function | Self::Installed(_) => {}
        }
    }
}

/// A group of programs that is traced as one; each program's process name is its own.
pub struct Crowd {
    /// The group.
    pub group: Cgroup,
    names: tempfile::TempDir,
}

impl Crowd {
    /// An empty one.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        Self { group: Cgroup::new(name), names: tempfile::tempdir().expect("a folder") }
    }

    /// A program's command line in the group, under this name.
    #[track_caller]
    pub fn command(&self, name: &str, program: Program, settings: &[&str]) -> Command {
        self.command_within(&self.group, name, program, settings)
    }

    #[track_caller]
    fn command_within(&self, group: &Cgroup, name: &str, program: Program, settings: &[&str]) -> Command {
        let mut command = Command::new(self.named(name, &program.path()));
        command.args(program.arguments()).args(settings);
        program.set_environment(&mut command);
        match program {
            // Java's pool looks after its connections in a thread that it starts as one is put into it, after 5 s for the first
            // time. If that begins to wait just before the connection is marked idle, it is a hair too early then, and lets go of it
            // only after 10 s. On a machine that saves power sleepers wake a little late.
            Program::Writes => waking_late(group.enter(&command)),
            Program::Function => group.enter(&command),
            _ => group.enter_anywhere(&command),
        }
    }

    /// A link to a program: who starts it by that gets its name.
    #[track_caller]
    fn named(&self, name: &str, program: &Path) -> PathBuf {
        assert!(name.len() < 16, "the kernel cuts `{name}`");
        let link = self.names.path().join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(program, &link).unwrap_or_else(|error| panic!("{}: {error}", link.display()));
        }
        link
    }

    /// Runs a program to its end under this name; returns what it says, a line of JSON each. Fails if it fails.
    #[track_caller]
    pub fn run<T: DeserializeOwned + Debug>(&self, name: &str, program: Program, settings: &[&str]) -> Vec<T> {
        self.run_within(&self.group, name, program, settings)
    }

    /// The same in a group that is a part of the crowd's.
    #[track_caller]
    pub fn run_within<T: DeserializeOwned + Debug>(
        &self,
        group: &Cgroup,
        name: &str,
        program: Program,
        settings: &[&str],
    ) -> Vec<T> {
        let stdout = finish(name, &mut self.command_within(group, name, program, settings), None);
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}: {stdout}"));
        let said: Vec<T> = stdout.lines().map(parse).collect();
        // It is seen when the test fails; standard output is for what the tracer says.
        eprintln!("{name} says {said:#?}");
        said
    }

    /// Runs a program to its end under this name, and writes this to it. Fails if it fails.
    #[track_caller]
    pub fn finish(&self, name: &str, program: Program, settings: &[&str], input: Option<&str>) {
        finish(name, &mut self.command(name, program, settings), input);
    }

    /// The same, but somebody types: a line, a pause of so many seconds, and so on.
    #[track_caller]
    pub fn type_at(&self, name: &str, program: Program, settings: &[&str], line: &str, pauses_s: &[u32]) {
        const TYPE: &str =
            "line=$1; for pause in $2; do echo \"$line\"; sleep $pause; done | { shift 2; exec \"$@\"; }";
        let pauses: Vec<_> = pauses_s.iter().map(u32::to_string).collect();
        let typed = self.command(name, program, settings);
        let mut shell = Command::new("/bin/bash");
        shell.args(["-o", "pipefail", "-c", TYPE, "bash", line, &pauses.join(" ")]);
        shell.arg(typed.get_program()).args(typed.get_args());
        finish(name, &mut shell, None);
    }

    /// Starts a server under this name, which says where it listens.
    #[track_caller]
    pub fn serve(&self, name: &str, program: Program, settings: &[&str]) -> Server {
        Server::start(self.command(name, program, settings))
    }
}

/// A server that first of all prints its port; it is killed when dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Server {
    /// Starts it, and waits until it listens.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("a server's port");
        let port = line.trim().parse().unwrap_or_else(|error| panic!("{command:?} says `{line}`: {error}"));
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end; returns what it says. Fails if it fails.
#[track_caller]
fn finish(name: &str, command: &mut Command, input: Option<&str>) -> String {
    let output = output_within(command, input.map(str::as_bytes), PATIENCE);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}: {stdout}{stderr}", output.status);
    stdout.into_owned()
}

/// Makes a command's waits end up to so much late as the kernel finds convenient.
fn waking_late(mut command: Command) -> Command {
    const SLACK: Duration = Duration::from_millis(50);
    let slack = SLACK.as_nanos() as libc::c_ulong;
    // SAFETY: prctl may be called between fork and exec. What is started from there on inherits it.
    unsafe { command.pre_exec(move || Ok(nix::sys::prctl::set_timerslack(slack)?)) };
    command
}
