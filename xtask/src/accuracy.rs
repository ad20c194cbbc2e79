//! `cargo xtask accuracy`: what is traced, compared with what happened.

use std::process::ExitCode;

use anyhow::{Result, bail};

/// Not there yet.
pub fn run() -> Result<ExitCode> {
    bail!("`accuracy` is not implemented yet")
}
