//! Workloads that are in order, though some of them look odd: nothing is found about them.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    thread,
    time::Duration,
};

use harness::{
    Namespace, eventually,
    incidents::{Crowd, Diagnosis, Program, Server},
    tls::Database,
};

/// How long most of them last: four checks that come every 30 s.
const SECONDS: &str = "seconds=92";

const SCRIPT: Program = Program::Python("healthy.py");
const WEBSOCKET: Program = Program::Node("websocket.js");
const HTTP2: Program = Program::Node("http2.js");

/// What is looked at, by its process name; servers are among them.
const LOOKED_AT: [&str; 20] = [
    "poll",
    "socket-server",
    "socket-client",
    "bulk",
    "cron",
    "pool",
    "psql",
    "postgres",
    "ssh",
    "sshd",
    "h2-server",
    "h2-client",
    "moody-server",
    "moody-client",
    "scan",
    "health",
    "redis-client",
    "redis-server",
    "server",
    "pool-late",
];

#[test]
fn nothing_is_found_about_workloads_that_are_in_order() {
    Namespace::run(|_| {
        let crowd = Crowd::new("healthy");
        let servers = Servers::start(&crowd);
        let diagnosis = Diagnosis::of(&crowd.group);
        work(&crowd, &servers);
        let findings = diagnosis.findings();
        for name in LOOKED_AT {
            assert!(findings.looked_at(name), "nothing was seen of {name}");
        }
        assert!(findings.all().is_empty(), "nothing is wrong: {:#?}", findings.all());
    });
}

/// What the clients ask, without TLS but for ssh's own: an emulated processor takes so long for a handshake that it would be found, and
/// rightly.
struct Servers {
    http: Server,
    moody: Server,
    websocket: Server,
    http2: Server,
    sshd: Sshd,
    postgresql: Database,
    redis: Daemon,
}

impl Servers {
    fn start(crowd: &Crowd) -> Self {
        let postgresql = Database::postgresql();
        crowd.group.take(postgresql.pid());
        Self {
            http: crowd.serve("server", SCRIPT, &["what=server"]),
            moody: crowd.serve("moody-server", SCRIPT, &["what=moody_server"]),
            websocket: crowd.serve("socket-server", WEBSOCKET, &[]),
            http2: crowd.serve("h2-server", HTTP2, &[]),
            sshd: Sshd::start(crowd),
            postgresql,
            redis: Daemon::start(|port| {
                let settings = ["--port", port, "--bind", "127.0.0.1", "--save", ""];
                crowd.command("redis-server", Program::Installed("/usr/bin/redis-server"), &settings)
            }),
        }
    }
}

/// All at once, each in its own manner.
fn work(crowd: &Crowd, servers: &Servers) {
    let script = |name: &str, server: &Server, words: &[&str]| {
        let port = format!("port={}", server.port);
        crowd.finish(name, SCRIPT, &[&["host=127.0.0.1", &port], words].concat(), None);
    };
    let pauses = [1, 3, 2, 7, 1, 1, 12, 4, 2, 9, 1, 5, 3, 14, 2, 6, 1, 8];
    thread::scope(|scope| {
        let mut starts = Starts::default();
        starts.next(scope, || script("poll", &servers.http, &["what=long_poll", SECONDS, "wait_s=22"]));
        starts.next(scope, || script("health", &servers.http, &["what=health", SECONDS]));
        starts.next(scope, || script("moody-client", &servers.moody, &["what=moody_client", SECONDS]));
        starts.next(scope, || {
            script("pool", &servers.http, &["what=pool", "seconds=6"]);
            script("pool-late", &servers.http, &["what=pool", "seconds=15"]);
            script("scan", &servers.http, &["what=scan"]);
            let url = format!("http://127.0.0.1:{}/bulk?mb=200", servers.http.port);
            crowd.finish("bulk", Program::Installed("/usr/bin/curl"), &["-sS", "-o", "/dev/null", &url], None);
            let url = format!("http://127.0.0.1:{}/", servers.http.port);
            crowd.finish("cron", Program::Installed("/usr/bin/curl"), &["-sS", "-o", "/dev/null", &url], None);
        });
        starts.next(scope, || {
            let port = format!("port={}", servers.websocket.port);
            crowd.finish("socket-client", WEBSOCKET, &[&port, SECONDS], None);
        });
        starts.next(scope, || {
            let port = format!("port={}", servers.http2.port);
            crowd.finish("h2-client", HTTP2, &[&port, SECONDS], None);
        });
        starts.next(scope, || {
            let to = servers.postgresql.address();
            let place = format!(
                "host={} port={} user=postgres dbname=postgres gssencmode=disable sslmode=disable",
                to.ip(),
                to.port()
            );
            crowd.type_at(
                "psql",
                Program::Installed("/usr/lib/postgresql/15/bin/psql"),
                &[&place],
                "select 1;",
                &pauses,
            );
        });
        starts.next(scope, || {
            let port = servers.redis.port.to_string();
            let settings = ["-h", "127.0.0.1", "-p", &port];
            let much = ["incr n"; 300].join("\n");
            crowd.type_at("redis-client", Program::Installed("/usr/bin/redis-cli"), &settings, &much, &pauses);
        });
        starts.next(scope, || servers.sshd.type_at(crowd, &pauses));
    });
}

/// Starts one after the other: so many programs that begin at once would wait for the processor, and that would be found.
#[derive(Default)]
struct Starts(u32);

impl Starts {
    fn next<'scope>(&mut self, scope: &'scope thread::Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) {
        const APART: Duration = Duration::from_secs(4);
        let wait = self.0 * APART;
        self.0 += 1;
        scope.spawn(move || {
            thread::sleep(wait);
            work();
        });
    }
}

/// A server that is told its port; it is killed when dropped.
struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    #[track_caller]
    fn start(command: impl FnOnce(&str) -> Command) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let child = command(&port.to_string()).stdout(std::process::Stdio::null()).spawn().expect("a server");
        eventually("a server to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { child, port }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// OpenSSH's server, with keys for this run.
struct Sshd {
    daemon: Daemon,
    dir: tempfile::TempDir,
}

impl Sshd {
    #[track_caller]
    fn start(crowd: &Crowd) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
        for key in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]);
            assert!(keygen.status().expect("ssh-keygen").success());
        }
        std::fs::create_dir_all("/run/sshd").expect("its folder");
        let options = [
            format!("HostKey={}", path("host")),
            format!("AuthorizedKeysFile={}", path("user.pub")),
            format!("PidFile={}", path("pid")),
            "ListenAddress=127.0.0.1".to_owned(),
            "StrictModes=no".to_owned(),
            "UsePAM=no".to_owned(),
            "PermitRootLogin=yes".to_owned(),
        ];
        let daemon = Daemon::start(|port| {
            // It starts itself anew by its full path for each connection.
            let mut command = Command::new("/usr/sbin/sshd");
            command.args(["-D", "-f", "/dev/null", "-p", port]);
            for option in &options {
                command.args(["-o", option]);
            }
            crowd.group.enter_anywhere(&command)
        });
        Self { daemon, dir }
    }

    /// A shell at the other end, and somebody who types.
    fn type_at(&self, crowd: &Crowd, pauses_s: &[u32]) {
        let (key, port) = (self.dir.path().join("user"), self.daemon.port.to_string());
        let key = key.to_str().expect("UTF-8");
        let options =
            ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"];
        let to = ["-q", "-F", "/dev/null", "-i", key, "-p", &port, "root@127.0.0.1", "/bin/sh"];
        crowd.type_at("ssh", Program::Installed("/usr/bin/ssh"), &[&options[..], &to].concat(), "date", pauses_s);
    }
}
