//! A tree of files like that of a container of a distribution with musl: its loader, an OpenSSL built for it, and a client.
//!
//! The OpenSSL is one that a Python package brings along. Of all ways to such libraries it takes the least: one file of 3 MB, checked against
//! a hash that is known here. It is 1.1.1o: later packages' are linked with relative relocations (`DT_RELR`), which Debian's musl does not know.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    cache::{self, Manifest},
    command::{self, say},
    paths,
};

/// The package, and its file's SHA-256.
const PACKAGE: &str = "psycopg2-binary==2.9.9";
const SHA256: &str = "78151aa3ec21dccd5cdef6c74c3e73386dcdfaf19bced944169697d7ac7482fc";
/// For which machine the file is.
const PLATFORM: [&str; 4] =
    ["--platform=musllinux_1_1_x86_64", "--python-version=3.11", "--implementation=cp", "--abi=cp311"];
/// Where in it the libraries are.
const LIBRARIES: &str = "psycopg2_binary.libs";

/// Debian's Python, which has pip beside it.
const PYTHON: &str = "/usr/bin/python3";

/// Where Debian puts musl's loader, which is its C library too.
const LOADER: &str = "/lib/ld-musl-x86_64.so.1";

/// OpenSSL's libraries for musl in the cache, fetched if they are not there or damaged.
pub fn ensure_openssl() -> Result<PathBuf> {
    let dir = paths::cache_dir()?.join("musl-openssl");
    cache::ensure(&dir, fetch).context("cannot fetch an OpenSSL for musl")?;
    Ok(dir)
}

/// Builds the tree: the client, and all that it takes to run it in there.
pub fn build(client: &Path, root: &Path) -> Result<()> {
    let libraries = libraries(&ensure_openssl()?)?;
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot replace {}", root.display()))?;
    }
    fs::create_dir_all(root.join("lib")).with_context(|| format!("cannot make {}", root.display()))?;
    let in_root = |path: &str| root.join(path.trim_start_matches('/'));
    copy(LOADER.as_ref(), &in_root(LOADER))?;
    copy("/bin/busybox".as_ref(), &in_root("busybox"))?;
    for library in &libraries {
        copy(library, &in_root("lib").join(library.file_name().unwrap_or_default()))?;
    }
    command::run(&mut compile(client, &libraries, &in_root("client")))
}

/// musl's own headers come first; of the system's only OpenSSL's are wanted. They are version 3's, but what the client calls is the same
/// in 1.1. The libraries name musl's C library as another distribution does.
fn compile(source: &Path, libraries: &[PathBuf], built: &Path) -> Command {
    let mut gcc = Command::new("musl-gcc");
    gcc.args([
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-idirafter/usr/include",
        "-idirafter/usr/include/x86_64-linux-gnu",
    ]);
    gcc.arg("-Wl,--allow-shlib-undefined").arg("-o").arg(built).arg(source).args(libraries);
    gcc
}

/// pip checks the file against the hash.
fn fetch(dir: &Path) -> Result<Manifest> {
    say(format!("fetching an OpenSSL for musl ({PACKAGE})"));
    let wanted = dir.join("requirements");
    fs::write(&wanted, format!("{PACKAGE} --hash=sha256:{SHA256}\n"))?;
    let mut pip = Command::new(PYTHON);
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"])
        .args(PLATFORM);
    command::output(pip.arg("--dest").arg(dir).arg("--requirement").arg(&wanted))?;
    let file = only(dir, "", ".whl")?;
    command::output(Command::new(PYTHON).args(["-m", "zipfile", "--extract"]).arg(&file).arg(dir))?;
    let mut names = Vec::new();
    for library in libraries(dir)? {
        let name = library.strip_prefix(dir)?.to_str().context("a name that is not UTF-8")?;
        names.push(name.to_owned());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Manifest::describe(dir, vec![PACKAGE.replace("==", "=")], &names)
}

/// libssl and libcrypto; their names hold a hash.
fn libraries(dir: &Path) -> Result<Vec<PathBuf>> {
    let dir = dir.join(LIBRARIES);
    ["libssl-", "libcrypto-"].iter().map(|prefix| only(&dir, prefix, ".so.1.1")).collect()
}

/// The file in a folder whose name begins and ends so.
fn only(dir: &Path, prefix: &str, suffix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot look into {}", dir.display()))?;
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let name = names.find(|name| name.starts_with(prefix) && name.ends_with(suffix));
    Ok(dir.join(name.with_context(|| format!("no {prefix}*{suffix} in {}", dir.display()))?))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_how_its_name_begins_and_ends() -> Result<()> {
        let dir = tempfile::tempdir()?;
        for name in ["libssl-1.so.1.1", "libssl-1.so.3", "libcrypto-1.so.1.1"] {
            fs::write(dir.path().join(name), "")?;
        }
        assert_eq!(only(dir.path(), "libssl-", ".so.1.1")?, dir.path().join("libssl-1.so.1.1"));
        assert!(only(dir.path(), "libz-", ".so.1.1").is_err());
        Ok(())
    }
}
