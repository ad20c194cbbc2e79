//! Who is behind a connection: process, thread, name, cgroup of the current task.

use aya_ebpf::{
    bindings::{BPF_ANY, bpf_pidns_info},
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_ns_current_pid_tgid},
};
use tracer_ebpf::{COMM_LEN, SocketRecord, pid};

use crate::{
    kernel::{
        access::{Access, Probe, newer_helpers},
        task::Task,
    },
    maps::{HOST_PIDS, config},
};

/// Process id and thread id of the current task, as the tracer's namespace numbers them. One that has none there goes by the kernel's
/// number of its process, marked, and no thread.
#[inline(always)]
pub fn current_ids() -> (u32, u32) {
    if config!(own_pids) == 0 {
        return kernel_ids();
    }
    own_ids().unwrap_or((pid::OUTSIDE | kernel_ids().0, 0))
}

/// The kernel's own numbers.
#[inline(always)]
fn kernel_ids() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// The numbers in the tracer's namespace, if the current task is in that very one.
#[inline(always)]
pub fn own_ids() -> Option<(u32, u32)> {
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    let (device, inode) = (config!(pid_namespace[0]), config!(pid_namespace[1]));
    // SAFETY: the helper fills a struct of this size, which is on the stack.
    let error = unsafe { bpf_get_ns_current_pid_tgid(device, inode, &mut ids, size_of::<bpf_pidns_info>() as u32) };
    (error == 0).then_some((ids.tgid, ids.pid))
}

/// Keeps the kernel's number of the current process for user space, where it goes by another.
#[inline(always)]
pub fn tell_host_pid() {
    if config!(own_pids) == 0 {
        return;
    }
    if let Some((tgid, _)) = own_ids() {
        // Without it, the output lacks a number that few ask for.
        let _ = HOST_PIDS.insert(tgid, kernel_ids().0, u64::from(BPF_ANY));
    }
}

/// Writes the current task into `record` as the connection's owner. What the kernel does not tell stays 0.
#[inline(always)]
pub fn own<A: Access>(record: &mut SocketRecord) {
    (record.tgid, record.tid) = current_ids();
    tell_host_pid();
    (record.process_started_at, record.comm) = current_name::<A>();
}

/// Start time and name of the current process; zeros where the kernel does not tell.
#[inline(always)]
pub fn current_name<A: Access>() -> (u64, [u8; COMM_LEN]) {
    // Before 5.11 there is no typed current task, and the verifier refuses direct loads through an untyped pointer:
    // "R1 invalid mem access 'inv'". The way to another thread's leader is one through the helper: see `Task::leader`.
    if A::TYPED && newer_helpers() && is_leader() {
        return name_of(Task::<A>::current());
    }
    Task::<Probe>::current().leader().map_or((0, [0; COMM_LEN]), name_of)
}

/// Whether the current task is its process's first thread.
#[inline(always)]
fn is_leader() -> bool {
    let (tgid, tid) = kernel_ids();
    tgid == tid
}

#[inline(always)]
fn name_of<A: Access>(leader: Task<A>) -> (u64, [u8; COMM_LEN]) {
    (leader.started_at().unwrap_or(0), leader.comm().unwrap_or([0; COMM_LEN]))
}

/// What the release wants to know of the current task: is it ending, is it a kernel thread.
#[inline(always)]
pub fn current_state<A: Access>() -> (bool, bool) {
    if A::TYPED && newer_helpers() { state_of(Task::<A>::current()) } else { state_of(Task::<Probe>::current()) }
}

#[inline(always)]
fn state_of<A: Access>(task: Task<A>) -> (bool, bool) {
    (task.exiting().unwrap_or(false), task.kernel_thread().unwrap_or(false))
}
