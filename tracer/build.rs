//! Builds the BPF object and tells the tracer where it is (`CONNTRACER_BPF_OBJECT_PATH`, read by `include_bytes!`).

#[path = "build/slim.rs"]
mod slim;
#[path = "build/toolchain.rs"]
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use toolchain::{BPF_TARGET, Toolchain};

/// Names an object that was built elsewhere, for machines without a BPF toolchain.
const PREBUILT: &str = "CONNTRACER_BPF_OBJECT";
/// Names a folder to build the object in. Builds that differ only in how user space is compiled share one, and its work; which one it is
/// changes nothing about the object, so a change of it builds nothing again.
const SHARED_DIR: &str = "CONNTRACER_BPF_DIR";
/// If it is 1, logs of the kernel's verifier show the lines of the source.
const WITH_LINES: &str = "CONNTRACER_BPF_LINES";

fn main() {
    println!("cargo:rerun-if-env-changed={PREBUILT}");
    println!("cargo:rerun-if-env-changed={WITH_LINES}");
    match bpf_object() {
        Ok(object) => println!("cargo:rustc-env=CONNTRACER_BPF_OBJECT_PATH={}", object.display()),
        Err(reason) => {
            // `cargo::error` reads better than a panic's backtrace.
            for line in reason.lines() {
                println!("cargo::error={line}");
            }
            // Without an exit code cargo would keep to itself what the compiler said.
            std::process::exit(1);
        }
    }
}

/// Copies the prebuilt object, or a fresh build's, to a fixed name in `OUT_DIR`, without debugging information and line numbers.
fn bpf_object() -> Result<PathBuf, String> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let source = match env::var_os(PREBUILT) {
        Some(prebuilt) => {
            let prebuilt = PathBuf::from(prebuilt);
            println!("cargo:rerun-if-changed={}", prebuilt.display());
            println!("BPF object: prebuilt, {}", prebuilt.display());
            prebuilt
        }
        None => build(&env::var_os(SHARED_DIR).map_or_else(|| out_dir.join("bpf"), PathBuf::from))?,
    };
    let object = out_dir.join("conntracer.bpf.o");
    let built = fs::read(&source).map_err(|error| format!("cannot read {}: {error}", source.display()))?;
    let slim = slim::slim(&built, env::var_os(WITH_LINES).is_some_and(|value| value == "1"))
        .map_err(|error| format!("{}: {error}", source.display()))?;
    fs::write(&object, slim).map_err(|error| format!("cannot write {}: {error}", object.display()))?;
    Ok(object)
}

fn build(target_dir: &Path) -> Result<PathBuf, String> {
    for input in ["../tracer-ebpf", "../Cargo.lock", "../Cargo.toml", "build.rs", "build"] {
        println!("cargo:rerun-if-changed={input}");
    }
    let toolchain = Toolchain::find().ok_or_else(|| {
        format!("no Rust compiler for {BPF_TARGET}: run `cargo xtask setup`, or point {PREBUILT} to a built object")
    })?;
    let linker =
        toolchain::installed_tool("bpf-linker").ok_or("bpf-linker is not installed: run `cargo xtask setup`")?;
    println!("cargo:rerun-if-changed={}", linker.display());
    println!("BPF object: built by {}", toolchain.name());

    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let target_dir = target_dir.join(&arch);
    let status = toolchain
        .cargo("build", &arch)
        .arg("--target-dir")
        .arg(&target_dir)
        .status()
        .map_err(|error| format!("cannot start cargo for the BPF object: {error}"))?;
    if !status.success() {
        return Err(format!(
            "the BPF object does not build with {} (messages with this one).\nIf it is the toolchain, run `cargo xtask setup`.",
            toolchain.name()
        ));
    }
    Ok(target_dir.join(BPF_TARGET).join("release/conntracer-bpf"))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name} for the build script"))
}
