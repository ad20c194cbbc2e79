//! A trace that has stopped waits for whoever reads its output. This is for a user who does not want to wait that long.

use std::thread;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::talk;

/// What a shell says of a process that a signal has ended.
const INTERRUPTED: i32 = 130;

/// From now on a signal ends the process at once: the first, if the trace stops because a signal `asked_for` that, else the second. A
/// trace that has ended of itself takes one signal for the wish that it end, which it does already. The event loop that took signals
/// until here does not turn any more, so this has one of its own.
///
/// # Errors
/// If there is no thread or event loop to be had.
pub fn ends_once_told_again(asked_for: bool) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot watch for signals")?;
    let [mut interrupt, mut terminate, mut hangup] = {
        let _within = runtime.enter();
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        [interrupt?, terminate?, hangup?]
    };
    let mut to_come = if asked_for { 1 } else { 2 };
    let wait = async move {
        while to_come > 0 {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            to_come -= 1;
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
