//! A DNS server and resolver settings for one test.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::NamedTempFile;

use crate::{
    clock::eventually,
    etc::{Etc, file},
};

/// dnsmasq on port 53 of this thread's network namespace; resolvers of programs that this thread starts ask it. Ends when
/// dropped.
pub struct Resolver {
    dnsmasq: Child,
    _hosts: NamedTempFile,
    _etc: Etc,
}

impl Resolver {
    /// Serves names of `.test` on 127.0.0.1, one or more addresses each; every name of `gone.test` does not exist. `options`
    /// go to resolv.conf.
    #[track_caller]
    pub fn start(names: &[(&str, &[&str])], options: &str) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), names, options)
    }

    /// The same on this loopback address, as resolv.conf names it: one that is v4-mapped is served on the IPv4 address.
    #[track_caller]
    pub fn start_at(server: IpAddr, names: &[(&str, &[&str])], options: &str) -> Self {
        let hosts: String = names
            .iter()
            .flat_map(|(name, addresses)| addresses.iter().map(move |ip| format!("{ip} {name}\n")))
            .collect();
        let hosts = file(&hosts);
        let settings = format!("nameserver {server}\noptions {options}\n");
        let etc = Etc::with(&[("resolv.conf", &settings), ("nsswitch.conf", "hosts: dns\n")]);
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"]);
        dnsmasq.args(["--pid-file=", "--bind-interfaces", "--local=/test/", "--log-facility=-"]);
        let address = server.to_canonical();
        dnsmasq.arg(format!("--listen-address={address}"));
        dnsmasq.arg(format!("--addn-hosts={}", hosts.path().display()));
        let child = dnsmasq.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let resolver = Self { dnsmasq: child.expect("dnsmasq starts"), _hosts: hosts, _etc: etc };
        eventually("dnsmasq to answer", || answers(address).then_some(()));
        resolver
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = self.dnsmasq.kill();
        let _ = self.dnsmasq.wait();
    }
}

/// Asks by hand for a name that does not exist.
fn answers(server: IpAddr) -> bool {
    const QUERY: &[u8] = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05ready\x04test\x00\x00\x01\x00\x01";
    let ask = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind((server, 0))?;
        socket.connect((server, 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        socket.send(QUERY)?;
        socket.recv(&mut [0; 512])
    };
    ask().is_ok()
}
