//! The clients of the VM tests that other compilers than cargo build. They are built here and not in the VM, where an
//! emulated processor would take minutes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    architecture::Architecture,
    command::{self, say},
    musl, paths,
};

/// Where their sources are.
const SOURCES: &str = "tests/clients";

/// Where Debian puts the Java that `packages.rs` names; another one may come first in `PATH`.
const JAVA: &str = "/usr/lib/jvm/java-17-openjdk-amd64/bin/java";

/// Where Debian puts Apache HttpClient, and what that takes.
const HTTP_CLIENT: &str = "/usr/share/java/httpclient.jar:/usr/share/java/httpcore.jar";

/// Where Debian puts Go.
const GO: &str = "/usr/bin/go";

/// A way to build a client for a processor from its source.
type Builder = fn(Architecture, &Path, &Path) -> Command;

/// Those that are built for other processors too: sources, what is made of them, and how.
const ANYWHERE: &[(&str, &str, Builder)] = &[
    ("tls/client.go", "go_client", go),
    ("tls/timed.c", "timed.so", c),
    ("tls/wire_clock.c", "wire_clock.so", c),
    ("lookup.go", "go_lookup", pure_go),
    ("lookup.c", "lookup_dynamic", c_program),
    ("lookup.c", "lookup_glibc", c_static),
];

/// The others.
const HERE: &[(&str, &str, Builder)] = &[
    ("tls/Client.java", "java_client", java),
    ("incidents/Writes.java", "java_writes", java),
    ("tls/numbered/client.go", "numbered_client", go),
    ("tls/numbered/server.go", "numbered_server", go),
    ("tls/hostile.c", "hostile", c_with_openssl),
    ("soak/soak.go", "go_soak", go),
    ("lookup.c", "lookup_musl", c_musl),
];

/// Builds them beside the binaries of the tests for a processor, those that are older than their source.
pub fn build(architecture: Architecture) -> Result<()> {
    let folder = paths::target_dir().join(architecture.target_folder()).join("debug");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let source = |name: &str| paths::project_root().join(SOURCES).join(name);
    let here = if architecture.is_native() { HERE } else { &[] };
    for (name, built, command) in ANYWHERE.iter().chain(here) {
        let (source, built) = (source(name), folder.join(built));
        if is_older(&built, &source)? {
            say(format!("building {}", built.display()));
            command::run(&mut command(architecture, &source, &built))?;
        }
    }
    if !architecture.is_native() {
        return Ok(());
    }
    let (client, root) = (source("tls/numbered/client.c"), folder.join("musl_root"));
    if is_older(&root, &client)? {
        say(format!("building {}", root.display()));
        musl::build(&client, &root)?;
    }
    Ok(())
}

/// Go's standard library is all that it takes: nothing is fetched.
fn go(architecture: Architecture, source: &Path, built: &Path) -> Command {
    let mut go = Command::new(GO);
    go.args(["build", "-o"]).arg(built).arg(source);
    go.env("GOARCH", architecture.debian());
    go.env("GO111MODULE", "off").env("GOPROXY", "off").env("GOFLAGS", "");
    go.env("GOCACHE", paths::target_dir().join("go-cache"));
    go
}

/// Without the C library, and so without its resolver.
fn pure_go(architecture: Architecture, source: &Path, built: &Path) -> Command {
    let mut go = go(architecture, source, built);
    go.env("CGO_ENABLED", "0");
    go
}

/// The compiler is a module of the runtime, though the runtime's package has no `javac`.
fn java(_: Architecture, source: &Path, built: &Path) -> Command {
    let mut java = Command::new(JAVA);
    java.args(["-m", "jdk.compiler/com.sun.tools.javac.Main", "-classpath", HTTP_CLIENT, "-d"]).arg(built).arg(source);
    java
}

fn c(architecture: Architecture, source: &Path, built: &Path) -> Command {
    let mut gcc = gcc(architecture);
    gcc.args(["-shared", "-fPIC", "-o"]).arg(built).arg(source);
    gcc
}

fn c_with_openssl(architecture: Architecture, source: &Path, built: &Path) -> Command {
    let mut gcc = gcc(architecture);
    gcc.arg("-o").arg(built).arg(source).args(["-lssl", "-lcrypto"]);
    gcc
}

fn c_program(architecture: Architecture, source: &Path, built: &Path) -> Command {
    let mut gcc = gcc(architecture);
    gcc.arg("-o").arg(built).arg(source);
    gcc
}

/// With the C library in it. The linker warns that parts of that may be loaded later all the same.
fn c_static(architecture: Architecture, source: &Path, built: &Path) -> Command {
    let mut gcc = c_program(architecture, source, built);
    gcc.args(["-static", "-Wl,--no-warnings"]);
    gcc
}

/// With another C library in it.
fn c_musl(_: Architecture, source: &Path, built: &Path) -> Command {
    let mut gcc = compiler("musl-gcc");
    gcc.arg("-static").arg("-o").arg(built).arg(source);
    gcc
}

fn gcc(architecture: Architecture) -> Command {
    compiler(&architecture.c_compiler())
}

fn compiler(name: &str) -> Command {
    let mut compiler = Command::new(name);
    compiler.args(["-O2", "-Wall", "-Wextra", "-Werror"]);
    compiler
}

/// A folder of classes is as old as its newest class, which is the file that the compiler wrote last.
fn is_older(built: &Path, source: &Path) -> Result<bool> {
    let modified = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let files: Vec<PathBuf> = match fs::read_dir(built) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?,
        Err(_) => vec![built.to_owned()],
    };
    Ok(files.iter().filter_map(|file| modified(file)).max() < modified(source))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn what_is_missing_or_older_than_its_source_is_built() {
        let dir = std::env::temp_dir().join(format!("conntracer-clients-{}", std::process::id()));
        fs::create_dir_all(dir.join("classes")).expect("a folder");
        let write = |name: &str, age_s: u64| {
            let file = fs::File::create(dir.join(name)).expect("a file");
            file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).expect("an age");
            dir.join(name)
        };
        let (source, old) = (write("source", 50), write("old", 100));
        let missing = dir.join("missing");
        assert!(is_older(&missing, &source).expect("an answer"));
        assert!(is_older(&old, &source).expect("an answer"));
        assert!(is_older(&dir.join("classes"), &source).expect("an answer"), "no class is there");
        write("classes/A.class", 10);
        assert!(!is_older(&dir.join("classes"), &source).expect("an answer"));
        assert!(!is_older(&source, &old).expect("an answer"));
        fs::remove_dir_all(&dir).expect("the folder goes");
    }
}
