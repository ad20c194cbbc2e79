//! Databases that speak TLS: what passes is no HTTP.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::Authority;
use crate::{
    clock::eventually,
    commands::{output_within, run},
};

/// A running server; it ends when dropped.
pub struct Database {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

/// To make a cluster, and for a load: the machine is slow.
const PATIENCE: Duration = Duration::from_secs(180);

impl Database {
    /// PostgreSQL, with a process a connection.
    #[track_caller]
    pub fn postgresql() -> Self {
        const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
        let dir = folder_of("postgres");
        let data = dir.path().join("data");
        let mut initdb = as_user("postgres");
        initdb.arg(format!("{PROGRAMS}/initdb")).args(["--no-sync", "--auth=trust", "--pgdata"]).arg(&data);
        let output = output_within(&mut initdb, None, PATIENCE);
        assert!(output.status.success(), "{output:?}");
        let address = free_address();
        let mut postgres = as_user("postgres");
        postgres.arg(format!("{PROGRAMS}/postgres")).arg("-D").arg(&data).arg("-p").arg(address.port().to_string());
        for setting in [
            format!("unix_socket_directories={}", dir.path().display()),
            "ssl=on".to_owned(),
            "fsync=off".to_owned(),
            format!("ssl_cert_file={}/certificate", dir.path().display()),
            format!("ssl_key_file={}/key", dir.path().display()),
        ] {
            postgres.arg("-c").arg(setting);
        }
        Self::start(&mut postgres, address, dir)
    }

    /// Redis, with one thread.
    #[track_caller]
    pub fn redis() -> Self {
        let dir = folder_of("redis");
        let address = free_address();
        let mut redis = as_user("redis");
        redis.args(["/usr/bin/redis-server", "--port", "0", "--save", "", "--tls-auth-clients", "no", "--tls-port"]);
        redis.arg(address.port().to_string()).arg("--dir").arg(dir.path());
        redis.arg("--tls-cert-file").arg(dir.path().join("certificate"));
        redis.arg("--tls-key-file").arg(dir.path().join("key"));
        redis.args(["--tls-ca-cert-file", Authority::get().root.path()]);
        Self::start(&mut redis, address, dir)
    }

    #[track_caller]
    fn start(command: &mut Command, address: SocketAddr, dir: tempfile::TempDir) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let started = Self { child, address, _dir: dir };
        eventually("the database to listen", || TcpStream::connect(address).ok());
        started
    }

    /// Its first process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The words of a load on PostgreSQL: so many connections at once, and so many queries on each.
pub fn pgbench(to: SocketAddr, connections: u32, queries: u32, sslmode: &str) -> Vec<String> {
    const SCRIPT: &str = "echo 'select 1' | /usr/bin/pgbench --no-vacuum --file=- --client=$1 --transactions=$2 \"$3\"";
    let (host, port) = (to.ip(), to.port());
    let place = format!("host={host} port={port} user=postgres dbname=postgres gssencmode=disable sslmode={sslmode}");
    let words = ["sh", "-c", SCRIPT, "sh"].map(str::to_owned).into_iter();
    words.chain([connections.to_string(), queries.to_string(), place]).collect()
}

/// The same on Redis.
pub fn redis_benchmark(to: SocketAddr, connections: u32, queries: u32) -> Vec<String> {
    let total = connections * queries;
    let words = format!(
        "/usr/bin/redis-benchmark --tls --cacert {} -h {} -p {} -c {connections} -n {total} -t set -q",
        Authority::get().root.path(),
        to.ip(),
        to.port()
    );
    words.split(' ').map(str::to_owned).collect()
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("local address")
}

/// A folder of a user's, with a certificate and its key.
#[track_caller]
fn folder_of(user: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let server = &Authority::get().server;
    for (from, to) in [(&server.certificate, "certificate"), (&server.key, "key")] {
        fs::copy(from, dir.path().join(to)).expect("a copy");
    }
    give(dir.path(), user);
    dir
}

#[track_caller]
fn give(dir: &Path, user: &str) {
    run(&format!("chmod 600 {0}/certificate {0}/key", dir.display()));
    run(&format!("chown -R {user} {}", dir.display()));
}

/// PostgreSQL refuses to run as root.
fn as_user(user: &str) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    command
}

impl Drop for Database {
    fn drop(&mut self) {
        // A fast shutdown of PostgreSQL, which ends its processes; the end of Redis.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let _ = self.child.wait();
    }
}
