//! The programs: a server and a client on Node, and on Go.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    client_binary,
    clock::eventually,
    tls::{Authority, NAME},
};

/// Connections that a client uses at a time.
const CONNECTIONS: u32 = 4;

/// Between two requests of a worker: the load is steady, and leaves the emulated processors time to load programs.
const PAUSE_MS: u32 = 50;

/// In which the programs must get something done.
const MOMENT: Duration = Duration::from_secs(2);

/// What a program says at its end.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// Of a client: made; of a server: received.
    pub requests: u64,
    /// Not answered, or not by what was sent.
    pub failed: u64,
    /// On so many connections.
    pub connections: u64,
    /// The longest that a client waited for an answer.
    pub slowest_ms: f64,
    /// The first few.
    pub errors: Vec<String>,
}

/// A running program. It ends with its input, and is killed when dropped.
struct Program {
    name: &'static str,
    child: Child,
    output: BufReader<ChildStdout>,
}

/// The running programs.
pub struct Load {
    programs: Vec<Program>,
}

impl Load {
    /// Starts servers, then clients.
    #[track_caller]
    pub fn start() -> Self {
        let mut programs = Vec::new();
        for [server, client] in [["node-server", "node-client"], ["go-server", "go-client"]] {
            let authority = Authority::get();
            let files = [format!("cert={}", authority.server.path()), format!("key={}", authority.server.key_path())];
            let mut server = Program::start(server, &files);
            let port = server.line();
            programs.push(server);
            let settings = [
                format!("ca={}", authority.root.path()),
                format!("port={}", port.trim()),
                format!("name={NAME}"),
                format!("connections={CONNECTIONS}"),
                format!("pause_ms={PAUSE_MS}"),
            ];
            programs.push(Program::start(client, &settings));
        }
        let load = Self { programs };
        load.await_requests();
        load
    }

    /// The processes, in one order.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.programs.iter().map(|program| program.child.id())
    }

    /// Their names, in the same order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.programs.iter().map(|program| program.name)
    }

    /// The programs that are no more; they are not started again, so the others are the same processes as ever.
    pub fn ended(&mut self) -> Vec<String> {
        let ended = self.programs.iter_mut().filter_map(|Program { name, child, .. }| {
            let status = child.try_wait().expect("wait for a child")?;
            Some(format!("{name} has ended: {status}"))
        });
        ended.collect()
    }

    /// Waits until each program has done some work, and so has got over whatever was done to it.
    #[track_caller]
    pub fn await_requests(&self) {
        for Program { name, child, .. } in &self.programs {
            let before = work_of(child.id());
            eventually(&format!("{name} to work"), || (work_of(child.id()) > before).then_some(()));
        }
        thread::sleep(MOMENT);
    }

    /// Ends the clients, then the servers, and returns what they say.
    #[track_caller]
    pub fn stop(mut self) -> Vec<(&'static str, Done)> {
        // The clients have their answers before the servers end.
        self.programs.sort_by_key(|program| program.name.ends_with("server"));
        self.programs.iter_mut().map(|program| (program.name, program.stop())).collect()
    }
}

/// Processor time of a process, in ticks.
fn work_of(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

impl Program {
    #[track_caller]
    fn start(name: &'static str, settings: &[String]) -> Self {
        let (runtime, mode) = name.split_once('-').expect("a runtime and a mode");
        let mut command = if runtime == "node" {
            let mut node = Command::new("/usr/bin/node");
            node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/soak/soak.mjs"));
            node
        } else {
            Command::new(client_binary("go_soak"))
        };
        command.arg(mode).args(settings).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Self { name, child, output }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a program's output");
        assert!(!line.is_empty(), "{} has ended", self.name);
        line
    }

    #[track_caller]
    fn stop(&mut self) -> Done {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("a program's output");
        let status = self.child.wait().expect("wait for a child");
        assert!(status.success(), "{} ended with {status}: {text}", self.name);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}: {text}", self.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
