//! A certificate authority for the length of a test run.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use super::{NAME, STORE};

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    /// The certificate's file.
    pub fn path(&self) -> &str {
        text(&self.certificate)
    }

    /// The key's file.
    pub fn key_path(&self) -> &str {
        text(&self.key)
    }
}

/// Made by OpenSSL when it is first asked for, and shared by all tests of the run: an emulated processor takes its time.
pub struct Authority {
    dir: PathBuf,
    /// What clients trust.
    pub root: Certificate,
    /// A server's, for [`NAME`], [`STORE`] and the loopback addresses.
    pub server: Certificate,
}

/// Small keys: what TLS computes is not what is tested.
const SMALL: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

impl Authority {
    /// That of this run.
    pub fn get() -> &'static Self {
        static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);
        &AUTHORITY
    }

    fn new() -> Self {
        // The machine is thrown away after the run, and the folder with it.
        let dir = tempfile::tempdir().expect("a folder").keep();
        // Also for programs of other users: nginx's workers and the like.
        run(Command::new("chmod").arg("755").arg(&dir));
        let constraints = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign"];
        let root = make(&dir, "root", SMALL, &constraints, "conntracer tests");
        let names = format!("subjectAltName=DNS:{NAME},DNS:{STORE},IP:127.0.0.1,IP:::1");
        let server = issue(&dir, &root, "server", SMALL, &["-addext", &names], NAME);
        // Java's own format of a hosts file.
        std::fs::write(dir.join("hosts"), format!("127.0.0.1 {NAME}\n")).expect("a hosts file");
        Self { dir, root, server }
    }

    /// A client's certificate with a small key.
    pub fn client(&self) -> &'static Certificate {
        static CLIENT: LazyLock<Certificate> = LazyLock::new(|| {
            let authority = Authority::get();
            issue(&authority.dir, &authority.root, "client", SMALL, &[], "a client")
        });
        &CLIENT
    }

    /// A client's certificate whose key takes some milliseconds to sign with, even on a fast processor.
    pub fn rsa_client(&self) -> &'static Certificate {
        static RSA: LazyLock<Certificate> = LazyLock::new(|| {
            let authority = Authority::get();
            issue(&authority.dir, &authority.root, "rsa", &["-newkey", "rsa:2048"], &[], "a client")
        });
        &RSA
    }

    /// A client's certificate whose key takes long to sign with.
    pub fn slow_client(&self) -> &'static Certificate {
        static SLOW: LazyLock<Certificate> = LazyLock::new(|| {
            let authority = Authority::get();
            issue(&authority.dir, &authority.root, "slow", &["-newkey", "rsa:4096"], &[], "a slow client")
        });
        &SLOW
    }

    /// A folder with no certificates in it.
    pub fn empty_folder(&self) -> PathBuf {
        let folder = self.dir.join("empty");
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// A file that resolves [`NAME`] to loopback.
    pub fn hosts(&self) -> PathBuf {
        self.dir.join("hosts")
    }
}

fn issue(dir: &Path, by: &Certificate, file: &str, key: &[&str], options: &[&str], name: &str) -> Certificate {
    let signer = ["-CA", by.path(), "-CAkey", by.key_path(), "-addext", "basicConstraints=CA:FALSE"];
    make(dir, file, key, &[&signer, options].concat(), name)
}

fn make(dir: &Path, file: &str, key: &[&str], options: &[&str], name: &str) -> Certificate {
    let made = Certificate { certificate: dir.join(format!("{file}.pem")), key: dir.join(format!("{file}.key")) };
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-batch", "-days", "30", "-subj", &format!("/CN={name}")]);
    openssl.args(key).args(options).arg("-out").arg(&made.certificate).arg("-keyout").arg(&made.key);
    run(&mut openssl);
    made
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
