//! The initramfs that turns a root of the host's (this machine's own, or one for another processor) into the VM's root, copy on write.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    architecture::Architecture,
    cache, command, guest_root,
    kernels::{Kernel, Unpacked},
    paths,
};

/// Debian's busybox-static: needs no library of the root that is yet to be mounted.
const BUSYBOX: &str = "/bin/busybox";

/// Modules the early boot needs, each after those it depends on; what a kernel has built in is left out.
const MODULES: [&str; 9] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "fuse",
    "virtiofs",
    "overlay",
    "virtio_console",
];

/// The first process.
const INIT: &str = include_str!("initrd/init.sh");

/// How a module may be packed: file suffix, and the filter that unpacks it.
const PACKINGS: [(&str, &str); 3] = [("ko", "cat"), ("ko.xz", "xz -dc"), ("ko.zst", "zstd -qdc")];

/// The initramfs for a kernel, built unless the cache has it.
pub fn ensure(kernel: Kernel, unpacked: &Unpacked) -> Result<PathBuf> {
    let busybox = busybox(kernel.architecture)?;
    let file = paths::cache_dir()?.join(format!("initrd/{}.gz", cache_key(unpacked, &busybox)?));
    if !file.is_file() {
        let dir = file.parent().context("the initramfs has no folder")?;
        fs::create_dir_all(dir)?;
        let tree = tempfile::tempdir()?;
        fill(tree.path(), unpacked, &busybox)?;
        let partial = tempfile::NamedTempFile::new_in(dir)?;
        pack(tree.path(), partial.path())?;
        partial.persist(&file).context("cannot store the initramfs")?;
    }
    Ok(file)
}

/// The busybox for a processor: this machine's own, or that of the foreign root.
pub fn busybox(architecture: Architecture) -> Result<PathBuf> {
    if !architecture.is_native() {
        return Ok(guest_root::busybox(&guest_root::ensure(architecture)?));
    }
    if !Path::new(BUSYBOX).is_file() {
        bail!("{BUSYBOX} is missing: run `cargo xtask setup` (package busybox-static)");
    }
    Ok(BUSYBOX.into())
}

/// Changes whenever anything that goes into the initramfs changes.
fn cache_key(kernel: &Unpacked, busybox: &Path) -> Result<String> {
    Ok(cache::sha256_of([&kernel.checksum, &cache::sha256(busybox)?, INIT, &MODULES.join(" ")]))
}

fn fill(tree: &Path, kernel: &Unpacked, busybox: &Path) -> Result<()> {
    for dir in ["bin", "proc", "sys", "dev", "mods", "newroot", "host-root", "overlay"] {
        fs::create_dir(tree.join(dir))?;
    }
    fs::copy(busybox, tree.join("bin/busybox"))?;
    let init = tree.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let modules = kernel.modules()?;
    for (index, name) in MODULES.iter().enumerate() {
        if let Some((file, unpack)) = find_module(&modules.join("kernel"), name)? {
            // The number keeps the order when a shell lists them.
            let target = fs::File::create(tree.join(format!("mods/{index:02}-{name}.ko")))?;
            command::run(Command::new("sh").args(["-c", unpack]).stdin(fs::File::open(file)?).stdout(target))?;
        }
    }
    Ok(())
}

fn find_module(dir: &Path, name: &str) -> Result<Option<(PathBuf, &'static str)>> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find_module(&path, name)? {
                return Ok(Some(found));
            }
        } else if let Some(packing) = PACKINGS.iter().find(|(suffix, _)| path.ends_with(format!("{name}.{suffix}"))) {
            return Ok(Some((path, packing.1)));
        }
    }
    Ok(None)
}

/// Packs a folder into an initramfs.
pub fn pack(tree: &Path, file: &Path) -> Result<()> {
    let mut pack = Command::new("bash");
    pack.args(["-c", "set -o pipefail; find . | cpio --create --format=newc --quiet | gzip -1 > \"$1\"", "pack"]);
    command::output(pack.arg(file).current_dir(tree)).map(drop)
}
