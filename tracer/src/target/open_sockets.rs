//! Sockets that are open already: every TCP connection of some processes, or of the whole node, with its owner and
//! what the kernel has counted for it so far.
//!
//! The kernel lists sockets by network namespace, so each namespace of the wanted processes is entered in turn.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    ops::RangeInclusive,
    os::{fd::AsFd, unix::fs::MetadataExt},
    thread,
};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tracer_ebpf::{role, tcp_state};

use super::{
    process,
    sock_diag::{self, Listed},
    socket_owners::{Owner, Owners},
    tcp_info::TcpInfo,
};
use crate::{
    kernel::features,
    rights::{advice, table},
    stage::event::OpenSocket,
};

/// Most sockets in one snapshot; each takes about half a kilobyte while the snapshot is taken.
pub const MAX_SOCKETS: usize = 200_000;

/// Network namespace of the calling thread.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Open sockets, and what could not be seen.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Connections, each once.
    pub sockets: Vec<OpenSocket>,
    /// Network namespaces of which every connection was listed, by inode number.
    pub surveyed: Vec<u32>,
    /// What is missing from them and why, in words for the user.
    pub limitations: Vec<String>,
}

/// Lists the TCP connections that the given processes hold, or all of the node with `None`.
///
/// Left out are listeners, stubs in TIME_WAIT, and connections that no process has accepted yet: their accept is seen
/// when it happens. With `None`, connections that were closed and still have data on the way are in, with PID 0.
/// Whatever cannot be seen is named in [`Snapshot::limitations`]; nothing fails as a whole.
pub fn snapshot(pids: Option<&[u32]>) -> Snapshot {
    let mut limitations = Vec::new();
    let processes = pids.map_or_else(process::all, <[u32]>::to_vec);
    let (mut found, mut surveyed) = (Vec::new(), Vec::new());
    for namespace in namespaces(&processes, &mut limitations) {
        match list_namespace(&namespace, MAX_SOCKETS - found.len()) {
            Ok(listing) => {
                match listing.limitation(namespace.inode) {
                    None => surveyed.push(namespace.inode),
                    Some(limitation) => limitations.push(limitation),
                }
                found.extend(listing.connections);
            }
            Err(error) => limitations.push(format!(
                "sockets open before the trace in network namespace {} (of PID {}) are not shown: {error:#}",
                namespace.inode, namespace.pid
            )),
        }
    }
    let inodes: HashSet<u32> = found.iter().map(|found| found.socket.inode).filter(|inode| *inode != 0).collect();
    let owners = Owners::find(&processes, &inodes);
    if owners.denied > 0 {
        limitations.push(format!(
            "sockets of {} process(es) of other users have no known owner: {}",
            owners.denied,
            advice::how_to_get(&table::OWNERS)
        ));
    }
    let is_wanted = |socket: &OpenSocket| pids.is_none() || socket.pid != 0;
    let sockets = found.into_iter().map(|found| found.into_open_socket(&owners)).filter(is_wanted).collect();
    Snapshot { sockets, surveyed, limitations }
}

/// A network namespace, and a process through which it can be entered.
struct Namespace {
    inode: u32,
    pid: u32,
    is_own: bool,
}

/// The distinct network namespaces of some processes.
fn namespaces(pids: &[u32], limitations: &mut Vec<String>) -> Vec<Namespace> {
    let own = namespace_inode(OWN_NAMESPACE).unwrap_or(0);
    let (mut by_inode, mut unknown) = (HashMap::new(), 0u64);
    for pid in pids {
        match namespace_inode(&format!("/proc/{pid}/ns/net")) {
            Some(inode) => _ = by_inode.entry(inode).or_insert(*pid),
            // Either it ended, or it is another user's; then its namespace is most likely this one.
            None if !process::has_ended(*pid) => {
                unknown += 1;
                by_inode.entry(own).or_insert(*pid);
            }
            None => {}
        }
    }
    if unknown > 0 {
        limitations.push(format!(
            "executables and network namespaces of {unknown} process(es) of other users cannot be told: {}",
            advice::how_to_get(&table::PROCESSES)
        ));
    }
    let namespace = |(inode, pid)| Namespace { inode, pid, is_own: inode == own };
    by_inode.into_iter().map(namespace).collect()
}

/// Whether any of these processes is in another network namespace than this thread, as far as can be told.
pub fn is_any_elsewhere(pids: &[u32]) -> bool {
    let own = namespace_inode(OWN_NAMESPACE);
    let mut namespaces = pids.iter().filter_map(|pid| namespace_inode(&format!("/proc/{pid}/ns/net")));
    namespaces.any(|inode| Some(inode) != own)
}

/// Namespace numbers are 32 bits wide.
fn namespace_inode(path: &str) -> Option<u32> {
    fs::metadata(path).ok()?.ino().try_into().ok()
}

/// What one namespace holds.
struct Listing {
    connections: Vec<Found>,
    /// Connections beyond the bound.
    left_out: u64,
    /// Messages that were not understood.
    damaged: u64,
}

impl Listing {
    fn limitation(&self, namespace: u32) -> Option<String> {
        let Self { left_out, damaged, .. } = self;
        let lost = *left_out > 0 || *damaged > 0;
        lost.then(|| {
            format!(
                "of the sockets open before the trace in network namespace {namespace}, {left_out} are not shown \
                 (at most {MAX_SOCKETS} are) and {damaged} could not be understood"
            )
        })
    }
}

/// A connection before its owner is known.
struct Found {
    at: u64,
    netns: u32,
    role: u8,
    socket: Listed,
}

/// A thread of its own enters another namespace: it is the only way back for the rest of the program.
fn list_namespace(namespace: &Namespace, room: usize) -> Result<Listing> {
    if namespace.is_own {
        return list_here(namespace.inode, room);
    }
    let file = File::open(format!("/proc/{}/ns/net", namespace.pid)).context("cannot open it")?;
    let list = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| anyhow!("cannot enter it ({error}): {}", advice::how_to_get(&table::NAMESPACES)))?;
        list_here(namespace.inode, room)
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("open-sockets".into()).spawn_scoped(scope, list)?;
        thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that entered it failed")))
    })
}

fn list_here(netns: u32, room: usize) -> Result<Listing> {
    let (mut sockets, mut listening, mut left_out) = (Vec::new(), HashSet::new(), 0);
    let damaged = sock_diag::list(|socket| match socket.state {
        tcp_state::LISTEN => _ = listening.insert(socket.local.port()),
        _ if is_unaccepted(&socket) => {}
        _ if sockets.len() >= room => left_out += 1,
        _ => sockets.push((features::boot_clock_now(), socket)),
    })?;
    let ephemeral = ephemeral_ports();
    let found = |(at, socket): (u64, Listed)| Found {
        at,
        netns,
        role: role_by_port(socket.local.port(), &listening, &ephemeral),
        socket,
    };
    Ok(Listing { connections: sockets.into_iter().map(found).collect(), left_out, damaged })
}

/// The kernel does not keep who connected. A port that somebody listens on was accepted; a port of the range that
/// connects draw from was connected; else a bound client and a server whose listener is gone look the same: unknown.
fn role_by_port(port: u16, listening: &HashSet<u16>, ephemeral: &RangeInclusive<u16>) -> u8 {
    if listening.contains(&port) {
        role::SERVER
    } else if ephemeral.contains(&port) {
        role::CLIENT
    } else {
        0
    }
}

/// The range of the calling thread's network namespace; the kernel's default if it cannot be read.
fn ephemeral_ports() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_whitespace().map_while(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 32_768..=60_999,
    }
}

/// Without an inode a socket has no descriptor: either it waits to be accepted, or it was closed, and then it is past
/// these states.
fn is_unaccepted(socket: &Listed) -> bool {
    socket.inode == 0 && matches!(socket.state, tcp_state::ESTABLISHED | tcp_state::CLOSE_WAIT)
}

impl Found {
    fn into_open_socket(self, owners: &Owners) -> OpenSocket {
        let Self { at, netns, role, socket } = self;
        let owner = owners.of(socket.inode).unwrap_or(Owner { pid: 0, started_at: 0 });
        let info = TcpInfo(&socket.tcp_info);
        OpenSocket {
            at,
            cookie: socket.cookie,
            pid: owner.pid,
            process_started_at: owner.started_at,
            netns,
            role,
            state: socket.state,
            local: socket.local,
            remote: socket.remote,
            bytes_sent: info.bytes_sent(),
            bytes_received: info.bytes_received(socket.state),
            retransmits: info.retransmits(),
            srtt: info.srtt(),
            keepalive: keepalive(&socket),
            sent_idle: info.sent_idle(),
            received_idle: info.received_idle(socket.state),
        }
    }
}

/// sock_diag shows one running timer. While another runs the keepalive timer is hidden, and after a close the same
/// timer waits for the peer's FIN: only its presence on an open connection tells something.
fn keepalive(socket: &Listed) -> Option<bool> {
    let is_open = matches!(socket.state, tcp_state::ESTABLISHED | tcp_state::CLOSE_WAIT);
    (is_open && socket.keepalive_timer).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_told_by_the_local_port_or_not_at_all() {
        let (listening, ephemeral) = (HashSet::from([443, 40_000]), 32_768..=60_999);
        let roles = [443, 40_000, 40_001, 80].map(|port| role_by_port(port, &listening, &ephemeral));
        assert_eq!(roles, [role::SERVER, role::SERVER, role::CLIENT, 0]);
    }
}
