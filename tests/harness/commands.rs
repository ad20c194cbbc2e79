//! Other programs, run to their end.

use std::process::{Command, Output, Stdio};

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
