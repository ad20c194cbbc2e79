//! Who is behind a connection: process, thread, name, cgroup of the current task.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_ebpf::{COMM_LEN, SocketRecord};

use crate::kernel::{
    access::{Access, Probe, newer_helpers},
    task::Task,
};

/// Process id and thread id of the current task.
#[inline(always)]
pub fn current_ids() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// Writes the current task into `record` as the connection's owner. What the kernel does not tell stays 0.
#[inline(always)]
pub fn own<A: Access>(record: &mut SocketRecord) {
    (record.tgid, record.tid) = current_ids();
    (record.process_started_at, record.comm) = current_name::<A>();
}

/// Start time and name of the current process; zeros where the kernel does not tell.
#[inline(always)]
pub fn current_name<A: Access>() -> (u64, [u8; COMM_LEN]) {
    // Before 5.11 there is no typed current task, and the verifier refuses direct loads through an untyped pointer:
    // "R1 invalid mem access 'inv'".
    if A::TYPED && newer_helpers() { name_of(Task::<A>::current()) } else { name_of(Task::<Probe>::current()) }
}

#[inline(always)]
fn name_of<A: Access>(task: Task<A>) -> (u64, [u8; COMM_LEN]) {
    match task.leader() {
        Some(leader) => (leader.started_at().unwrap_or(0), leader.comm().unwrap_or([0; COMM_LEN])),
        None => (0, [0; COMM_LEN]),
    }
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
