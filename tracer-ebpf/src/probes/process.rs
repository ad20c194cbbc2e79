//! Processes: children of targets are followed, and names are learned. Hooks: the tracepoints `sched_process_fork`,
//! `sched_process_exec`, `sched_process_exit`.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_probe_read_kernel_str_bytes,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tracer_ebpf::{FILENAME_LEN, Loss, ProcessRecord, kind, select, target};

use super::Outcome;
use crate::{
    kernel::{
        access::{Access, Direct, Pointer, Probe},
        task::Task,
    },
    maps::{TARGETS, config, offset},
    output::{count, now, send_process},
    selection::{comm_selected, target_bits},
};

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub fn fork_tp_btf(ctx: BtfTracePointContext) -> i32 {
    let _ = try_fork(Task::<Direct>::new(ctx.arg(0)), Task::<Direct>::new(ctx.arg(1)));
    0
}

#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn fork_raw_tp(ctx: RawTracePointContext) -> i32 {
    let _ = try_fork(Task::<Probe>::new(ctx.arg(0)), Task::<Probe>::new(ctx.arg(1)));
    0
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[btf_tracepoint(function = "sched_process_exec")]
pub fn exec_tp_btf(ctx: BtfTracePointContext) -> i32 {
    let _ = try_exec::<Direct>(Task::new(ctx.arg(0)), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec_raw_tp(ctx: RawTracePointContext) -> i32 {
    let _ = try_exec::<Probe>(Task::new(ctx.arg(0)), ctx.arg(2));
    0
}

/// `sched_process_exit(struct task_struct *p, ...)`
#[btf_tracepoint(function = "sched_process_exit")]
pub fn exit_tp_btf(ctx: BtfTracePointContext) -> i32 {
    let _ = try_exit(Task::<Direct>::new(ctx.arg(0)));
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exit_raw_tp(ctx: RawTracePointContext) -> i32 {
    let _ = try_exit(Task::<Probe>::new(ctx.arg(0)));
    0
}

/// A child of a followed process becomes a target before it runs.
#[inline(always)]
fn try_fork<A: Access>(parent: Task<A>, child: Task<A>) -> Outcome {
    let by = config!(select);
    if by & (select::TARGETS | select::COMM) == 0 {
        return None;
    }
    let child_tgid = child.tgid()?;
    let parent_tgid = parent.tgid()?;
    let new_thread_only = child_tgid == parent_tgid;
    if new_thread_only || !follows(parent, parent_tgid) {
        return None;
    }
    make_target(child_tgid);
    Some(())
}

#[inline(always)]
fn follows<A: Access>(parent: Task<A>, parent_tgid: u32) -> bool {
    target_bits(parent_tgid) & target::FOLLOWED != 0 || leader_selected_by_name(parent)
}

#[inline(always)]
fn leader_selected_by_name<A: Access>(task: Task<A>) -> bool {
    config!(select) & select::COMM != 0
        && task.leader().and_then(|leader| leader.comm()).is_some_and(|comm| comm_selected(&comm))
}

#[inline(always)]
fn make_target(tgid: u32) {
    if TARGETS.insert(tgid, target::TRACED | target::FOLLOWED, u64::from(BPF_ANY)).is_err() {
        count(Loss::TargetsFull);
    }
}

/// Tells the new name and path, so that a process that is gone when user space looks can still be named.
#[inline(always)]
fn try_exec<A: Access>(task: Task<A>, binprm: Pointer) -> Outcome {
    let tgid = task.tgid()?;
    if leader_selected_by_name(task) {
        make_target(tgid);
    }
    if config!(select) & select::TARGETS != 0 && target_bits(tgid) & target::TRACED == 0 {
        return None;
    }
    let mut record = describe(task, tgid, kind::EXEC)?;
    let filename: Pointer = A::read(binprm, offset!(binprm_filename))?;
    // SAFETY: the helper checks the address; an unreadable path stays empty.
    let _ = unsafe { bpf_probe_read_kernel_str_bytes(filename.cast(), &mut record.filename) };
    send_process(&record);
    Some(())
}

/// A target that is gone must not lend its number to a stranger.
#[inline(always)]
fn try_exit<A: Access>(task: Task<A>) -> Outcome {
    if config!(select) & select::TARGETS == 0 || !task.last_of_process()? {
        return None;
    }
    let tgid = task.tgid()?;
    if target_bits(tgid) & target::TRACED == 0 {
        return None;
    }
    let _ = TARGETS.remove(tgid);
    send_process(&describe(task, tgid, kind::EXIT)?);
    Some(())
}

#[inline(always)]
fn describe<A: Access>(task: Task<A>, tgid: u32, kind: u32) -> Option<ProcessRecord> {
    let leader = task.leader()?;
    Some(ProcessRecord {
        kind,
        tgid,
        at: now(),
        process_started_at: leader.started_at()?,
        comm: leader.comm()?,
        filename: [0; FILENAME_LEN],
    })
}
