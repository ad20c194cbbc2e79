//! What has to be installed, and what for.

use std::process::Command;

use anyhow::Result;

use crate::{command, toolchain};

/// What a package is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Compiling for BPF.
    BpfCompiler,
    /// Building bpf-linker; of no use once it is there.
    BpfLinker,
    /// Booting the VMs.
    Vm,
    /// What tests and the demo run.
    Tests,
    /// Measuring what tracing costs.
    Bench,
    /// Checking the code.
    Lint,
    /// Fuzzing.
    Fuzz,
    /// Building for another processor, and emulating it.
    Foreign,
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
    // libFuzzer is C++, and built on the spot.
    ("g++", Use::Fuzz),
    ("qemu-system-x86", Use::Vm),
    ("busybox-static", Use::Vm),
    ("cpio", Use::Vm),
    ("kmod", Use::Vm),
    ("xz-utils", Use::Vm),
    ("zstd", Use::Vm),
    ("gcc", Use::Tests),
    ("libc6-dev", Use::Tests),
    // Another C library.
    ("musl-tools", Use::Tests),
    ("bpftool", Use::Tests),
    ("curl", Use::Tests),
    ("python3", Use::Tests),
    ("iproute2", Use::Tests),
    ("nftables", Use::Tests),
    ("dnsmasq-base", Use::Tests),
    // TLS as it is spoken out there. Debian's Java and Go are the largest: 190 MB without javac, and 460 MB.
    ("openssl", Use::Tests),
    ("gnutls-bin", Use::Tests),
    ("nginx", Use::Tests),
    ("nodejs", Use::Tests),
    ("golang-go", Use::Tests),
    ("openjdk-17-jre-headless", Use::Tests),
    // Clients of many libraries, all at once, and servers with workers.
    ("libssl-dev", Use::Tests),
    ("python3-requests", Use::Tests),
    ("python3-aiohttp", Use::Tests),
    // curl on GnuTLS.
    ("python3-pycurl", Use::Tests),
    ("ruby", Use::Tests),
    ("php-cli", Use::Tests),
    ("php-curl", Use::Tests),
    ("wget", Use::Tests),
    ("redis-server", Use::Tests),
    ("postgresql-15", Use::Tests),
    // A container with another C library, and pip to fetch an OpenSSL for it.
    ("musl-tools", Use::Tests),
    ("python3-pip", Use::Tests),
    // The incidents: the AWS SDKs and a DynamoDB come from npm and PyPI (`libraries.rs`), Java's pooling client from here.
    ("npm", Use::Tests),
    ("libhttpclient-java", Use::Tests),
    ("openssh-client", Use::Tests),
    ("openssh-server", Use::Tests),
    ("qemu-system-arm", Use::Foreign),
    ("gcc-aarch64-linux-gnu", Use::Foreign),
    ("libc6-dev-arm64-cross", Use::Foreign),
    // The TLS loops, and a tool to compare with: bpftrace comes with LLVM and clang, 200 MB.
    ("libssl-dev", Use::Bench),
    ("bpftrace", Use::Bench),
];

/// The packages for these uses that are not installed.
pub fn missing(uses: &[Use]) -> Result<Vec<&'static str>> {
    let wanted = PACKAGES.iter().filter(|(_, purpose)| uses.contains(purpose));
    let installed = installed()?;
    Ok(wanted.map(|(name, _)| *name).filter(|name| !installed.iter().any(|have| have == name)).collect())
}

/// A program that `cargo install` brings.
pub struct Tool {
    name: &'static str,
    version: &'static str,
    options: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
    /// What the tool is for.
    pub purpose: Use,
    /// The Debian packages that building it takes.
    pub built_with: Option<Use>,
}

/// Every tool that cargo installs.
pub const TOOLS: &[Tool] = &[
    Tool {
        name: "bpf-linker",
        version: "0.13.0",
        // It links with the LLVM that the BPF compiler was built with, 22 for rustc-web.
        options: &["--no-default-features", "--features", "llvm-22"],
        // Its build finds no LLVM by itself where /usr/lib64 exists.
        variables: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
        purpose: Use::BpfCompiler,
        built_with: Some(Use::BpfLinker),
    },
    Tool { name: "cargo-deny", version: "0.20.2", options: &[], variables: &[], purpose: Use::Lint, built_with: None },
    Tool { name: "cargo-fuzz", version: "0.13.1", options: &[], variables: &[], purpose: Use::Fuzz, built_with: None },
];

impl Tool {
    /// Whether the tool has to be installed or replaced.
    pub fn is_missing(&self) -> bool {
        let file = toolchain::installed_tool(self.name);
        let version = file.and_then(|file| command::output(Command::new(file).arg("--version")).ok());
        version.is_none_or(|line| line.trim() != format!("{} {}", self.name, self.version))
    }

    /// The command that installs it.
    pub fn install(&self) -> Command {
        let mut install = Command::new("cargo");
        install
            .args(["install", self.name, "--version", self.version, "--locked", "--force"])
            .args(self.options)
            .envs(self.variables.iter().copied())
            // In the workspace's own target folder its build would stay for ever.
            .env_remove("CARGO_TARGET_DIR");
        install
    }
}

/// What is installed, also as a part of another package: some builds of nodejs bring npm, and refuse to stand beside it.
fn installed() -> Result<Vec<String>> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}\t${Package},${Provides}\n"]);
    let text = command::output(&mut query)?;
    Ok(text.lines().filter_map(|line| line.strip_prefix("installed\t")).flat_map(names).collect())
}

/// The names in a list such as `nodejs,nodejs-legacy (= 20), npm`.
fn names(list: &str) -> impl Iterator<Item = String> {
    list.split(',').filter_map(|entry| entry.split_whitespace().next()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_package_provides_is_installed_with_it() {
        assert_eq!(names("nodejs,nodejs-legacy (= 20), npm").collect::<Vec<_>>(), ["nodejs", "nodejs-legacy", "npm"]);
        assert_eq!(names("gcc,").collect::<Vec<_>>(), ["gcc"]);
    }
}
