//! `struct task_struct`.

use core::marker::PhantomData;

use aya_ebpf::helpers::{bpf_get_current_task_btf, generated::bpf_task_pt_regs};
use tracer_ebpf::{COMM_LEN, MISSING};

use super::{
    access::{Access, Pointer, Probe},
    registers::{Registers, STACK_POINTER, THREAD_SIZE},
    sock::join,
};
use crate::maps::offset;

/// The task is ending; its files are closed by the kernel (`include/linux/sched.h`).
const PF_EXITING: u32 = 0x4;
/// A kernel thread.
const PF_KTHREAD: u32 = 0x0020_0000;

/// A thread, read by `A`.
#[derive(Clone, Copy)]
pub struct Task<A> {
    pointer: Pointer,
    access: PhantomData<A>,
}

impl<A: Access> Task<A> {
    #[inline(always)]
    pub fn new(pointer: Pointer) -> Self {
        Self { pointer, access: PhantomData }
    }

    /// The thread that runs now.
    #[inline(always)]
    pub fn current() -> Self {
        Self::new(A::current_task())
    }

    /// First thread of the process: it carries the process's name and start time. Through the helper: see
    /// [`Sock::as_tcp`](super::sock::Sock::as_tcp).
    #[inline(always)]
    pub fn leader(self) -> Option<Task<Probe>> {
        Probe::read(self.pointer, offset!(task_group_leader)).map(Task::new)
    }

    /// Process id.
    #[inline(always)]
    pub fn tgid(self) -> Option<u32> {
        A::read(self.pointer, offset!(task_tgid))
    }

    /// The process's `struct files_struct`.
    #[inline(always)]
    pub fn files(self) -> Option<Pointer> {
        A::read(self.pointer, offset!(task_files))
    }

    /// Start time, boot clock, nanoseconds.
    #[inline(always)]
    pub fn started_at(self) -> Option<u64> {
        A::read(self.pointer, offset!(task_start_boottime))
    }

    /// Name.
    #[inline(always)]
    pub fn comm(self) -> Option<[u8; COMM_LEN]> {
        let offset = offset!(task_comm);
        if offset == MISSING {
            return None;
        }
        Some(join(A::read(self.pointer, offset)?, A::read(self.pointer, offset + 8)?))
    }

    /// Nanoseconds that the thread has run, on a scale whose zero does not matter. The kernel brings its own count up to date
    /// at ticks and switches only; what has run since is added, from the scheduler's clock then to `now` of ours, and the
    /// difference of the two clocks drops out of any difference of two values.
    #[inline(always)]
    pub fn ran(self, now: u64) -> Option<u64> {
        let counted: u64 = A::read(self.pointer, offset!(task_runtime))?;
        let counted_at: u64 = A::read(self.pointer, offset!(task_exec_start))?;
        Some(counted.wrapping_add(now).wrapping_sub(counted_at))
    }

    /// Nanoseconds that the thread could have run and did not: queued behind others, or throttled by its cgroup.
    #[inline(always)]
    pub fn waited(self) -> Option<u64> {
        A::read(self.pointer, offset!(task_run_delay))
    }

    /// Whether the task is ending.
    #[inline(always)]
    pub fn exiting(self) -> Option<bool> {
        self.flag(PF_EXITING)
    }

    /// Whether it is a kernel thread.
    #[inline(always)]
    pub fn kernel_thread(self) -> Option<bool> {
        self.flag(PF_KTHREAD)
    }

    #[inline(always)]
    fn flag(self, bit: u32) -> Option<bool> {
        A::read::<u32>(self.pointer, offset!(task_flags)).map(|flags| flags & bit != 0)
    }

    /// Whether this was the last running thread of its process; asked in the exit hook.
    #[inline(always)]
    pub fn last_of_process(self) -> Option<bool> {
        // Through the helper, like the leader.
        let signal: Pointer = Probe::read(self.pointer, offset!(task_signal))?;
        Probe::read::<i32>(signal, offset!(signal_live)).map(|live| live <= 0)
    }
}

/// The current thread's stack pointer in user space, in a system call.
#[inline(always)]
pub fn user_stack() -> Option<u64> {
    let registers = if offset!(task_pt_regs) == MISSING {
        let stack: u64 = Probe::read(Probe::current_task(), offset!(task_stack))?;
        stack + THREAD_SIZE? - size_of::<Registers>() as u64
    } else {
        // SAFETY: the verifier holds the argument to be a task.
        unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
    };
    Probe::read(registers as Pointer, STACK_POINTER)
}
