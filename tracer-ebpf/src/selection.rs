//! Which processes and sockets are traced. Decided before anything else is done for a socket.

use aya_ebpf::helpers::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_pid_tgid};
use tracer_ebpf::{Address, COMM_LEN, MAX_PORTS, MAX_REMOTES, pid, role, select, target};

use crate::{
    identity::own_ids,
    kernel::{access::Probe, sock::Ends, task::Task},
    maps::{TARGETS, config},
};

/// Whether the current process is to be traced.
#[inline(always)]
pub fn current_process_selected() -> bool {
    let by = config!(select);
    by == 0
        || by & select::TARGETS != 0 && current_target_bits() & target::TRACED != 0
        || by & select::COMM != 0 && current_comm().is_some_and(|comm| comm_selected(&comm))
        || by & select::CGROUP != 0 && current_cgroup_selected()
}

/// The `target` bits of the current process, 0 if it is none: user space may have named it by its number in another PID namespace.
#[inline(always)]
pub fn current_target_bits() -> u32 {
    let bits = target_bits((bpf_get_current_pid_tgid() >> 32) as u32);
    if bits != 0 || config!(own_pids) == 0 {
        return bits;
    }
    own_ids().map_or(0, |(tgid, _)| target_bits(pid::OWN | tgid))
}

/// The `target` bits of a process by the key of the map, 0 if it is none.
#[inline(always)]
pub fn target_bits(tgid: u32) -> u32 {
    // SAFETY: a u32 that only whole writes change.
    unsafe { TARGETS.get(tgid) }.copied().unwrap_or(0)
}

/// Whether a process of this name is selected. Compared up to the terminating zero: before 6.x the kernel leaves what an
/// earlier, longer name had behind it.
#[inline(always)]
pub fn comm_selected(comm: &[u8; COMM_LEN]) -> bool {
    let wanted: [u8; COMM_LEN] = config!(comm);
    for (wanted, byte) in wanted.iter().zip(comm) {
        if wanted != byte {
            return false;
        }
        if *wanted == 0 {
            return true;
        }
    }
    true
}

/// Name of the current process (not of its thread).
#[inline(always)]
fn current_comm() -> Option<[u8; COMM_LEN]> {
    Task::<Probe>::current().leader()?.comm()
}

#[inline(always)]
fn current_cgroup_selected() -> bool {
    let level = config!(cgroup_level) as i32;
    // SAFETY: takes a number.
    let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
    ancestor == config!(cgroup_id)
}

/// Whether the role, port and network filters let a connection pass.
#[inline(always)]
pub fn connection_selected(of_role: u8, ends: &Ends) -> bool {
    let wanted = config!(role);
    if wanted != 0 && wanted != u32::from(of_role) {
        return false;
    }
    let service_port = if of_role == role::CLIENT { ends.remote_port } else { ends.local_port };
    port_selected(service_port) && remote_selected(&ends.remote)
}

#[inline(always)]
fn port_selected(port: u16) -> bool {
    let count = config!(port_count) as usize;
    if count == 0 {
        return true;
    }
    for index in 0..MAX_PORTS {
        if index < count && config!(ports[index]) == port {
            return true;
        }
    }
    false
}

#[inline(always)]
fn remote_selected(remote: &Address) -> bool {
    let count = config!(remote_count) as usize;
    if count == 0 {
        return true;
    }
    // SAFETY: same size, every bit pattern is valid.
    let words: [u32; 4] = unsafe { core::mem::transmute(*remote) };
    for index in 0..MAX_REMOTES {
        if index < count && network_contains(index, &words) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn network_contains(index: usize, words: &[u32; 4]) -> bool {
    for (index_in_address, word) in words.iter().enumerate() {
        let mask = config!(remotes[index].mask[index_in_address]);
        if word & mask != config!(remotes[index].network[index_in_address]) {
            return false;
        }
    }
    true
}
