//! The tools that conntracer is compared with: libbpf-tools, in the version of a newer Debian than this machine's.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    architecture::Architecture,
    cache::{self, Manifest},
    command::say,
    debian::Suite,
    paths,
};

/// Where they come from.
const SUITE: &str = "trixie";

/// The tools, and every library they load: their libc is newer than this machine's.
const PACKAGES: [&str; 5] = ["libbpf-tools", "libc6", "libelf1t64", "zlib1g", "libzstd1"];

/// The tools that watch TCP connections.
pub const TOOLS: [&str; 3] = ["tcplife", "tcpconnlat", "tcptracer"];

/// That libc's own loader; this machine's would not do.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// Where the libraries are.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The unpacked tools.
pub struct Peers {
    dir: PathBuf,
}

impl Peers {
    /// The tools in the cache, fetched if they are not there or damaged.
    pub fn ensure() -> Result<Self> {
        let dir = paths::cache_dir()?.join("peers").join(SUITE);
        cache::ensure(&dir, fetch).context("cannot fetch libbpf-tools")?;
        Ok(Self { dir })
    }

    /// The words that start a tool; its own arguments come after them.
    pub fn command(&self, tool: &str) -> Vec<String> {
        let path = |part: &str| self.dir.join(part).display().to_string();
        vec![path(LOADER), "--library-path".to_owned(), path(LIBRARIES), path(&tool_path(tool))]
    }
}

/// Debian adds the suffix, since bcc's tools have the same names.
fn tool_path(tool: &str) -> String {
    format!("usr/sbin/{tool}-libbpf")
}

fn fetch(dir: &Path) -> Result<Manifest> {
    say(format!("fetching libbpf-tools (Debian {SUITE})"));
    let packages = Suite::open(SUITE, Architecture::X86_64)?.unpack(&PACKAGES.map(str::to_owned), dir)?;
    let tools = TOOLS.map(tool_path);
    let mut files: Vec<&str> = tools.iter().map(String::as_str).collect();
    files.push(LOADER);
    Manifest::describe(dir, packages, &files)
}
