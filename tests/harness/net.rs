//! Networks that fail on demand, each in a network namespace of its own.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, TcpStream},
    os::fd::AsFd,
    sync::mpsc,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

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

/// Two network namespaces with a cable between them: that of this thread, and the peer's.
pub struct Link {
    peer: File,
}

impl Link {
    /// The address here.
    pub const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
    /// The peer's address.
    pub const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));

    /// Runs `test` on a thread in a fresh namespace that is linked to another. What leaves either end goes through `netem`
    /// with these settings.
    pub fn run<T: Send>(netem: &str, test: impl FnOnce(&Namespace, &Self) -> T + Send) -> T {
        Namespace::run(|namespace| {
            let link = Self { peer: another_namespace() };
            let peer = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&link.peer));
            run(&format!("ip link add here type veth peer name there netns {peer}"));
            run("modprobe sch_netem");
            let set_up = |device: &str, address: IpAddr| {
                run(&format!("ip addr add {address}/24 dev {device}"));
                run(&format!("ip link set {device} up"));
            };
            let delay = |device: &str| run(&format!("tc qdisc add dev {device} root netem {netem}"));
            set_up("here", Self::HERE);
            link.there(|| {
                run("ip link set lo up");
                set_up("there", Self::THERE);
            });
            // Each end learns the other's hardware address before the way is long: the first packet would wait for it.
            let _ = TcpStream::connect((Self::THERE, 1));
            delay("here");
            link.there(|| delay("there"));
            test(namespace, &link)
        })
    }

    /// Runs something in the peer's namespace; programs that it starts are in there too.
    pub fn there<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let in_namespace = || {
            setns(self.peer.as_fd(), CloneFlags::CLONE_NEWNET).expect("the peer's network namespace");
            work()
        };
        let outcome = thread::scope(|scope| scope.spawn(in_namespace).join());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A fresh network namespace, which lives as long as the file.
fn another_namespace() -> File {
    let (sender, receiver) = mpsc::channel();
    let make = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
        let _ = sender.send(File::open("/proc/thread-self/ns/net").expect("this thread's network namespace"));
    };
    thread::scope(|scope| drop(scope.spawn(make)));
    receiver.recv().expect("the namespace")
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
