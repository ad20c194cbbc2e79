//! The root of a VM with a foreign processor: Debian packages, unpacked in the cache. A VM with this machine's processor has this
//! machine's own root instead.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    architecture::Architecture,
    cache::{self, Manifest},
    command::say,
    debian::Suite,
    paths,
};

/// The release whose programs it has. Its C library is that of the cross compiler, which is this machine's release.
const SUITE: &str = "bookworm";

/// What the guest's first processes and the tests need. What these depend on comes with them.
const PACKAGES: &[&str] = &[
    "base-files",
    "bash",
    "binutils",
    "bpftool",
    "busybox-static",
    "ca-certificates",
    "coreutils",
    "curl",
    "dash",
    "diffutils",
    "dnsmasq-base",
    "findutils",
    "gnutls-bin",
    "grep",
    "gzip",
    "hostname",
    "iproute2",
    "kmod",
    "libcap2-bin",
    "login",
    "mawk",
    "mount",
    "netbase",
    "nginx-light",
    "nftables",
    "openssl",
    "passwd",
    "procps",
    "python3",
    "sed",
    "tar",
    "util-linux",
];

/// Folders of old that are links to those below `/usr`. The packages of this release do not make them.
const MERGED: &[&str] = &["bin", "sbin", "lib"];

/// Proof that all is there.
const SHELL: &str = "usr/bin/bash";

/// Files that a package's installation would have made.
const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/resolv.conf", ""),
];

/// The root's folder, fetched if it is not there.
///
/// # Errors
/// If Debian's mirrors cannot be reached, or a package does not unpack.
pub fn ensure(architecture: Architecture) -> Result<PathBuf> {
    let dir = paths::cache_dir()?.join("roots").join(format!("{SUITE}-{}-{}", architecture.debian(), contents()));
    cache::ensure(&dir, |dir| fetch(architecture, dir))
        .with_context(|| format!("cannot fetch a root for {}", architecture.name()))?;
    Ok(dir)
}

/// Tells roots with other contents apart: the lists above change with what tests need.
fn contents() -> String {
    let files = FILES.iter().flat_map(|(file, text)| [file, text]);
    cache::sha256_of(PACKAGES.iter().chain(files))[..12].to_owned()
}

/// The busybox in a root, which needs no library.
pub fn busybox(root: &Path) -> PathBuf {
    root.join("usr/bin/busybox")
}

fn fetch(architecture: Architecture, dir: &Path) -> Result<Manifest> {
    say(format!("fetching a root for {} (Debian {SUITE})", architecture.name()));
    for name in MERGED {
        fs::create_dir_all(dir.join("usr").join(name))?;
        symlink(Path::new("usr").join(name), dir.join(name))?;
    }
    let packages = Suite::open(SUITE, architecture)?.unpack_whole(PACKAGES, dir)?;
    for (file, text) in FILES {
        fs::write(dir.join(file), text).with_context(|| format!("cannot write {file}"))?;
    }
    // Debian's awk is one of several, chosen as it is installed.
    symlink("mawk", dir.join("usr/bin/awk")).context("cannot link awk")?;
    gather_certificates(dir).context("cannot gather the certificates")?;
    Manifest::describe(dir, packages, &[SHELL])
}

/// Makes the one file of all authorities, without which curl does not start. Installing the package would have made it.
fn gather_certificates(dir: &Path) -> Result<()> {
    let mut all = String::new();
    for entry in fs::read_dir(dir.join("usr/share/ca-certificates/mozilla"))? {
        all.push_str(&fs::read_to_string(entry?.path())?);
    }
    let file = dir.join("etc/ssl/certs/ca-certificates.crt");
    fs::create_dir_all(file.parent().context("the file has no folder")?)?;
    Ok(fs::write(file, all)?)
}
