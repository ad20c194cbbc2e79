//! The invariant that the correlator is pure: `track/` and `findings/` reach for no kernel, no runtime, no clock, no file.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{command::say, paths, tally::Tally};

/// Folders of the pure stages.
const PURE: [&str; 2] = ["tracer/src/track", "tracer/src/findings"];
/// What they must not name.
const FORBIDDEN: [&str; 11] = [
    "aya",
    "tokio",
    "std::fs",
    "std::io",
    "std::net::Tcp",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "crate::kernel",
];

/// Checks every source file of the pure stages, and names each line that breaks the rule.
///
/// # Errors
/// If a file cannot be read.
pub fn check() -> Result<Tally> {
    let mut broken = Vec::new();
    for folder in PURE {
        let folder = paths::project_root().join(folder);
        if folder.is_dir() {
            check_folder(&folder, &mut broken)?;
        }
    }
    for line in &broken {
        say(format!("lint: not pure: {line}"));
    }
    Ok(if broken.is_empty() { Tally::PASSED } else { Tally::FAILED })
}

fn check_folder(folder: &Path, broken: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            check_folder(&path, broken)?;
        } else {
            let source = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            broken.extend(impure_lines(&source).map(|(number, line)| format!("{}:{number}: {line}", path.display())));
        }
    }
    Ok(())
}

/// Lines of code, with their numbers, that name something forbidden.
fn impure_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = source.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    code.filter(|(_, line)| FORBIDDEN.iter().any(|name| names(line, name)))
        .map(|(index, line)| (index + 1, line.trim()))
}

/// Whether a line holds a path that begins with `name`, not merely a longer word that does.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let word = |character: char| character.is_alphanumeric() || character == '_';
        let starts = !line[..at].ends_with(word);
        let open_end = name.ends_with("Tcp");
        starts && (open_end || !line[at + name.len()..].starts_with(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_imports_are_found_and_words_like_them_are_not() {
        let source =
            "use std::io::Read;\n// use tokio::time;\nlet ayatollah = 1;\nuse aya::Ebpf;\nuse std::net::IpAddr;\n";
        let lines: Vec<_> = impure_lines(source).map(|(number, _)| number).collect();
        assert_eq!(lines, [1, 4]);
    }
}
