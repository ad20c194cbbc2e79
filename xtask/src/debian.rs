//! Packages of another Debian suite, downloaded and unpacked without touching this machine's apt state.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{architecture::Architecture, command};

/// What apt checks every download against; part of every Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Tried after the mirrors this machine is set up with; suites that are no longer supported move to the archive.
const OFFICIAL_MIRRORS: [&str; 2] = ["http://deb.debian.org/debian", "http://archive.debian.org/debian"];

/// A suite's package index in a private apt state, gone when dropped.
pub struct Suite {
    state: tempfile::TempDir,
    architecture: Architecture,
}

impl Suite {
    /// Reads the suite's index from the first mirror that has it.
    pub fn open(suite: &str, architecture: Architecture) -> Result<Self> {
        let mut reasons = Vec::new();
        for mirror in mirrors() {
            match Self::open_at(suite, architecture, &mirror) {
                Ok(opened) => return Ok(opened),
                Err(error) => reasons.push(format!("{mirror}: {error:#}")),
            }
            command::check_interrupted()?;
        }
        bail!("no Debian mirror gave {suite}'s index; is the network up?\n{}", reasons.join("\n"))
    }

    fn open_at(suite: &str, architecture: Architecture, mirror: &str) -> Result<Self> {
        let state = tempfile::Builder::new().prefix("conntracer-apt-").tempdir()?;
        for dir in ["lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(state.path().join(dir))?;
        }
        let source = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(state.path().join("sources.list"), source)?;
        // As if nothing were installed: what a foreign root needs does not depend on what this machine has.
        fs::write(state.path().join("status"), "")?;
        let opened = Self { state, architecture };
        // Without Error-Mode apt-get takes an index it could not fetch for a mere warning.
        command::output(opened.apt("apt-get").args(["-o", "APT::Update::Error-Mode=any", "update"]))?;
        Ok(opened)
    }

    /// The packages a package depends on directly.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = command::output(self.apt("apt-cache").args(["depends", "--important", package]))?;
        Ok(parse_depends(&text))
    }

    /// Downloads the packages and unpacks them into `dir`; returns each as `name=version`.
    pub fn unpack(&self, packages: &[String], dir: &Path) -> Result<Vec<String>> {
        let debs = self.state.path().join("debs");
        command::output(self.apt("apt-get").arg("download").args(packages).current_dir(&debs))?;
        unpack_all(&debs, dir)
    }

    /// The same with all that the packages depend on. Links from folder to folder that are in `dir` already stay.
    pub fn unpack_whole(&self, packages: &[&str], dir: &Path) -> Result<Vec<String>> {
        let options = ["install", "--download-only", "--no-install-recommends", "--yes"];
        command::output(self.apt("apt-get").args(options).args(packages))?;
        unpack_all(&self.state.path().join("cache/archives"), dir)
    }

    fn apt(&self, program: &str) -> Command {
        let state = self.state.path().display();
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").arg("-qq");
        for option in [
            format!("Dir::Etc::sourcelist={state}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={state}/lists"),
            format!("Dir::Cache={state}/cache"),
            format!("Dir::State::status={state}/status"),
            format!("APT::Architecture={}", self.architecture.debian()),
            format!("APT::Architectures={}", self.architecture.debian()),
            // The private state is not readable for apt's own user.
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

/// Unpacks the packages in a folder, and removes them; returns each as `name=version`.
fn unpack_all(debs: &Path, dir: &Path) -> Result<Vec<String>> {
    const UNPACK: &str = "set -o pipefail; dpkg-deb --fsys-tarfile \"$1\" | tar -x -C \"$2\" --keep-directory-symlink";
    let mut unpacked = Vec::new();
    for entry in fs::read_dir(debs)? {
        let deb = entry?.path();
        if deb.extension().is_none_or(|extension| extension != "deb") {
            continue;
        }
        command::output(Command::new("bash").args(["-c", UNPACK, "unpack"]).arg(&deb).arg(dir))?;
        let mut show = Command::new("dpkg-deb");
        show.args(["--show", "--showformat=${Package}=${Version}"]).arg(&deb);
        unpacked.push(command::output(&mut show)?);
        fs::remove_file(&deb)?;
    }
    unpacked.sort();
    Ok(unpacked)
}

/// Lines such as `  Depends: libc6`; alternatives (`|Depends:`) and virtual packages (`<...>`) are left out.
fn parse_depends(text: &str) -> Vec<String> {
    let name = |line: &str| line.trim().strip_prefix("Depends: ").map(str::to_owned);
    text.lines().filter_map(name).filter(|name| !name.starts_with('<')).collect()
}

/// Debian mirrors, best first: those this machine uses, then the official ones.
fn mirrors() -> Vec<String> {
    let mut found: Vec<String> = source_files()
        .into_iter()
        .filter_map(|file| {
            let text = fs::read_to_string(&file).ok()?;
            let deb822 = file.extension().is_some_and(|extension| extension == "sources");
            Some(if deb822 { mirrors_of_deb822(&text) } else { mirrors_of_list(&text) })
        })
        .flatten()
        .collect();
    found.extend(OFFICIAL_MIRRORS.map(str::to_owned));
    let mut distinct = Vec::new();
    for mirror in found {
        let mirror = mirror.trim_end_matches('/').to_owned();
        if !distinct.contains(&mirror) {
            distinct.push(mirror);
        }
    }
    distinct
}

fn source_files() -> Vec<PathBuf> {
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten();
    let mut files: Vec<_> = parts.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sources" || extension == "list"));
    files.sort();
    files.insert(0, PathBuf::from("/etc/apt/sources.list"));
    files
}

/// Whether an apt source looks like a Debian mirror, and not its security archive or another vendor's repository.
/// A wrong guess costs only time: apt refuses an index that Debian's keys did not sign.
fn is_debian_mirror(uri: &str) -> bool {
    let path = uri.trim_end_matches('/');
    path.ends_with("/debian") || path.ends_with("/debian.list") || path.contains("/archive/debian/")
}

/// Mirrors in the deb822 format: paragraphs of `Field: value`.
fn mirrors_of_deb822(text: &str) -> Vec<String> {
    let mut mirrors = Vec::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            paragraph.lines().find_map(|line| {
                let (field, value) = line.split_once(':')?;
                field.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let disabled = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        let binary = field("Types").is_some_and(|types| types.split_whitespace().any(|kind| kind == "deb"));
        if binary && !disabled {
            let uris = field("URIs").unwrap_or_default().split_whitespace();
            mirrors.extend(uris.filter(|uri| is_debian_mirror(uri)).map(str::to_owned));
        }
    }
    mirrors
}

/// Mirrors in the one-line format: `deb [options] URI suite component...`.
fn mirrors_of_list(text: &str) -> Vec<String> {
    let uri = |line: &str| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        rest.split_whitespace().next().filter(|uri| is_debian_mirror(uri)).map(str::to_owned)
    };
    text.lines().filter_map(uri).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deb822_sources_give_the_main_mirror_only() {
        let text = "Types: deb\n# a comment: with a colon\nURIs: http://mirror.example/debian\nSuites: bookworm\n\n\
                    Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n\n\
                    Types: deb-src\nURIs: http://source.example/debian\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://off.example/debian\n\n\
                    types: deb deb-src\nuris: https://a.example/debian/ https://b.example/debian\n";
        assert_eq!(
            mirrors_of_deb822(text),
            ["http://mirror.example/debian", "https://a.example/debian/", "https://b.example/debian"]
        );
    }

    #[test]
    fn one_line_sources_give_the_main_mirror_only() {
        let text = "# deb http://old.example/debian bookworm main\n\
                    deb cdrom:[Debian 12]/ bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main\n\
                    deb-src http://mirror.example/debian bookworm main\n\
                    deb https://packages.example/apt sdk main\n\
                    deb mirror+file:/etc/apt/mirrors/debian.list bookworm main\n";
        assert_eq!(mirrors_of_list(text), ["http://mirror.example/debian", "mirror+file:/etc/apt/mirrors/debian.list"]);
    }

    #[test]
    fn dependencies_leave_out_alternatives_and_virtual_packages() {
        let text =
            "linux-image\n  PreDepends: dpkg\n  Depends: kmod\n |Depends: linux-initramfs-tool\n  Depends: <virtual>\n";
        assert_eq!(parse_depends(text), ["kmod"]);
    }
}
