//! A trace that has stopped waits for whoever reads its output. This is for a user who does not want to wait that long.

use std::thread;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::talk;

/// What a shell says of a process that a signal has ended.
const INTERRUPTED: i32 = 130;

/// From now on a further signal ends the process at once. The event loop that took the first one does not turn any more, so this has
/// one of its own.
///
/// # Errors
/// If there is no thread or event loop to be had.
pub fn ends_at_the_next_signal() -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot watch for signals")?;
    let [mut interrupt, mut terminate, mut hangup] = {
        let _within = runtime.enter();
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        [interrupt?, terminate?, hangup?]
    };
    let wait = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        talk("interrupted again: what was not read yet is lost");
        std::process::exit(INTERRUPTED);
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(wait))
        .map(drop)
        .context("cannot watch for signals")
}
