//! Limits of this process that are too low to trace: raised where that is allowed, else told with the way out.

use std::io;

use anyhow::{Error, Result, bail};
use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Files that a trace has open at a time, at most, but for probes on libraries: each map, program, and hook is one.
const FILES: u64 = 512;

/// Sees to it that enough files can be opened.
///
/// # Errors
/// If the limit is too low and may not be raised.
pub fn ensure_open_files() -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(allowed) = current.filter(|current| *current < FILES) else { return Ok(()) };
    // No higher than needed: what `run` starts begins with it.
    let wanted = Rlimit { current: Some(FILES), maximum: maximum.map(|maximum| maximum.max(FILES)) };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        bail!(
            "this process may have only {allowed} open files at a time, and tracing takes up to {FILES}: raise the limit \
             with `ulimit -n 1024`, or run with sudo"
        );
    }
    Ok(())
}

/// Adds to an error of loading what may be behind it: kernels before 5.11 count BPF memory as locked, and refuse what is above the limit
/// with the same word as what is not allowed at all.
pub fn explain_refusal(error: Error) -> Error {
    let is_refusal = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error() == Some(Errno::PERM.raw_os_error()))
    };
    match getrlimit(Resource::Memlock).current {
        Some(limit) if error.chain().any(is_refusal) => error.context(format!(
            "this process may have only {} KiB of locked memory, which some kernels count maps against: raise the limit with \
             `ulimit -l unlimited`, or run with sudo",
            limit >> 10
        )),
        _ => error,
    }
}
