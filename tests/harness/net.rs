//! Networks that fail on demand, each in a network namespace of its own.

use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::commands::{run, stdout_of};

/// A fresh network namespace with only a loopback device. It lives as long as sockets and threads in it do.
pub struct Namespace;

impl Namespace {
    /// Runs `test` on a thread in a fresh namespace; programs that it starts are in there too.
    pub fn run<T: Send>(test: impl FnOnce(&Self) -> T + Send) -> T {
        let in_namespace = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of one's own (needs root)");
            run("ip link set lo up");
            test(&Self)
        };
        let outcome = thread::scope(|scope| scope.spawn(in_namespace).join());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Inode number, as the output names a namespace.
    pub fn number(&self) -> u32 {
        let link = std::fs::read_link("/proc/thread-self/ns/net").expect("this thread's network namespace");
        let text = link.to_string_lossy();
        let number = text.trim_start_matches("net:[").trim_end_matches(']');
        number.parse().unwrap_or_else(|_| panic!("`{text}` is no namespace"))
    }

    /// Sets a `net.` kernel setting of this namespace, such as `ipv4/tcp_syn_retries`.
    pub fn set(&self, setting: &str, value: &str) {
        // /proc/sys/net shows the namespace of the thread that looks.
        let path = format!("/proc/sys/net/{setting}");
        std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Sends everything through `netem` with these settings.
    pub fn emulate(&self, netem: &str) {
        run("modprobe sch_netem");
        run(&format!("tc qdisc add dev lo root netem {netem}"));
    }

    /// Drops incoming packets that match, until the rule is dropped. It counts them.
    pub fn drop_incoming(&self, what: &str) -> DropRule {
        DropRule::add(&format!("{what} counter drop"))
    }

    /// Answers incoming packets that match with an error.
    pub fn reject_incoming(&self, what: &str, with: &str) -> DropRule {
        DropRule::add(&format!("{what} counter reject with {with}"))
    }
}

/// An nftables rule on what comes in; removed when dropped. Its thread must be the namespace's.
pub struct DropRule;

const TABLE: &str = "inet conntracer_tests";

impl DropRule {
    fn add(rule: &str) -> Self {
        run(&format!("nft add table {TABLE}"));
        run(&format!("nft add chain {TABLE} input {{ type filter hook input priority 0 ; }}"));
        run(&format!("nft add rule {TABLE} input {rule}"));
        Self
    }

    /// How many packets it has hit.
    pub fn packets(&self) -> u64 {
        let listing = stdout_of(&format!("nft list table {TABLE}"));
        let mut words = listing.split_whitespace().skip_while(|word| *word != "packets").skip(1);
        words.next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no counter in {listing}"))
    }
}

impl Drop for DropRule {
    fn drop(&mut self) {
        // Nothing to do about a failure here; the namespace goes away anyway.
        let _ = crate::commands::output_of(&format!("nft delete table {TABLE}"));
    }
}
