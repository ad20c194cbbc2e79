//! What has to be installed, and why.

use std::process::Command;

use anyhow::Result;

use crate::{command, toolchain};

/// What a package is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Debian's compiler for BPF; not needed where rustup's nightly has `rust-src`.
    BpfCompiler,
    /// Building bpf-linker.
    BpfLinker,
    /// Booting the VMs.
    Vm,
    /// What tests and the demo run.
    Tests,
}

/// Every Debian package the project needs.
pub const PACKAGES: &[(&str, Use)] = &[
    ("rustc-web", Use::BpfCompiler),
    ("libstd-rust-web-dev-bpf", Use::BpfCompiler),
    ("llvm-22-dev", Use::BpfLinker),
    ("libpolly-22-dev", Use::BpfLinker),
    ("libzstd-dev", Use::BpfLinker),
    ("zlib1g-dev", Use::BpfLinker),
    ("g++", Use::BpfLinker),
    ("qemu-system-x86", Use::Vm),
    ("busybox-static", Use::Vm),
    ("cpio", Use::Vm),
    ("kmod", Use::Vm),
    ("xz-utils", Use::Vm),
    ("zstd", Use::Vm),
    ("gcc", Use::Tests),
    ("libc6-dev", Use::Tests),
    ("python3", Use::Tests),
    ("iproute2", Use::Tests),
    ("nftables", Use::Tests),
];

/// bpf-linker links with the LLVM that the BPF compiler was built with, 22 for rustc-web.
pub const BPF_LINKER_VERSION: &str = "0.13.0";

/// Where Debian's llvm-22-dev is; bpf-linker's build finds no other by itself.
pub const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// The packages for these uses that are not installed.
pub fn missing(uses: &[Use]) -> Result<Vec<&'static str>> {
    let wanted = PACKAGES
        .iter()
        .filter(|(_, purpose)| uses.contains(purpose));
    let installed = installed()?;
    Ok(wanted
        .map(|(name, _)| *name)
        .filter(|name| !installed.iter().any(|have| have == name))
        .collect())
}

/// Whether bpf-linker has to be installed or replaced.
pub fn bpf_linker_is_missing() -> bool {
    let version = toolchain::bpf_linker()
        .and_then(|file| command::output(Command::new(file).arg("--version")).ok());
    version.is_none_or(|line| line.trim() != format!("bpf-linker {BPF_LINKER_VERSION}"))
}

/// The command that installs bpf-linker.
pub fn install_bpf_linker() -> Command {
    let mut install = Command::new("cargo");
    install
        .args([
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER_VERSION,
            "--locked",
            "--force",
        ])
        .args(["--no-default-features", "--features", "llvm-22"])
        .env("LLVM_PREFIX", LLVM_PREFIX)
        // The workspace's own target folder would keep its build for ever.
        .env_remove("CARGO_TARGET_DIR");
    install
}

fn installed() -> Result<Vec<String>> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Package} ${db:Status-Status}\n"]);
    let text = command::output(&mut query)?;
    let name = |line: &str| line.strip_suffix(" installed").map(str::to_owned);
    Ok(text.lines().filter_map(name).collect())
}
