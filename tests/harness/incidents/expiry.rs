//! A box on the way that forgets idle connections, and then drops what they send without a word: load balancers, NAT
//! gateways and firewalls do.

use std::{io::Write, process::Stdio, time::Duration};

use crate::commands::{run, stdout_of};

/// The kernel's own connection tracking in this thread's network namespace, with a short memory. It lasts as long as the
/// namespace.
pub struct Expiry;

const TABLE: &str = "inet conntracer_expiry";

impl Expiry {
    /// Forgets connections that have been idle for so long.
    #[track_caller]
    pub fn after(idle: Duration) -> Self {
        run("modprobe nf_conntrack");
        run("modprobe nft_ct");
        let chain = "type filter hook input priority 0\n ct state invalid counter drop";
        let rules = format!("table {TABLE} {{\n chain input {{\n {chain}\n }}\n }}\n");
        nft(&rules);
        // A connection whose beginning was not seen is none of its own.
        set("tcp_loose", "0");
        set("tcp_timeout_established", &idle.as_secs().to_string());
        Self
    }

    /// How many packets it has dropped.
    pub fn dropped(&self) -> u64 {
        let listing = stdout_of(&format!("nft list table {TABLE}"));
        let mut words = listing.split_whitespace().skip_while(|word| *word != "packets").skip(1);
        words.next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no counter in {listing}"))
    }
}

/// This thread's namespace is what it sees there.
#[track_caller]
fn set(setting: &str, value: &str) {
    let path = format!("/proc/sys/net/netfilter/nf_conntrack_{setting}");
    std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

#[track_caller]
fn nft(rules: &str) {
    let mut nft = std::process::Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
    nft.stdin.take().expect("stdin is piped").write_all(rules.as_bytes()).expect("nft reads its rules");
    assert!(nft.wait().expect("nft").success(), "{rules}");
}
