//! nginx, which logs what each of its connections negotiated.

use std::{
    fmt::Write,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;

use super::{Asked, Authority};
use crate::clock::eventually;

/// How a server of nginx is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// TLS 1.2, sessions resumed by their ids.
    Tls12,
    /// TLS 1.2, sessions resumed by tickets.
    Tls12Tickets,
    /// TLS 1.3.
    Tls13,
    /// TLS 1.3 and HTTP/2.
    Http2,
    /// TLS 1.2 and HTTP/2: here the protocol that was chosen can be seen.
    Http2Tls12,
    /// TLS 1.3 with a group that no client expects: it asks for another ClientHello.
    OtherGroup,
    /// TLS 1.2, asks for a client's certificate.
    Mutual12,
    /// TLS 1.3, asks for a client's certificate.
    Mutual13,
}

impl Site {
    const ALL: [Self; 8] = [
        Self::Tls12,
        Self::Tls12Tickets,
        Self::Tls13,
        Self::Http2,
        Self::Http2Tls12,
        Self::OtherGroup,
        Self::Mutual12,
        Self::Mutual13,
    ];

    fn settings(self) -> &'static str {
        match self {
            Self::Tls12 => "ssl_protocols TLSv1.2; ssl_session_tickets off;",
            Self::Tls12Tickets | Self::Http2Tls12 => "ssl_protocols TLSv1.2;",
            Self::Tls13 | Self::Http2 => "ssl_protocols TLSv1.3;",
            Self::OtherGroup => "ssl_protocols TLSv1.3; ssl_ecdh_curve secp384r1;",
            Self::Mutual12 => "ssl_protocols TLSv1.2; ssl_verify_client on;",
            Self::Mutual13 => "ssl_protocols TLSv1.3; ssl_verify_client on;",
        }
    }

    fn speaks_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Http2Tls12)
    }
}

/// A running nginx with every [`Site`], on both families' loopback addresses; it ends when dropped.
pub struct Nginx {
    child: Child,
    dir: tempfile::TempDir,
    ports: [u16; Site::ALL.len()],
}

/// What nginx says of a connection's TLS.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Served {
    /// The client's.
    port: u16,
    /// As `TLSv1.3`.
    version: String,
    /// In OpenSSL's words.
    cipher: String,
    /// `r` if the session was resumed.
    reused: String,
    sni: String,
    alpn: String,
    /// The Host header of the request.
    host: String,
}

impl Served {
    /// As the output names it.
    pub fn version(&self) -> &str {
        self.version.trim_start_matches("TLSv")
    }

    /// The cipher suite as the output names it, which is IANA's name.
    #[track_caller]
    pub fn cipher(&self) -> String {
        if self.cipher.starts_with("TLS_") {
            return self.cipher.clone();
        }
        // What the server's kind of key leaves of TLS 1.2: ECDHE-ECDSA-AES256-GCM-SHA384 and the like.
        let rest = self.cipher.strip_prefix("ECDHE-ECDSA-").unwrap_or_else(|| panic!("{self:?}"));
        let (cipher, hash) = rest.rsplit_once('-').map_or((rest, "SHA256"), |(cipher, hash)| match hash {
            "POLY1305" => (rest, "SHA256"),
            hash => (cipher, hash),
        });
        let cipher = cipher.replace("AES", "AES_").replace('-', "_");
        format!("TLS_ECDHE_ECDSA_WITH_{cipher}_{hash}")
    }

    /// Whether the session was resumed.
    pub fn resumed(&self) -> bool {
        self.reused == "r"
    }

    /// The name that the client asked for.
    pub fn sni(&self) -> Option<&str> {
        Some(self.sni.as_str()).filter(|name| !name.is_empty())
    }

    /// The protocol that was agreed upon.
    pub fn alpn(&self) -> Option<&str> {
        Some(self.alpn.as_str()).filter(|name| !name.is_empty())
    }
}

impl Nginx {
    /// Starts it and waits until it serves. It and its ports are in the network namespace of this thread.
    #[track_caller]
    pub fn start() -> Self {
        Self::listening_on(&LOOPBACK)
    }

    /// The same with a master and so many workers, which serve. [`Nginx::pid`] is the master's.
    #[track_caller]
    pub fn with_workers(count: u32) -> Self {
        Self::configured(&LOOPBACK, &format!("master_process on; worker_processes {count};"))
    }

    /// The same on these addresses; their ports do not matter.
    #[track_caller]
    pub fn listening_on(addresses: &[SocketAddr]) -> Self {
        // One process, so that the one that is known serves.
        Self::configured(addresses, "master_process off;")
    }

    #[track_caller]
    fn configured(addresses: &[SocketAddr], processes: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let ports = free_ports();
        let config = dir.path().join("nginx.conf");
        fs::write(&config, configuration(dir.path(), addresses, &ports, processes)).expect("nginx's settings");
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx.arg("-p").arg(dir.path()).arg("-c").arg(&config).stdin(Stdio::null());
        let child = nginx.spawn().unwrap_or_else(|error| panic!("{nginx:?}: {error}"));
        let started = Self { child, dir, ports };
        let to = SocketAddr::new(addresses[0].ip(), started.port(Site::Tls12));
        // This connection comes and goes without a byte: nothing is logged of it.
        eventually("nginx to listen", || TcpStream::connect(to).ok());
        started
    }

    /// Its process, which is the one that serves.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The port of a site.
    pub fn port(&self, site: Site) -> u16 {
        let index = Site::ALL.iter().position(|other| *other == site).expect("all sites are listed");
        self.ports[index]
    }

    /// The address of a site over IPv4.
    pub fn address(&self, site: Site) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port(site)).into()
    }

    /// What it says of the connection from a client's port, which must have asked it for something.
    #[track_caller]
    pub fn served(&self, client_port: u16) -> Served {
        eventually(&format!("nginx to log the connection from port {client_port}"), || {
            self.log().into_iter().find(|served| served.port == client_port)
        })
    }

    /// What it was asked for on each connection, once there have been so many requests.
    #[track_caller]
    pub fn asked(&self, requests: usize) -> Asked {
        let log = eventually(&format!("nginx to log {requests} requests"), || {
            let log = self.log();
            (log.len() >= requests).then_some(log)
        });
        assert_eq!(log.len(), requests, "{log:#?}");
        let mut asked = Asked::new();
        for served in log {
            asked.entry(served.port).or_default().push(served.host);
        }
        asked
    }

    /// All that it has logged, a request each, in order.
    fn log(&self) -> Vec<Served> {
        let log = fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A master ends its workers.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Where it listens if nothing else is said; ports do not matter.
const LOOPBACK: [SocketAddr; 2] =
    [SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)];

/// Ports that are free in this moment on either family; all are held until the last was found.
fn free_ports() -> [u16; Site::ALL.len()] {
    let listeners = Site::ALL.map(|_| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a free port"));
    listeners.each_ref().map(|listener| listener.local_addr().expect("local address").port())
}

fn configuration(dir: &Path, addresses: &[SocketAddr], ports: &[u16], processes: &str) -> String {
    let dir = dir.display();
    let authority = Authority::get();
    let mut servers = String::new();
    for (site, port) in Site::ALL.iter().zip(ports) {
        servers.push_str("server { ");
        for address in addresses {
            let http2 = if site.speaks_http2() { " http2" } else { "" };
            let address = SocketAddr::new(address.ip(), *port);
            let _ = write!(servers, "listen {address} ssl{http2}; ");
        }
        let _ = writeln!(servers, "{} location / {{ return 200 \"hello\\n\"; }} }}", site.settings());
    }
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .concat();
    format!(
        "user root; daemon off; {processes} pid {dir}/pid; error_log {dir}/error.log;
events {{}}
http {{
log_format tls escape=json '{{\"port\":$remote_port,\"version\":\"$ssl_protocol\",\"cipher\":\"$ssl_cipher\",\
\"reused\":\"$ssl_session_reused\",\"sni\":\"$ssl_server_name\",\"alpn\":\"$ssl_alpn_protocol\",\"host\":\"$http_host\"}}';
access_log {dir}/access.log tls;
{folders}ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_session_cache shared:sessions:1m;
{servers}}}
",
        authority.server.path(),
        authority.server.key_path(),
        authority.root.path(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_have_ianas_names() {
        for (openssl, iana) in [
            ("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
            ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
            ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
            ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
        ] {
            let [version, reused, sni, alpn, host] = [(); 5].map(|()| String::new());
            let served = Served { port: 1, version, cipher: openssl.to_owned(), reused, sni, alpn, host };
            assert_eq!(served.cipher(), iana);
        }
    }
}
