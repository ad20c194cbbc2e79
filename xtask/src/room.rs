//! Room on the disk. A linker that runs out of it ends with a bus error, which does not tell why; so it is told beforehand.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{command::say, paths};

/// What `test` writes into the target folder and the cache in a clean checkout: 3.9 GB, measured, and rounded up.
const OF_A_WHOLE_RUN: Bytes = Bytes(5_000_000_000);

/// An amount of room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} GB", self.0 as f64 / 1e9)
    }
}

/// Says how much room there is for what is built and fetched, and whether a whole run in a clean checkout fits.
///
/// # Errors
/// If a file system does not answer.
pub fn tell() -> Result<()> {
    for (what, dir) in [("what is built", paths::target_dir()), ("what is fetched", paths::cache_dir()?)] {
        let free = free(&dir)?;
        say(format!("room for {what}: {free} ({})", dir.display()));
        if free < OF_A_WHOLE_RUN {
            eprintln!(
                "warning: a run from nothing takes {OF_A_WHOLE_RUN}: set CARGO_TARGET_DIR and XDG_CACHE_HOME to where there is more"
            );
        }
    }
    Ok(())
}

/// What is free in the file system of a folder, or of the nearest above that exists.
fn free(dir: &Path) -> Result<Bytes> {
    let there = dir.ancestors().find(|dir| dir.exists()).context("no folder on the way to it exists")?;
    let system =
        rustix::fs::statvfs(there).with_context(|| format!("cannot ask for the room in {}", there.display()))?;
    Ok(Bytes(system.f_bavail.saturating_mul(system.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_room_of_the_one_that_will_hold_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let free = free(&dir.path().join("not/yet")).expect("its room");
        assert!(free > Bytes(0), "{free}");
    }
}
