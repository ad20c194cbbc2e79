//! Running other programs: say what is run, stop it on Ctrl-C, and turn a failure into a readable error.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, OnceLock, atomic::AtomicBool, atomic::Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// How often a running child is looked at.
pub const POLL: Duration = Duration::from_millis(20);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Makes Ctrl-C and SIGTERM set a flag instead of ending the process, so that children and temporary files are
/// cleaned up. A second signal ends the process at once.
pub fn watch_signals() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(flag)))
            .context("cannot watch for signals")?;
    }
    Ok(())
}

/// Fails once the user has asked to stop.
pub fn check_interrupted() -> Result<()> {
    if INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
        bail!("interrupted");
    }
    Ok(())
}

/// Prints a progress line.
pub fn say(what: impl AsRef<str>) {
    eprintln!("==> {}", what.as_ref());
}

/// Runs a command whose output the user sees; an exit code other than 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", display(command));
    }
    Ok(())
}

/// Runs a command whose output the user sees, and returns how it ended.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    let mut child = Running::start(command)?;
    loop {
        check_interrupted()?;
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
}

/// Runs a command whose output the user sees; stdout is also handed to `line`, one line at a time.
pub fn status_by_line(command: &mut Command, mut line: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = Running::start(command.stdout(Stdio::piped()))?;
    let stdout = child.0.stdout.take().context("a child's output is not piped")?;
    // Ctrl-C reaches the child as well, which closes its end.
    for text in BufReader::new(stdout).split(b'\n') {
        let text = text.context("cannot read a child's output")?;
        line(&String::from_utf8_lossy(&text));
    }
    let status = child.0.wait().context("cannot wait for a child process")?;
    check_interrupted()?;
    Ok(status)
}

/// Runs a command quietly and returns its stdout; on failure the error holds its stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`: is it installed? Try `cargo xtask setup`", program(command)))?;
    check_interrupted()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", display(command), output.status, stderr.trim());
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something other than text", program(command)))
}

/// The command as one would type it.
pub fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// Quotes a word for a shell.
pub fn quote(word: &str) -> String {
    // Only a NUL byte cannot be quoted, and no argument can hold one.
    shlex::try_quote(word).unwrap_or_default().into_owned()
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// A child process that does not outlive its owner.
pub struct Running(Child);

impl Running {
    /// Starts the command.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| {
            format!("cannot start `{}`: is it installed? Try `cargo xtask setup`", program(command))
        })?;
        Ok(Self(child))
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.0.try_wait().context("cannot wait for a child process")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; there is nobody left to tell about a failure to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
