//! The processes that connections belong to, by PID and start time: PIDs are reused.

use std::rc::Rc;

use foldhash::fast::RandomState;
use hashlink::LinkedHashMap;
use tracer_ebpf::{ProcessRecord, SocketRecord, kind};

use super::record::Process;
use crate::stage::event::Identity;

/// `/proc` gives start times in hundredths of a second, the kernel side in nanoseconds.
const START_TOLERANCE_NS: u64 = 10_000_000;

/// Processes that take no look-up.
const RECENT: usize = 8;

/// The newest process of each PID; those longest unused go first when it is full. Connections keep theirs alive by
/// themselves.
pub(super) struct Processes {
    by_pid: LinkedHashMap<u32, Rc<Process>, RandomState>,
    /// Those asked for last, by the remainder of their PID: most events come from few.
    recent: [Option<Rc<Process>>; RECENT],
    max: usize,
}

impl Processes {
    pub fn new(max: usize) -> Self {
        Self { by_pid: LinkedHashMap::with_hasher(RandomState::default()), recent: Default::default(), max: max.max(1) }
    }

    /// Most that are remembered.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Takes in what `/proc` says.
    pub fn identify(&mut self, identity: &Identity) {
        let Identity { pid, host_pid, started_at, comm, exe, container, quota } = identity.clone();
        // Of a zombie `/proc` tells hardly more than its name; the execve before may have told more.
        let before = self.by_pid.get(&pid);
        let before = before.filter(|process| same_start(process.started_at, started_at) && process.comm == comm);
        let exe = exe.or_else(|| before.and_then(|process| process.exe.clone()));
        let container = container.or_else(|| before.and_then(|process| process.container.clone()));
        self.put(Process { pid, host_pid, started_at, comm, exe, container, quota });
    }

    /// Takes in an execve or an exit.
    pub fn change(&mut self, record: &ProcessRecord) {
        match record.kind {
            kind::EXEC => self.exec(record),
            // Its last connections close after this, so it is not forgotten at once, only first.
            kind::EXIT => {
                self.by_pid.to_front(&record.tgid);
            }
            _ => {}
        }
    }

    /// The owner that a socket's record names.
    #[inline(always)]
    pub fn owner(&mut self, record: &SocketRecord) -> Rc<Process> {
        self.get_or_name(record.tgid, record.process_started_at, &record.comm)
    }

    /// The process that asked for a name.
    pub fn named(&mut self, pid: u32, started_at: u64, comm: &str) -> Rc<Process> {
        self.get_or_name(pid, started_at, comm.as_bytes())
    }

    /// The process of a PID; one without a name if it is not known.
    pub fn find(&mut self, pid: u32, started_at: u64) -> Rc<Process> {
        self.get_or_name(pid, started_at, &[])
    }

    /// The process if it is known; else one by the name that its thread had.
    #[inline(always)]
    fn get_or_name(&mut self, pid: u32, started_at: u64, comm: &[u8]) -> Rc<Process> {
        let place = pid as usize % RECENT;
        if let Some(process) = &self.recent[place]
            && process.pid == pid
            && is_meant(process, started_at, comm)
        {
            return Rc::clone(process);
        }
        self.look_up(pid, started_at, comm)
    }

    /// As [`get_or_name`](Self::get_or_name), if it is not one of the recent.
    #[inline(never)]
    fn look_up(&mut self, pid: u32, started_at: u64, comm: &[u8]) -> Rc<Process> {
        let named = |comm| Process { pid, started_at, comm: text(comm), ..Process::default() };
        if let Some(process) = self.by_pid.to_back(&pid) {
            if is_meant(process, started_at, comm) {
                self.recent[pid as usize % RECENT] = Some(Rc::clone(process));
                return Rc::clone(process);
            }
            if process.started_at > started_at && started_at != 0 {
                // A late word on an earlier process of this PID: not worth the newer one's place.
                return Rc::new(named(comm));
            }
        }
        self.put(named(comm))
    }

    /// The same process under a new name; its container and quota stay.
    fn exec(&mut self, record: &ProcessRecord) {
        let before = self.by_pid.get(&record.tgid);
        let before = before.filter(|process| same_start(process.started_at, record.process_started_at));
        let container = before.and_then(|process| process.container.clone());
        let quota = before.and_then(|process| process.quota);
        let host_pid = before.and_then(|process| process.host_pid);
        let exe = Some(text(&record.filename)).filter(|path| !path.is_empty());
        let (pid, started_at, comm) = (record.tgid, record.process_started_at, text(&record.comm));
        self.put(Process { pid, host_pid, started_at, comm, exe, container, quota });
    }

    fn put(&mut self, process: Process) -> Rc<Process> {
        let process = Rc::new(process);
        self.recent[process.pid as usize % RECENT] = None;
        self.by_pid.insert(process.pid, Rc::clone(&process));
        while self.by_pid.len() > self.max {
            self.by_pid.pop_front();
        }
        process
    }

    /// Forgets one in so many, those unused for longest. Returns whether there were any.
    pub fn forget_oldest(&mut self, one_in: usize) -> bool {
        let forgotten = self.by_pid.len().div_ceil(one_in);
        (0..forgotten).for_each(|_| drop(self.by_pid.pop_front()));
        self.recent = Default::default();
        forgotten > 0
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_pid.len()
    }
}

/// Whether it is the process that started then, and there is no name for one that had none.
#[inline]
fn is_meant(process: &Process, started_at: u64, comm: &[u8]) -> bool {
    let has_news = process.comm.is_empty() && comm.first().is_some_and(|byte| *byte != 0);
    same_start(process.started_at, started_at) && !has_news
}

/// Whether two start times are of one process; 0 is unknown and fits any.
pub(super) fn same_start(a: u64, b: u64) -> bool {
    a == 0 || b == 0 || a.abs_diff(b) <= START_TOLERANCE_NS
}

/// A zero-terminated string of the kernel, which may hold any bytes.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn identity(pid: u32, started_at: u64, comm: &str) -> Identity {
        Identity {
            pid,
            host_pid: None,
            started_at,
            comm: comm.into(),
            exe: None,
            container: Some("box".into()),
            quota: None,
        }
    }

    fn socket(tgid: u32, process_started_at: u64, comm: &[u8]) -> SocketRecord {
        let mut record = SocketRecord { tgid, process_started_at, ..SocketRecord::new_zeroed() };
        record.comm[..comm.len()].copy_from_slice(comm);
        record
    }

    fn exec(tgid: u32, process_started_at: u64, comm: &[u8], path: &[u8]) -> ProcessRecord {
        let mut record = ProcessRecord { kind: kind::EXEC, tgid, process_started_at, ..ProcessRecord::new_zeroed() };
        record.comm[..comm.len()].copy_from_slice(comm);
        record.filename[..path.len()].copy_from_slice(path);
        record
    }

    #[test]
    fn an_identity_names_the_owner_within_the_tolerance_of_proc() {
        let mut processes = Processes::new(10);
        processes.identify(&identity(1, 1_000_000_000, "java"));
        assert_eq!(processes.owner(&socket(1, 1_009_000_000, b"thread-7")).comm, "java");
        assert_eq!(processes.owner(&socket(1, 1_020_000_000, b"curl")).comm, "curl");
    }

    #[test]
    fn without_an_identity_the_record_names_the_owner() {
        let mut processes = Processes::new(10);
        assert_eq!(processes.owner(&socket(1, 5, b"cu\xffrl")).comm, "cu\u{fffd}rl");
    }

    #[test]
    fn a_late_word_on_an_earlier_process_does_not_replace_the_later() {
        let mut processes = Processes::new(10);
        processes.identify(&identity(1, 50_000_000_000, "new"));
        assert_eq!(processes.owner(&socket(1, 1_000_000_000, b"old")).comm, "old");
        assert_eq!(processes.owner(&socket(1, 50_000_000_000, b"")).comm, "new");
    }

    #[test]
    fn an_exec_renames_and_keeps_the_container() {
        let mut processes = Processes::new(10);
        processes.identify(&identity(1, 1_000_000_000, "sh"));
        processes.change(&exec(1, 1_000_000_000, b"curl", b"/usr/bin/curl"));
        let process = processes.find(1, 1_000_000_000);
        assert_eq!((process.comm.as_str(), process.exe.as_deref()), ("curl", Some("/usr/bin/curl")));
        assert_eq!(process.container.as_deref(), Some("box"));
    }

    #[test]
    fn a_look_at_a_zombie_does_not_forget_what_the_execve_told() {
        let mut processes = Processes::new(10);
        processes.change(&exec(1, 1_000_000_000, b"curl", b"/usr/bin/curl"));
        processes.identify(&Identity { container: None, ..identity(1, 1_000_000_000, "curl") });
        assert_eq!(processes.find(1, 1_000_000_000).exe.as_deref(), Some("/usr/bin/curl"));
    }

    #[test]
    fn when_full_the_exited_go_first() {
        let mut processes = Processes::new(2);
        processes.identify(&identity(1, 1, "one"));
        processes.identify(&identity(2, 1, "two"));
        processes.change(&ProcessRecord { kind: kind::EXIT, tgid: 2, ..ProcessRecord::new_zeroed() });
        processes.identify(&identity(3, 1, "three"));
        assert_eq!(processes.len(), 2);
        assert_eq!(processes.find(1, 1).comm, "one");
        assert_eq!(processes.find(2, 1).comm, "");
    }
}
