//! What the clients and servers of the incident tests take from npm and PyPI: installed once, beside the binaries of the
//! tests, so that no test needs a network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    command::{self, say},
    paths,
};

/// Where the lists of what is wanted are.
const SOURCES: &str = "tests/clients/incidents";

/// One language's libraries.
struct Libraries {
    /// Their folder's name.
    name: &'static str,
    /// The files that say what is wanted; the last one pins each version, and each file by its hash.
    lists: &'static [&'static str],
    /// The command that installs them in a folder that holds the lists.
    install: fn(&Path) -> Command,
}

const ALL: &[Libraries] = &[
    Libraries { name: "node", lists: &["package.json", "package-lock.json"], install: npm },
    Libraries { name: "python", lists: &["requirements.txt"], install: pip },
];

/// Installs those whose list has changed since they were.
pub fn ensure() -> Result<()> {
    ALL.iter().try_for_each(Libraries::ensure)
}

impl Libraries {
    fn folder(&self) -> PathBuf {
        paths::target_dir().join("debug/libraries").join(self.name)
    }

    fn ensure(&self) -> Result<()> {
        let sources = paths::project_root().join(SOURCES);
        let folder = self.folder();
        if self.lists.iter().all(|list| is_same(&sources.join(list), &done(&folder, list))) {
            return Ok(());
        }
        say(format!("installing libraries in {}", folder.display()));
        // What is left of other versions would be found too.
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let copy = |to: &dyn Fn(&str) -> PathBuf| {
            let copy = |list: &&str| fs::copy(sources.join(list), to(list)).map(drop);
            self.lists.iter().try_for_each(copy).with_context(|| format!("cannot write to {}", folder.display()))
        };
        copy(&|list| folder.join(list))?;
        command::run(&mut (self.install)(&folder))?;
        copy(&|list| done(&folder, list))
    }
}

/// A copy of a list that is written last: what it names is installed.
fn done(folder: &Path, list: &str) -> PathBuf {
    folder.join(format!("{list}.installed"))
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

/// No script of a package runs, and no optional part that would have to be compiled.
fn npm(folder: &Path) -> Command {
    let mut npm = Command::new("/usr/bin/npm");
    npm.args(["ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]).current_dir(folder);
    npm
}

/// For Debian's Python, which the tests run; another one may come first in `PATH`.
fn pip(folder: &Path) -> Command {
    let mut pip = Command::new("/usr/bin/python3");
    pip.args(["-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:"]);
    pip.args(["--no-compile", "--root-user-action=ignore"]);
    pip.arg("--target").arg(folder).arg("--requirement").arg(folder.join("requirements.txt"));
    pip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_pin_every_file_and_name_no_registry() {
        for libraries in ALL {
            for list in libraries.lists {
                let text = fs::read_to_string(paths::project_root().join(SOURCES).join(list)).expect("a list");
                assert!(!text.contains("\"resolved\""), "{list} names a registry");
                assert!(!text.contains("index-url"), "{list} names a registry");
            }
        }
        let python = fs::read_to_string(paths::project_root().join(SOURCES).join("requirements.txt")).expect("a list");
        let wanted = python.lines().filter(|line| !line.starts_with('#'));
        assert!(wanted.clone().count() > 0);
        assert!(wanted.into_iter().all(|line| line.contains("==") && line.contains("--hash=sha256:")), "{python}");
    }
}
