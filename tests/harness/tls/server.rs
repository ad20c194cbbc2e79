//! A server that says what it measured: `tests/clients/tls/server.py`.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde::Deserialize;

use super::{Authority, source};

/// The running server; it ends when dropped.
pub struct PythonServer {
    child: Child,
    lines: BufReader<ChildStdout>,
    port: u16,
}

/// What it says of a connection once that has ended.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// The client's port.
    pub remote_port: u16,
    /// From when the ClientHello was there until the library said that the handshake was done.
    pub handshake_ms: f64,
    /// As `1.3`.
    pub version: String,
    /// The name that the client asked for.
    pub sni: Option<String>,
    /// Whether a session was resumed.
    pub resumed: bool,
    /// The protocol that was agreed upon.
    pub alpn: Option<String>,
    /// How many requests were answered.
    pub exchanges: u64,
}

impl PythonServer {
    /// Starts it with these further settings and waits until it listens.
    #[track_caller]
    pub fn start(settings: &[&str]) -> Self {
        let authority = Authority::get();
        let mut python = Command::new("/usr/bin/python3");
        python.arg(source("server.py")).arg(format!("cert={}", authority.server.path()));
        python.arg(format!("key={}", authority.server.key_path())).args(settings);
        python.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap_or_else(|error| panic!("{python:?}: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut server = Self { child, lines, port: 0 };
        server.port = server.line().trim().parse().expect("the server's port");
        server
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// What it says of the next connection that ended; fails if its handshake failed.
    #[track_caller]
    pub fn watched(&mut self) -> Watched {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the server's output");
        assert!(!line.is_empty(), "the server has ended");
        line
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
