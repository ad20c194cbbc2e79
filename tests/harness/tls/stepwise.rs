//! A client that connects and asks when it is told to: `tests/clients/tls/numbered/stepwise.py`.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::{
    Load,
    numbered::{settings, source_of},
};

/// The running client; killed when dropped.
pub struct Stepwise {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Stepwise {
    /// Starts it, with libraries from this folder before the system's. It has no TLS library yet.
    #[track_caller]
    pub fn start(load: &Load, libraries: Option<&Path>) -> Self {
        let mut python = Command::new("/usr/bin/python3");
        python.arg(source_of("stepwise.py")).args(settings(load)).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(libraries) = libraries {
            python.env("LD_LIBRARY_PATH", libraries);
        }
        let mut child = python.spawn().unwrap_or_else(|error| panic!("{python:?}: {error}"));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Self { child, stdin, stdout }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Takes these steps, one after the other.
    #[track_caller]
    pub fn take(&mut self, steps: &[&str]) {
        for step in steps {
            writeln!(self.stdin.as_mut().expect("stdin is piped"), "{step}").expect("the client reads");
            let mut answer = String::new();
            self.stdout.read_line(&mut answer).expect("the client's answer");
            assert_eq!(answer, "done\n", "{step}");
        }
    }

    /// Lets it close its connections and end.
    #[track_caller]
    pub fn end(&mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().expect("the client");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Stepwise {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
