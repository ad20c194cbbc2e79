//! A server on Go: `tests/clients/tls/numbered/server.go`.

use std::{
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, ChildStdout, Command, Stdio},
};

use super::{Asked, Authority};
use crate::client_binary;

/// The running server; killed when dropped.
pub struct GoServer {
    child: Child,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl GoServer {
    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start() -> Self {
        let server = &Authority::get().server;
        let mut command = Command::new(client_binary("numbered_server"));
        command.arg(format!("cert={}", server.path())).arg(format!("key={}", server.key_path()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut port = String::new();
        output.read_line(&mut port).expect("the server's output");
        Self { child, output, port: port.trim().parse().expect("the server's port") }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Ends it; returns what it was asked for on each connection, which must have been so many requests.
    #[track_caller]
    pub fn asked(mut self, requests: usize) -> Asked {
        drop(self.child.stdin.take());
        let mut log = String::new();
        self.output.read_to_string(&mut log).expect("the server's output");
        assert_eq!(log.lines().count(), requests, "{log}");
        let mut asked = Asked::new();
        for line in log.lines() {
            let (port, host) = line.split_once(' ').expect("a port and a host");
            asked.entry(port.parse().expect("a port")).or_default().push(host.to_owned());
        }
        asked
    }
}

impl Drop for GoServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
