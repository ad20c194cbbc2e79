//! `cargo xtask bench`: what tracing costs, in instructions, beside other tools.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    command::{self, say},
    peers::{self, Peers},
};

/// Fetches the peers; the measurement itself is not there yet.
pub fn run() -> Result<ExitCode> {
    let peers = Peers::ensure()?;
    for name in peers::TOOLS {
        let words: Vec<_> = peers.command(name).iter().map(|word| command::quote(word)).collect();
        say(format!("{name}: {}", words.join(" ")));
    }
    Ok(ExitCode::SUCCESS)
}
