//! A DynamoDB behind TLS: dynalite, and nginx before it, as a load balancer would be.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Server, libraries, source};
use crate::{
    clock::eventually,
    tls::{Authority, STORE},
};

/// A server of the load balancer: a port with settings of its own.
#[derive(Clone, Copy, Debug)]
pub struct Front {
    /// After how long it closes an idle connection, seconds.
    pub idle_timeout_s: u32,
    /// Whether it asks for a client's certificate.
    pub mutual: bool,
}

impl Front {
    /// One that closes an idle connection after so many seconds.
    pub fn keeping(idle_timeout_s: u32) -> Self {
        Self { idle_timeout_s, mutual: false }
    }
}

/// The running servers, in the network namespace of the thread that started them; they end when dropped.
pub struct Store {
    _dynalite: Server,
    nginx: Child,
    dir: tempfile::TempDir,
    addresses: Vec<SocketAddr>,
}

impl Store {
    /// Starts both, with these fronts on an address, and waits until they serve.
    #[track_caller]
    pub fn start(at: IpAddr, fronts: &[Front]) -> Self {
        let mut node = Command::new("/usr/bin/node");
        node.arg(source("dynamo.js")).env("NODE_PATH", libraries("node").join("node_modules"));
        let dynalite = Server::start(node);
        let dir = tempfile::tempdir().expect("a folder");
        // All are held until the last was found.
        let free: Vec<_> = fronts.iter().map(|_| TcpListener::bind((at, 0)).expect("a free port")).collect();
        let addresses: Vec<_> = free.iter().map(|free| free.local_addr().expect("an address")).collect();
        drop(free);
        let file = dir.path().join("nginx.conf");
        fs::write(&file, configuration(dir.path(), dynalite.port, fronts, &addresses)).expect("nginx's settings");
        let nginx = Command::new("/usr/sbin/nginx").arg("-c").arg(&file).stdin(Stdio::null()).spawn().expect("nginx");
        let store = Self { _dynalite: dynalite, nginx, dir, addresses };
        for address in &store.addresses {
            eventually("nginx to listen", || TcpStream::connect(address).ok());
        }
        store
    }

    /// Where a front listens.
    pub fn address(&self, front: usize) -> SocketAddr {
        self.addresses[front]
    }

    /// The URL of a front, by its place in the list.
    pub fn endpoint(&self, front: usize) -> String {
        format!("https://{STORE}:{}", self.addresses[front].port())
    }

    /// A front as findings name it: this is what clients connect to.
    pub fn destination(&self, front: usize) -> String {
        format!("{STORE}:{}", self.addresses[front].port())
    }

    /// How many requests came on each connection to a front.
    pub fn requests(&self, front: usize) -> Vec<u64> {
        let port = self.addresses[front].port().to_string();
        let log = fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
        let mut counts = BTreeMap::<&str, u64>::new();
        for line in log.lines() {
            let (of, connection) = line.split_once(' ').unwrap_or_else(|| panic!("nginx logs `{line}`"));
            if of == port {
                *counts.entry(connection).or_default() += 1;
            }
        }
        counts.into_values().collect()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.nginx.id().cast_signed()), Signal::SIGTERM);
        let _ = self.nginx.wait();
    }
}

fn configuration(dir: &std::path::Path, upstream: u16, fronts: &[Front], addresses: &[SocketAddr]) -> String {
    let dir = dir.display();
    let Authority { server, root, .. } = Authority::get();
    let location = "location / { proxy_pass http://dynamo; }";
    let mut servers = String::new();
    for (front, address) in fronts.iter().zip(addresses) {
        let _ = writeln!(
            servers,
            "server {{ listen {address} ssl; keepalive_timeout {}s; ssl_verify_client {}; {location} }}",
            front.idle_timeout_s,
            if front.mutual { "on" } else { "off" },
        );
    }
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .concat();
    format!(
        "user root; daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;
events {{}}
http {{
log_format connection '$server_port $connection';
access_log {dir}/access.log connection;
{folders}upstream dynamo {{ server 127.0.0.1:{upstream}; keepalive 16; }}
proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_session_cache shared:sessions:1m;
{servers}}}
",
        server.path(),
        server.key_path(),
        root.path(),
    )
}
