//! Other programs, run to their end.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Runs a command line (split at spaces) and fails unless it succeeds.
#[track_caller]
pub fn run(line: &str) {
    stdout_of(line);
}

/// What a command line prints; fails unless it succeeds.
#[track_caller]
pub fn stdout_of(line: &str) -> String {
    let output = output_of(line);
    assert!(output.status.success(), "`{line}` failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command line and returns what came of it.
#[track_caller]
pub fn output_of(line: &str) -> Output {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program to run");
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"))
}

/// Runs a command to its end with this on its standard input, and kills it when time is up: its status tells.
#[track_caller]
pub fn output_within(command: &mut Command, input: Option<&[u8]>, limit: Duration) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let pid = Pid::from_raw(child.id().cast_signed());
    // It stays open until the program has ended: some leave when there is no more to send, before they have an answer.
    let mut stdin = child.stdin.take();
    if let (Some(stdin), Some(input)) = (&mut stdin, input) {
        // A program that ends early does not read it.
        let _ = stdin.write_all(input);
    }
    let (ended, end) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if end.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let output = child.wait_with_output().expect("the output of a program");
        drop((ended, stdin));
        output
    })
}
