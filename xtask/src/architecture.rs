//! The kinds of processors that conntracer is tested on: this machine's, and another that is cross-compiled for and emulated.

use std::process::Command;

use crate::build::cargo;

/// A kind of processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// This machine's.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Architecture {
    /// As `uname -m` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As Debian calls it.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Whether its programs run here.
    pub const fn is_native(self) -> bool {
        matches!(self, Self::X86_64)
    }

    /// Where the kernel's console goes.
    pub const fn console(self) -> &'static str {
        match self {
            Self::X86_64 => "ttyS0",
            Self::Aarch64 => "ttyAMA0",
        }
    }

    /// QEMU's name of a machine of it.
    pub const fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "q35",
            Self::Aarch64 => "virt",
        }
    }

    /// The processor to emulate.
    pub const fn emulated_cpu(self) -> &'static str {
        match self {
            // With cx16 QEMU 7.2 emulates cmpxchg16b wrongly now and then, and one boot in five dies in the guest's allocator.
            // Without la57 there are four levels of page tables, which are quicker to emulate.
            Self::X86_64 => "max,cx16=off,la57=off",
            // Signing pointers as the architecture defines it takes most of an emulator's time.
            Self::Aarch64 => "max,pauth-impdef=on",
        }
    }

    /// What it is called as a target of rustc.
    pub const fn rust_target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// cargo that builds for it: natively, or with Debian's cross compiler for what is C, and to link.
    pub fn cargo(self, subcommand: &str) -> Command {
        let mut command = cargo();
        command.arg(subcommand);
        if !self.is_native() {
            let gcc = self.c_compiler();
            let variable = self.rust_target().to_uppercase().replace('-', "_");
            command.args(["--target", self.rust_target()]).env(format!("CARGO_TARGET_{variable}_LINKER"), gcc);
        }
        command
    }

    /// The C compiler for it: Debian's cross compiler where it is not this machine's.
    pub fn c_compiler(self) -> String {
        if self.is_native() { "gcc".to_owned() } else { format!("{}-linux-gnu-gcc", self.name()) }
    }

    /// The folder below cargo's target folder that its programs are in.
    pub fn target_folder(self) -> &'static str {
        if self.is_native() { "" } else { self.rust_target() }
    }
}
