//! Threads that all wait in the kernel at once.

use std::{fs, path::PathBuf, sync::mpsc, thread};

use nix::unistd::{Pid, gettid};

use crate::clock::eventually;

/// Runs each call on a thread of its own, and `wake` as soon as every one waits in that system call. Returns what the calls
/// do; their threads are gone then.
#[track_caller]
pub fn while_waiting<T: Send>(
    system_call: libc::c_long,
    calls: impl IntoIterator<Item = impl FnOnce() -> T + Send>,
    wake: impl FnOnce(),
) -> Vec<T> {
    let (sender, receiver) = mpsc::channel();
    let mut threads = Vec::new();
    let outcomes = thread::scope(|scope| {
        let begin = |call: _| {
            let sender = sender.clone();
            scope.spawn(move || run(sender, call))
        };
        let calls: Vec<_> = calls.into_iter().map(begin).collect();
        threads.extend(receiver.iter().take(calls.len()));
        for thread in &threads {
            eventually("a thread to wait", || (waits_in(*thread) == Some(system_call)).then_some(()));
        }
        wake();
        calls.into_iter().map(|call| call.join().expect("a thread that waits")).collect()
    });
    for thread in threads {
        eventually("a thread to be gone", || (!files_of(thread).exists()).then_some(()));
    }
    outcomes
}

/// Tells which thread it is, and does the call.
fn run<T>(thread: mpsc::Sender<Pid>, call: impl FnOnce() -> T) -> T {
    thread.send(gettid()).expect("somebody wants to know");
    call()
}

fn files_of(thread: Pid) -> PathBuf {
    format!("/proc/self/task/{thread}").into()
}

/// The system call that a thread of this process waits in; `None` if it runs.
fn waits_in(thread: Pid) -> Option<libc::c_long> {
    fs::read_to_string(files_of(thread).join("syscall")).ok()?.split_whitespace().next()?.parse().ok()
}
