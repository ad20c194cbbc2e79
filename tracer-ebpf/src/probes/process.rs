//! Processes: children of targets are followed, and names are learned. Hooks: the tracepoints `sched_process_fork`,
//! `sched_process_exec`, `sched_process_exit`.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_probe_read_kernel_str_bytes,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tracer_ebpf::{FILENAME_LEN, Loss, ProcessRecord, kind, pid, select, target};

use super::Outcome;
use crate::{
    identity::{current_ids, tell_host_pid},
    kernel::{
        access::{Access, Direct, Pointer, Probe},
        task::Task,
    },
    maps::{TARGETS, config, offset},
    output::{count, now, send_process},
    overlap::{Hook, programs, serve_by_mark},
    selection::{comm_selected, current_target_bits},
};

/// Declares the programs of a tracepoint, typed and not. Its first argument is the task that it is about: what tells its events
/// from each other. A fork that is served twice is the same, and so are the others.
macro_rules! process_programs {
    ($($tracepoint:literal, $hook:ident, $work:ident($($argument:tt),+):
        $typed:ident: $($typed_number:literal $typed_name:ident),+;
        $raw:ident: $($raw_number:literal $raw_name:ident),+;)*) => {$(
        programs! {
            #[btf_tracepoint(function = $tracepoint)]
            $typed(BtfTracePointContext): $($typed_number $typed_name),+
        }

        #[inline(always)]
        fn $typed<const PROGRAM: u32>(ctx: &BtfTracePointContext) -> Outcome {
            serve_by_mark::<PROGRAM>(Hook::$hook, ctx, ctx.arg(0), || $work::<Direct>($(ctx.arg($argument)),+))
        }

        programs! {
            #[raw_tracepoint(tracepoint = $tracepoint)]
            $raw(RawTracePointContext): $($raw_number $raw_name),+
        }

        #[inline(always)]
        fn $raw<const PROGRAM: u32>(ctx: &RawTracePointContext) -> Outcome {
            serve_by_mark::<PROGRAM>(Hook::$hook, ctx, ctx.arg(0), || $work::<Probe>($(ctx.arg($argument)),+))
        }
    )*};
}

process_programs! {
    // (struct task_struct *parent, struct task_struct *child)
    "sched_process_fork", Fork, try_fork(0, 1):
        fork_typed: 1 fork_tp_btf, 2 fork_2_tp_btf, 3 fork_3_tp_btf;
        fork_raw: 1 fork_raw_tp, 2 fork_2_raw_tp, 3 fork_3_raw_tp;
    // (struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
    "sched_process_exec", Exec, try_exec(0, 2):
        exec_typed: 1 exec_tp_btf, 2 exec_2_tp_btf, 3 exec_3_tp_btf;
        exec_raw: 1 exec_raw_tp, 2 exec_2_raw_tp, 3 exec_3_raw_tp;
    // (struct task_struct *p, ...)
    "sched_process_exit", Exit, try_exit(0):
        exit_typed: 1 exit_tp_btf, 2 exit_2_tp_btf, 3 exit_3_tp_btf;
        exit_raw: 1 exit_raw_tp, 2 exit_2_raw_tp, 3 exit_3_raw_tp;
}

/// A child of a followed process becomes a target before it runs.
#[inline(always)]
fn try_fork<A: Access>(parent: Pointer, child: Pointer) -> Outcome {
    let (parent, child) = (Task::<A>::new(parent), Task::<A>::new(child));
    let by = config!(select);
    if by & (select::TARGETS | select::COMM) == 0 {
        return None;
    }
    let child_tgid = child.tgid()?;
    let parent_tgid = parent.tgid()?;
    let new_thread_only = child_tgid == parent_tgid;
    if new_thread_only || !follows(parent) {
        return None;
    }
    make_target(child_tgid);
    Some(())
}

#[inline(always)]
fn follows<A: Access>(parent: Task<A>) -> bool {
    // It is the parent that runs.
    current_target_bits() & target::FOLLOWED != 0 || leader_selected_by_name(parent)
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
fn try_exec<A: Access>(task: Pointer, binprm: Pointer) -> Outcome {
    let task = Task::<A>::new(task);
    let tgid = task.tgid()?;
    if leader_selected_by_name(task) {
        make_target(tgid);
    }
    if config!(select) & select::TARGETS != 0 && current_target_bits() & target::TRACED == 0 {
        return None;
    }
    tell_host_pid();
    let mut record = describe(task, kind::EXEC)?;
    let filename: Pointer = A::read(binprm, offset!(binprm_filename))?;
    // SAFETY: the helper checks the address; an unreadable path stays empty.
    let _ = unsafe { bpf_probe_read_kernel_str_bytes(filename.cast(), &mut record.filename) };
    send_process(&record);
    Some(())
}

/// A target that is gone must not lend its number to a stranger. The task that ends is the one that runs.
#[inline(always)]
fn try_exit<A: Access>(task: Pointer) -> Outcome {
    let task = Task::<A>::new(task);
    if config!(select) & select::TARGETS == 0 || !task.last_of_process()? {
        return None;
    }
    let tgid = task.tgid()?;
    if current_target_bits() & target::TRACED == 0 {
        return None;
    }
    let _ = TARGETS.remove(tgid);
    if config!(own_pids) != 0 {
        let _ = TARGETS.remove(pid::OWN | current_ids().0);
    }
    send_process(&describe(task, kind::EXIT)?);
    Some(())
}

/// The current task's process, of which `task` is a thread.
#[inline(always)]
fn describe<A: Access>(task: Task<A>, kind: u32) -> Option<ProcessRecord> {
    let leader = task.leader()?;
    Some(ProcessRecord {
        kind,
        tgid: current_ids().0,
        at: now(),
        process_started_at: leader.started_at()?,
        comm: leader.comm()?,
        filename: [0; FILENAME_LEN],
    })
}
