//! Workloads that are in order, though some of them look odd: nothing is found about them.

use std::thread;

use harness::{
    Namespace,
    incidents::{Crowd, Diagnosis, Program, Server, trusting},
    tls::{Authority, Database},
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

/// What the clients ask.
struct Servers {
    http: Server,
    moody: Server,
    websocket: Server,
    http2: Server,
    sshd: Sshd,
    postgresql: Database,
    redis: Database,
}

impl Servers {
    fn start(crowd: &Crowd) -> Self {
        let server = &Authority::get().server;
        let pair = [format!("cert={}", server.path()), format!("key={}", server.key_path())];
        let databases = [Database::postgresql(), Database::redis()];
        for database in &databases {
            crowd.group.take(database.pid());
        }
        let [postgresql, redis] = databases;
        Self {
            http: crowd.serve("server", SCRIPT, &["what=server"]),
            moody: crowd.serve("moody-server", SCRIPT, &["what=moody_server"]),
            websocket: crowd.serve("socket-server", WEBSOCKET, &[]),
            http2: crowd.serve("h2-server", HTTP2, &pair.each_ref().map(String::as_str)),
            sshd: Sshd::start(crowd),
            postgresql,
            redis,
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
        scope.spawn(|| script("poll", &servers.http, &["what=long_poll", SECONDS, "wait_s=22"]));
        scope.spawn(|| script("health", &servers.http, &["what=health", SECONDS]));
        scope.spawn(|| script("moody-client", &servers.moody, &["what=moody_client", SECONDS]));
        scope.spawn(|| {
            script("pool", &servers.http, &["what=pool", "seconds=6"]);
            script("pool-late", &servers.http, &["what=pool", "seconds=15"]);
            script("scan", &servers.http, &["what=scan"]);
            let url = format!("http://127.0.0.1:{}/bulk?mb=200", servers.http.port);
            crowd.finish("bulk", Program::Installed("/usr/bin/curl"), &["-sS", "-o", "/dev/null", &url], None);
            let url = format!("http://127.0.0.1:{}/", servers.http.port);
            crowd.finish("cron", Program::Installed("/usr/bin/curl"), &["-sS", "-o", "/dev/null", &url], None);
        });
        scope.spawn(|| {
            let port = format!("port={}", servers.websocket.port);
            crowd.finish("socket-client", WEBSOCKET, &[&port, SECONDS], None);
        });
        scope.spawn(|| {
            let port = format!("port={}", servers.http2.port);
            crowd.finish("h2-client", HTTP2, &[&port, &trusting(), SECONDS], None);
        });
        scope.spawn(|| {
            let to = servers.postgresql.address();
            let place = format!(
                "host={} port={} user=postgres dbname=postgres gssencmode=disable sslmode=require",
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
        scope.spawn(|| {
            let to = servers.redis.address();
            let (ip, port) = (to.ip().to_string(), to.port().to_string());
            let settings = ["--tls", "--cacert", Authority::get().root.path(), "-h", &ip, "-p", &port];
            let much = ["incr n"; 300].join("\n");
            crowd.type_at("redis-client", Program::Installed("/usr/bin/redis-cli"), &settings, &much, &pauses);
        });
        scope.spawn(|| servers.sshd.type_at(crowd, &pauses));
    });
}

/// OpenSSH's server, with keys for this run.
struct Sshd {
    child: std::process::Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Sshd {
    #[track_caller]
    fn start(crowd: &Crowd) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
        for key in ["host", "user"] {
            let mut keygen = std::process::Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]);
            assert!(keygen.status().expect("ssh-keygen").success());
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
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
        let port_text = port.to_string();
        let mut words = vec!["-D", "-f", "/dev/null", "-p", &port_text];
        for option in &options {
            words.extend(["-o", option]);
        }
        // It starts itself anew by its full path for each connection.
        let mut command = std::process::Command::new("/usr/sbin/sshd");
        command.args(words);
        let child = crowd.group.enter_anywhere(&command).spawn().expect("sshd");
        harness::eventually("sshd to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { child, dir, port }
    }

    /// A shell at the other end, and somebody who types.
    fn type_at(&self, crowd: &Crowd, pauses_s: &[u32]) {
        let (key, port) = (self.dir.path().join("user"), self.port.to_string());
        let key = key.to_str().expect("UTF-8");
        let options =
            ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"];
        let to = ["-q", "-F", "/dev/null", "-i", key, "-p", &port, "root@127.0.0.1", "/bin/sh"];
        crowd.type_at("ssh", Program::Installed("/usr/bin/ssh"), &[&options[..], &to].concat(), "date", pauses_s);
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
