//! `cargo xtask lint`: format, clippy on both sides, licences.

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::Result;

use crate::{
    build::cargo,
    command::{self, say},
    paths, purity,
    setup::{self, Purpose},
    tally::Tally,
    test,
    toolchain::{self, Toolchain},
};

/// Runs every check, and fails if one of them did.
pub fn run() -> Result<ExitCode> {
    setup::ensure_packages(Purpose::Lint)?;
    let tally = check_all()?;
    say(format!("lint: {tally}"));
    Ok(ExitCode::from(u8::from(tally.failed > 0)))
}

/// Runs every check, whatever becomes of the others.
pub fn check_all() -> Result<Tally> {
    let checks: [(&str, Command); 5] = [
        ("format", format()),
        ("clippy, user space", clippy(&["--all-targets"])),
        // What cargo leaves out of its tests is not among all targets.
        ("clippy, tests that load BPF", clippy(&test::LOADING_BPF)),
        ("clippy, BPF", clippy_bpf()),
        ("licences, sources and duplicates", deny("licenses bans sources")),
    ];
    let mut tally = Tally::default();
    for (what, mut check) in checks {
        say(format!("lint: {what}"));
        tally += if command::status(&mut check)?.success() { Tally::PASSED } else { Tally::FAILED };
    }
    say("lint: purity of the correlator");
    tally += purity::check()?;
    if let Some(advisories) = check_advisories()? {
        tally += advisories;
    }
    Ok(tally)
}

fn format() -> Command {
    let mut fmt = cargo();
    fmt.args(["fmt", "--all", "--check"]);
    fmt
}

fn clippy(targets: &[&str]) -> Command {
    let mut clippy = cargo();
    clippy.args(["clippy", "--workspace"]).args(targets).args(["--", "-Dwarnings"]);
    clippy
}

/// Nightly's clippy checks the object as it is built. Debian's rustc-web comes without clippy; then the stable one
/// checks the same code for the host, and the build of the object shows what only the BPF target can.
fn clippy_bpf() -> Command {
    let mut clippy = match Toolchain::find() {
        Some(toolchain @ Toolchain::RustupNightly) => toolchain.cargo("clippy", env::consts::ARCH),
        Some(Toolchain::DebianRustcWeb) | None => {
            let mut clippy = cargo();
            clippy.args(["clippy", "--package", "tracer-ebpf", "--bin", "conntracer-bpf"]);
            clippy.args(["--no-default-features", "--features", "bpf"]);
            // There is no std to unwind with.
            clippy.env("CARGO_PROFILE_DEV_PANIC", "abort");
            clippy
        }
    };
    // A folder of its own, so that the other profile does not throw out what the user's side was built into.
    clippy.current_dir(paths::project_root()).arg("--target-dir").arg(paths::target_dir().join("bpf-lint"));
    clippy.args(["--", "-Dwarnings"]);
    clippy
}

fn deny(what: &str) -> Command {
    // By its path: cargo finds subcommands on PATH only, which may lack cargo's own folder.
    let mut deny = Command::new(toolchain::installed_tool("cargo-deny").unwrap_or_else(|| "cargo-deny".into()));
    deny.current_dir(paths::project_root());
    deny.args(["--log-level", "error", "check", "--hide-inclusion-graph"]).args(what.split(' '));
    deny
}

/// Advisories need the `RustSec` database. It is not fetched here, since not every machine can: whoever has it, from
/// `cargo deny fetch`, has it checked. `None` means that it is not there.
fn check_advisories() -> Result<Option<Tally>> {
    say("lint: advisories");
    let database = paths::home()?.join(".cargo/advisory-dbs");
    if !has_entries(&database) {
        say("lint: advisories: not checked (no database; `cargo deny fetch` gets it)");
        return Ok(None);
    }
    let passed = command::status(&mut deny("--disable-fetch advisories"))?.success();
    Ok(Some(if passed { Tally::PASSED } else { Tally::FAILED }))
}

/// Whether a folder is there and holds more than cargo-deny's lock file.
fn has_entries(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(|entry| entry.path().is_dir()))
}
