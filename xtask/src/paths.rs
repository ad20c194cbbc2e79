//! Where things are: the checkout, cargo's target directory, and the download cache.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The checkout's top folder.
pub fn project_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        // Relative to where the user stands, as cargo itself reads it.
        Some(dir) => env::current_dir().unwrap_or_default().join(dir),
        None => project_root().join("target"),
    }
}

/// Downloads live outside target/, so that `cargo clean` does not cost a download.
pub fn cache_dir() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => home()?.join(".cache"),
    };
    Ok(base.join("conntracer"))
}

/// The user's home directory.
pub fn home() -> Result<PathBuf> {
    env::var_os("HOME").map(PathBuf::from).context("HOME is not set: set it, or set XDG_CACHE_HOME")
}
