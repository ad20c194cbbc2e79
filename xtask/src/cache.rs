//! Folders of downloaded files: complete and unchanged, or fetched again.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Written last into a cached folder; what it lists is checked before the folder is used again.
const MANIFEST: &str = "manifest.json";

/// What a cached folder holds.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The Debian packages it was unpacked from, as `name=version`.
    pub packages: Vec<String>,
    /// The files whose damage would go unnoticed until much later, with their SHA-256.
    pub files: BTreeMap<String, String>,
}

impl Manifest {
    /// Describes a freshly unpacked folder.
    pub fn describe(dir: &Path, packages: Vec<String>, files: &[&str]) -> Result<Self> {
        let checksum = |file: &&str| Ok(((*file).to_owned(), sha256(&dir.join(file))?));
        Ok(Self { packages, files: files.iter().map(checksum).collect::<Result<_>>()? })
    }

    /// The manifest of a folder that is complete and unchanged; `None` means that it has to be fetched.
    pub fn verified(dir: &Path) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
        let intact = |(file, sum): (&String, &String)| sha256(&dir.join(file)).is_ok_and(|found| found == *sum);
        (!manifest.files.is_empty() && manifest.files.iter().all(intact)).then_some(manifest)
    }

    fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot encode a manifest")?;
        fs::write(dir.join(MANIFEST), text).with_context(|| format!("cannot write to {}", dir.display()))
    }
}

/// SHA-256 of parts in their order, for names that change with what they are made of.
pub fn sha256_of(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
        hasher.update([0]);
    }
    format!("{:x}", hasher.finalize())
}

/// Makes sure that `dir` holds a verified download; `fetch` fills an empty folder and describes it.
///
/// The folder appears under its name only when it is complete, and a lock keeps two checkouts that share the cache
/// from fetching the same thing at once.
pub fn ensure(dir: &Path, fetch: impl FnOnce(&Path) -> Result<Manifest>) -> Result<Manifest> {
    if let Some(manifest) = Manifest::verified(dir) {
        return Ok(manifest);
    }
    let parent = dir.parent().context("a cached folder has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let lock = File::create(dir.with_extension("lock")).context("cannot create a lock in the cache")?;
    lock.lock().context("cannot lock the cache")?;
    if let Some(manifest) = Manifest::verified(dir) {
        return Ok(manifest);
    }
    let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(parent)?;
    let content = partial.path().join("content");
    fs::create_dir(&content)?;
    let manifest = fetch(&content)?;
    manifest.write(&content)?;
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot replace the damaged {}", dir.display()))?;
    }
    fs::rename(&content, dir).with_context(|| format!("cannot move a download to {}", dir.display()))?;
    Ok(manifest)
}

/// The SHA-256 of a file, in hex.
pub fn sha256(file: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut reader = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    io::copy(&mut reader, &mut hasher).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(format!("{:x}", hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(dir: &Path) -> Result<Manifest> {
        fs::write(dir.join("vmlinuz"), "kernel")?;
        Manifest::describe(dir, vec!["linux=1".to_owned()], &["vmlinuz"])
    }

    fn must_not_fetch(_: &Path) -> Result<Manifest> {
        anyhow::bail!("fetched again")
    }

    #[test]
    fn an_intact_folder_is_used_again() -> Result<()> {
        let cache = tempfile::tempdir()?;
        let dir = cache.path().join("kernels/suite");
        let first = ensure(&dir, fetch)?;
        assert_eq!(ensure(&dir, must_not_fetch)?, first);
        Ok(())
    }

    #[test]
    fn a_damaged_or_partial_folder_is_fetched_again() -> Result<()> {
        let cache = tempfile::tempdir()?;
        let dir = cache.path().join("suite");
        for damage in ["vmlinuz", MANIFEST] {
            ensure(&dir, fetch)?;
            fs::write(dir.join(damage), "kern")?;
            assert_eq!(Manifest::verified(&dir), None, "{damage} is damaged");
            ensure(&dir, fetch)?;
            fs::remove_file(dir.join(damage))?;
            assert_eq!(Manifest::verified(&dir), None, "{damage} is missing");
        }
        ensure(&dir, fetch)?;
        assert_eq!(fs::read_to_string(dir.join("vmlinuz"))?, "kernel");
        Ok(())
    }

    #[test]
    fn a_failed_fetch_leaves_nothing_behind() -> Result<()> {
        let cache = tempfile::tempdir()?;
        let dir = cache.path().join("suite");
        assert!(ensure(&dir, must_not_fetch).is_err());
        assert!(!dir.exists());
        let left = fs::read_dir(cache.path())?.filter_map(|entry| Some(entry.ok()?.file_name())).collect::<Vec<_>>();
        assert_eq!(left, ["suite.lock"]);
        Ok(())
    }
}
