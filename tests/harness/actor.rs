//! A process of its own that opens and closes connections as it is told: `tests/clients/actor.rs`.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{client_binary, pair::Ends};

/// A running actor; it and what it forked are killed when dropped.
pub struct Actor {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    forked: Vec<u32>,
}

impl Actor {
    /// A process that waits for its first order.
    #[track_caller]
    pub fn new() -> Self {
        Self::by(Command::new(client_binary("actor")))
    }

    /// The same under another name; `dir` takes the link that gives it.
    #[track_caller]
    pub fn named(name: &str, dir: &Path) -> Self {
        let link = dir.join(name);
        std::os::unix::fs::symlink(client_binary("actor"), &link).expect("a link to the actor");
        Self::by(Command::new(link))
    }

    /// What a command line starts that comes to an actor.
    #[track_caller]
    pub fn by(mut command: Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut actor = Self { child, stdin, stdout, forked: Vec::new() };
        // Its name is the program's only once it runs.
        actor.order("ready");
        actor
    }

    /// Its process id, not that of what it forked.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order and returns the answer; fails if the order did.
    #[track_caller]
    pub fn order(&mut self, order: &str) -> String {
        self.begin(order);
        self.answer(order)
    }

    /// Gives an order without waiting for the answer.
    #[track_caller]
    pub fn begin(&mut self, order: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        writeln!(stdin, "{order}").unwrap_or_else(|error| panic!("`{order}`: the actor is gone: {error}"));
    }

    /// The answer to an order that was begun.
    #[track_caller]
    pub fn answer(&mut self, order: &str) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the actor's answer");
        let answer = line.trim_end().strip_prefix("ok");
        answer.unwrap_or_else(|| panic!("`{order}` was answered by `{line}`")).trim_start().to_owned()
    }

    /// Connects to `to`; returns the ends.
    #[track_caller]
    pub fn connect(&mut self, to: SocketAddr) -> Ends {
        let local = self.order(&format!("connect {to}"));
        Ends::new(local.parse().expect("an address"), to)
    }

    /// Listens on loopback; returns where.
    #[track_caller]
    pub fn listen(&mut self) -> SocketAddr {
        self.order("listen").parse().expect("an address")
    }

    /// Orders that make another process go on in its place; returns that one's id.
    #[track_caller]
    pub fn become_another(&mut self, order: &str) -> u32 {
        let pid = self.order(order).parse().expect("a process id");
        self.forked.push(pid);
        pid
    }

    /// Has it end by itself, and what it forked.
    pub fn end(&mut self) {
        self.stdin = None;
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("the actor runs");
        self.child.wait().expect("the actor ended");
    }
}

impl Default for Actor {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // What it forked ends with its stdin; only one that hangs needs to be killed.
        self.stdin = None;
        for pid in &self.forked {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
