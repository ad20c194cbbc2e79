//! HAProxy, with a master and workers, which logs the Host header of each request.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use super::{Asked, Authority};
use crate::clock::eventually;

/// It ends when dropped.
pub struct Haproxy {
    child: Child,
    dir: tempfile::TempDir,
    address: SocketAddr,
}

impl Haproxy {
    /// Starts it and waits until it serves TLS 1.3 and answers by itself.
    #[track_caller]
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("local address");
        drop(listener);
        let authority = Authority::get();
        let both =
            [authority.server.path(), authority.server.key_path()].map(|path| fs::read(path).expect("PEM")).concat();
        let pem = dir.path().join("both.pem");
        fs::write(&pem, both).expect("certificate and key");
        let config = dir.path().join("haproxy.cfg");
        // Without a bound of its own it makes room for as many descriptors as the machine allows.
        let text = format!(
            "global\n log stdout format raw local0\n maxconn 500\n\
             defaults\n mode http\n log global\n timeout client 60s\n timeout connect 60s\n timeout server 60s\n\
             frontend numbered\n bind {address} ssl crt {}\n log-format \"%cp %[capture.req.hdr(0)]\"\n\
             http-request capture req.hdr(host) len 64\n\
             http-request return status 200 content-type text/plain string hello\n",
            pem.display()
        );
        fs::write(&config, text).expect("HAProxy's settings");
        let log = File::create(dir.path().join("log")).expect("a log");
        let mut haproxy = Command::new("/usr/sbin/haproxy");
        haproxy.arg("-W").arg("-f").arg(&config).stdin(Stdio::null()).stdout(log);
        let child = haproxy.spawn().unwrap_or_else(|error| panic!("{haproxy:?}: {error}"));
        let started = Self { child, dir, address };
        // This connection comes and goes without a byte.
        eventually("HAProxy to listen", || TcpStream::connect(address).ok());
        started
    }

    /// The master.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked for on each connection, once there have been so many requests.
    #[track_caller]
    pub fn asked(&self, requests: usize) -> Asked {
        eventually(&format!("HAProxy to log {requests} requests"), || {
            let log = fs::read_to_string(self.dir.path().join("log")).ok()?;
            let lines = log.lines().filter_map(|line| line.split_once(' '));
            let numbered = lines.filter(|(_, host)| host.contains(".test"));
            let mut asked = Asked::new();
            for (port, host) in numbered {
                asked.entry(port.parse().ok()?).or_default().push(host.to_owned());
            }
            (asked.values().map(Vec::len).sum::<usize>() >= requests).then_some(asked)
        })
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // The master ends its workers.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
