//! Which compiler builds the BPF object; shared by `tracer/build.rs` and `xtask` (setup, lint).

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The target triple of the BPF object; every machine conntracer runs on is little-endian.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// Debian's `rustc-web` puts its compiler here, beside rustup's in the home directory.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that can build for [`BPF_TARGET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// rustup's nightly with `rust-src`: cargo builds `core` for the BPF target itself.
    RustupNightly,
    /// Debian's `rustc-web` with `libstd-rust-web-dev-bpf`: `core` comes ready-made.
    DebianRustcWeb,
}

impl Toolchain {
    /// The toolchain this machine has; nightly first, since whoever installed `rust-src` there means to use it.
    pub fn find() -> Option<Self> {
        if has_nightly_with_source() {
            Some(Self::RustupNightly)
        } else if has_debian_bpf_core() {
            Some(Self::DebianRustcWeb)
        } else {
            None
        }
    }

    /// What to call it in a message.
    pub fn name(self) -> &'static str {
        match self {
            Self::RustupNightly => "rustup's nightly, building core from rust-src",
            Self::DebianRustcWeb => "Debian's rustc-web with its core for BPF",
        }
    }

    /// `cargo SUBCOMMAND` for the BPF object; the caller adds the target directory.
    ///
    /// Nothing of an outer cargo's choice of compiler and flags may leak in: it was made for the host.
    pub fn cargo(self, subcommand: &str, target_arch: &str) -> Command {
        let mut command = match self {
            Self::RustupNightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo", subcommand, "-Zbuild-std=core"]);
                command
            }
            Self::DebianRustcWeb => {
                let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                command.arg(subcommand);
                command
            }
        };
        for inherited in [
            "CARGO",
            "CARGO_BUILD_TARGET",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTDOC",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            command.env_remove(inherited);
        }
        if self == Self::DebianRustcWeb {
            // Cross-compiling for BPF takes unstable flags, which a stable compiler only accepts this way.
            command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        }
        let arch = format!("--cfg=bpf_target_arch=\"{target_arch}\"");
        let flags = [arch.as_str(), "-Cdebuginfo=2", "-Clinker=bpf-linker", "-Clink-arg=--btf"];
        command
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("PATH", path_with_cargo_bin())
            .args(["--release", "--locked", "--target", BPF_TARGET])
            .args(["--package", "tracer-ebpf", "--bin", "conntracer-bpf"])
            .args(["--no-default-features", "--features", "bpf"]);
        command
    }
}

/// Where a program that `cargo install` brings is, if it is there.
pub fn installed_tool(name: &str) -> Option<PathBuf> {
    env::split_paths(&path_with_cargo_bin()).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// PATH, and behind it the folder `cargo install` writes to: a login shell has it on PATH, cron or CI may not.
fn path_with_cargo_bin() -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let dirs = env::split_paths(&path).chain(cargo_home.map(|home| home.join("bin")));
    env::join_paths(dirs).unwrap_or(path)
}

fn has_nightly_with_source() -> bool {
    let sysroot = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        // A question must not download a toolchain.
        .env("RUSTUP_AUTO_INSTALL", "0")
        .env_remove("RUSTUP_TOOLCHAIN")
        .output();
    sysroot_of(sysroot).is_some_and(|dir| dir.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file())
}

fn has_debian_bpf_core() -> bool {
    let sysroot = Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]).output();
    sysroot_of(sysroot).is_some_and(|dir| dir.join("lib/rustlib").join(BPF_TARGET).is_dir())
}

fn sysroot_of(output: std::io::Result<std::process::Output>) -> Option<PathBuf> {
    let output = output.ok().filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}
