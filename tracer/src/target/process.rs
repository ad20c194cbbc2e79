//! Processes as `/proc` shows them: who a PID is, whether it can be traced, its descendants, PIDs by name.
//!
//! A process may end at any moment between two reads: what is gone is `None` or a [`ProcessError`], never a panic.

use std::{collections::HashSet, fs, io, path::Path};

use rustix::param::clock_ticks_per_second;
use thiserror::Error;

use super::{container, cpu_quota};
use crate::stage::event::Identity;

/// Longest process name that the kernel keeps, in bytes: longer names are cut to it.
pub const COMM_MAX: usize = tracer_ebpf::COMM_LEN - 1;

/// Bit of a task's flags: it is a thread of the kernel itself (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Bit of a task's flags: it is about to end, or has ended (`PF_EXITING`).
const EXITING: u64 = 0x4;

/// Why a PID cannot be traced.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProcessError {
    /// There is none.
    #[error("no process has PID {0}: it may have ended, or belong to another PID namespace")]
    NoSuchProcess(u32),
    /// The number names a thread.
    #[error("{tid} is a thread of {comm}, not a process: use -p {pid}")]
    Thread {
        /// The number given.
        tid: u32,
        /// Its process.
        pid: u32,
        /// The process's name.
        comm: String,
    },
    /// The process has ended; its parent has not asked for its exit status yet.
    #[error("process {pid} ({comm}) has already ended: it is a zombie, and holds no sockets")]
    Zombie {
        /// Process id.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A thread of the kernel.
    #[error("{pid} ({comm}) is a kernel thread: it has no sockets of its own that could be traced")]
    KernelThread {
        /// Its id.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// `/proc` does not let us look, e.g. when mounted with `hidepid`.
    #[error("cannot look at process {pid}: {error}; is /proc mounted with hidepid? try with sudo")]
    Unreadable {
        /// Process id.
        pid: u32,
        /// What the system said.
        error: String,
    },
}

/// The fields of `/proc/PID/stat` that are of use here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    comm: String,
    /// One letter, e.g. `Z` for a zombie.
    state: String,
    parent: u32,
    flags: u64,
    /// Clock ticks (`USER_HZ`, 100 a second) since boot.
    started_ticks: u64,
}

/// Makes sure that a PID names a process that can be traced, and tells who it is.
///
/// # Errors
/// If it does not exist, is a thread, has ended, is the kernel's own, or cannot be looked at.
pub fn check(pid: u32) -> Result<Identity, ProcessError> {
    let stat = match read_stat(pid) {
        Ok(Some(stat)) => stat,
        Ok(None) => return Err(ProcessError::NoSuchProcess(pid)),
        Err(error) => return Err(unreadable(pid, error)),
    };
    if let Some(process) = process_of_thread(pid).filter(|process| *process != pid) {
        let comm = read_stat(process).ok().flatten().map_or(stat.comm, |process| process.comm);
        return Err(ProcessError::Thread { tid: pid, pid: process, comm });
    }
    match stat {
        Stat { comm, flags, .. } if flags & KERNEL_THREAD != 0 => Err(ProcessError::KernelThread { pid, comm }),
        Stat { comm, state, .. } if matches!(state.as_str(), "Z" | "X") => Err(ProcessError::Zombie { pid, comm }),
        stat => Ok(identity_of(pid, stat)),
    }
}

/// Who a process is; `None` if it is gone or cannot be looked at.
pub fn identity(pid: u32) -> Option<Identity> {
    read_stat(pid).ok().flatten().map(|stat| identity_of(pid, stat))
}

/// What a process may use of processors; `None` without a quota, or if it is gone.
pub fn quota(pid: u32) -> Option<cpu_quota::Quota> {
    cpu_quota::of(&cgroups(pid))
}

/// Whether a process has ended, or is about to: each of its threads is. `false` where `/proc` does not let us look.
pub fn has_ended(pid: u32) -> bool {
    match fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => {
            let mut ids = threads.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            ids.all(|tid: u32| has_thread_ended(pid, tid))
        }
        Err(error) => is_gone(&error),
    }
}

fn has_thread_ended(pid: u32, tid: u32) -> bool {
    match read_stat_of(&format!("/proc/{pid}/task/{tid}/stat")) {
        Ok(stat) => stat.is_none_or(|stat| stat.flags & EXITING != 0),
        Err(_) => false,
    }
}

/// Start time of a process on the boot clock in nanoseconds; `None` if it is gone.
///
/// `/proc` counts in ticks of `USER_HZ`, 10 ms, and rounds down, while the BPF side has exact nanoseconds: the two name
/// the same process if they differ by less than [`start_precision`].
pub fn started_at(pid: u32) -> Option<u64> {
    read_stat(pid).ok().flatten().map(|stat| to_nanos(stat.started_ticks))
}

/// Precision of [`started_at`] in nanoseconds: one tick of `USER_HZ`.
pub fn start_precision() -> u64 {
    to_nanos(1)
}

/// All descendants of a process, in no order, without itself. Those that fork meanwhile may be missed.
pub fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = all().into_iter().filter_map(|child| Some((child, parent(child)?))).collect();
    descendants_among(pid, &parents)
}

/// Processes of a name, as `ps -C` finds them. Names longer than [`COMM_MAX`] bytes are compared up to there, since
/// the kernel keeps no more.
pub fn with_comm(comm: &str) -> Vec<u32> {
    let wanted = &comm.as_bytes()[..comm.len().min(COMM_MAX)];
    let is_wanted = |pid: &u32| {
        let bytes = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        bytes.strip_suffix(b"\n").unwrap_or(&bytes) == wanted
    };
    all().into_iter().filter(is_wanted).collect()
}

/// All processes.
pub fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn identity_of(pid: u32, stat: Stat) -> Identity {
    let cgroups = cgroups(pid);
    Identity {
        pid,
        host_pid: None,
        started_at: to_nanos(stat.started_ticks),
        comm: stat.comm,
        exe: fs::read_link(format!("/proc/{pid}/exe")).ok().map(|path| without_deleted(&path)),
        container: container::name(&cgroups),
        quota: cpu_quota::of(&cgroups).map(|quota| quota.limit),
    }
}

/// The text of `/proc/PID/cgroup`; empty if it cannot be read.
fn cgroups(pid: u32) -> String {
    let text = fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// The kernel marks an executable that was replaced while running, as an upgrade does; its path is what is asked for.
fn without_deleted(exe: &Path) -> String {
    let exe = exe.to_string_lossy();
    exe.strip_suffix(" (deleted)").unwrap_or(&exe).to_owned()
}

fn to_nanos(ticks: u64) -> u64 {
    let nanos_a_tick = 1_000_000_000 / clock_ticks_per_second().max(1);
    ticks.saturating_mul(nanos_a_tick)
}

fn parent(pid: u32) -> Option<u32> {
    read_stat(pid).ok().flatten().map(|stat| stat.parent)
}

fn descendants_among(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let (mut seen, mut found, mut next) = (HashSet::from([root]), Vec::new(), 0);
    let mut of = root;
    loop {
        let children = parents.iter().filter(|(_, parent)| *parent == of).map(|(child, _)| *child);
        found.extend(children.filter(|child| seen.insert(*child)));
        let Some(following) = found.get(next) else { return found };
        (of, next) = (*following, next + 1);
    }
}

/// `/proc/TID` exists for threads too, though it is not listed.
fn process_of_thread(tid: u32) -> Option<u32> {
    let status = fs::read(format!("/proc/{tid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// `Ok(None)` if there is no such task.
fn read_stat(pid: u32) -> io::Result<Option<Stat>> {
    read_stat_of(&format!("/proc/{pid}/stat"))
}

fn read_stat_of(path: &str) -> io::Result<Option<Stat>> {
    match fs::read(path) {
        Ok(bytes) => {
            let damaged = || io::Error::other(format!("{path} is not in the known form"));
            parse_stat(&bytes).ok_or_else(damaged).map(Some)
        }
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Also ESRCH: the task went away between open and read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// The name is any bytes in parentheses, parentheses included: fields are counted from the last closing one.
fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let text = String::from_utf8_lossy(bytes);
    let (head, tail) = text.rsplit_once(')')?;
    let (_, comm) = head.split_once('(')?;
    // proc(5) counts fields from 1; `state`, the first after the name, is field 3.
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        comm: comm.to_owned(),
        state: field(3)?.to_owned(),
        parent: field(4)?.parse().ok()?,
        flags: field(9)?.parse().ok()?,
        started_ticks: field(22)?.parse().ok()?,
    })
}

fn unreadable(pid: u32, error: io::Error) -> ProcessError {
    ProcessError::Unreadable { pid, error: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::process::{self, Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::kernel::features;

    #[test]
    fn this_process_is_who_it_is() {
        let identity = check(process::id()).expect("this process can be traced");
        let exe = std::env::current_exe().expect("readable");
        assert_eq!(identity.pid, process::id());
        assert_eq!(identity.exe.as_deref(), exe.to_str());
        assert!(identity.started_at > 0 && identity.started_at <= features::boot_clock_now());
        assert!(with_comm(&identity.comm).contains(&process::id()));
    }

    #[test]
    fn a_pid_that_is_not_there_is_named() {
        let error = check(u32::MAX).expect_err("beyond the largest PID");
        assert_eq!(error, ProcessError::NoSuchProcess(u32::MAX));
    }

    #[test]
    fn a_threads_id_leads_to_its_process() {
        let tid = std::thread::spawn(|| {
            let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
            (tid, check(tid))
        });
        let (tid, checked) = tid.join().expect("no panic");
        let error = checked.expect_err("a thread is no process");
        assert!(
            matches!(error, ProcessError::Thread { tid: t, pid, .. } if t == tid && pid == process::id()),
            "{error}"
        );
    }

    #[test]
    fn a_zombie_and_a_child_are_told_apart() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat starts");
        assert!(descendants(process::id()).contains(&child.id()));
        assert!(check(child.id()).is_ok());
        assert!(!has_ended(child.id()));
        child.kill().expect("killed");
        let is_zombie = || matches!(check(child.id()), Err(ProcessError::Zombie { .. }));
        let waited = (0..500).find(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            is_zombie()
        });
        assert!(waited.is_some(), "the killed child was never a zombie");
        assert!(has_ended(child.id()), "a zombie has ended");
        child.wait().expect("reaped");
        assert!(has_ended(child.id()));
        assert_eq!(check(child.id()), Err(ProcessError::NoSuchProcess(child.id())));
    }

    #[test]
    fn a_process_lives_while_one_of_its_threads_does() {
        // Its first thread ends at once, which leaves a zombie in its place; the other one runs until it is killed.
        let script = "import ctypes, threading, time\n\
                      threading.Thread(target=time.sleep, args=(60,)).start()\n\
                      print(flush=True)\n\
                      ctypes.CDLL(None).pthread_exit(None)";
        let mut child = Command::new("python3").args(["-c", script]).stdout(Stdio::piped()).spawn().expect("python3");
        let leader = format!("/proc/{}/stat", child.id());
        let first_has_ended = || read_stat_of(&leader).ok().flatten().is_some_and(|stat| stat.flags & EXITING != 0);
        let waited = (0..1000).find(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            first_has_ended()
        });
        let ended = has_ended(child.id());
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(waited.is_some(), "the first thread never ended");
        assert!(!ended, "the other thread lives");
    }

    #[test]
    fn names_may_contain_parentheses_and_spaces() {
        let line = b"7 (a) (b c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 0 0";
        let stat = parse_stat(line).expect("well formed");
        assert_eq!((stat.comm.as_str(), stat.state.as_str()), ("a) (b c)", "S"));
        assert_eq!((stat.parent, stat.started_ticks), (1, 4242));
    }

    #[test]
    fn a_replaced_executable_keeps_its_path() {
        assert_eq!(without_deleted(Path::new("/usr/sbin/nginx (deleted)")), "/usr/sbin/nginx");
    }

    #[test]
    fn descendants_end_even_if_parents_go_round_in_circles() {
        let mut found = descendants_among(1, &[(2, 1), (3, 2), (1, 3), (4, 4), (5, 3)]);
        found.sort_unstable();
        assert_eq!(found, [2, 3, 5]);
    }

    proptest! {
        #[test]
        fn no_stat_line_makes_it_panic(bytes: Vec<u8>, tail in "\\PC{0,80}") {
            let _ = parse_stat(&bytes);
            let _ = parse_stat(format!("1 (x) {tail}").as_bytes());
        }
    }
}
