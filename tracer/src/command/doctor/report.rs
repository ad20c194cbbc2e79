//! What the doctor found. `--json` is this, field by field: `docs/doctor.md`.

use serde::Serialize;

use crate::track::record::Hook;

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of this program.
    pub version: &'static str,
    /// The kernel.
    pub kernel: Kernel,
    /// Where this process runs.
    pub surroundings: Surroundings,
    /// What it may do.
    pub rights: Rights,
    /// What it is limited to.
    pub limits: Limits,
    /// What the kernel tells of its types; `None` if nothing.
    pub btf: Option<Btf>,
    /// How tracing was loaded and attached; `None` if it was not.
    pub tracing: Option<Tracing>,
    /// The libraries of the processes that run here.
    pub libraries: Libraries,
    /// A connection made and traced; `None` if that was not tried.
    pub self_test: Option<SelfTest>,
    /// Why tracing does not work here.
    pub obstacles: Vec<Obstacle>,
    /// There is none.
    pub can_trace: bool,
}

impl Report {
    /// Notes something that keeps tracing from working.
    pub fn obstacle(&mut self, what: &'static str, why: String) {
        self.obstacles.push(Obstacle { what, why });
    }

    /// Why this does not work, if it does not.
    pub fn why_not(&self, what: &str) -> Option<&str> {
        self.obstacles.iter().find(|obstacle| obstacle.what == what).map(|obstacle| &*obstacle.why)
    }
}

/// Something that keeps tracing from working.
#[derive(Debug, Serialize)]
pub struct Obstacle {
    /// `lockdown`, `rights`, `BTF`, `hooks` or `self-test`.
    pub what: &'static str,
    /// Why, with the way out.
    pub why: String,
}

/// The kernel.
#[derive(Debug, Serialize)]
pub struct Kernel {
    /// As `uname -r`.
    pub release: String,
    /// As `uname -m`.
    pub machine: String,
    /// Length of a tick in milliseconds.
    pub tick_ms: u64,
    /// Whether it may preempt a task in a hook, and then skip that hook elsewhere; `None` if it does not tell.
    pub preempts_in_hooks: Option<bool>,
}

/// Where this process runs.
#[derive(Debug, Serialize)]
pub struct Surroundings {
    /// Container, machine or systemd unit of this process by its cgroup.
    pub container: Option<String>,
    /// Signs of a container that do not name it: a file or a variable that engines set.
    pub signs: Vec<&'static str>,
    /// In the host's PID namespace. In one of its own, processes outside are known by the host's numbers only.
    pub is_in_host_pids: bool,
    /// `/proc` shows another PID namespace than the process is in: no PID means the same in both.
    pub is_proc_foreign: bool,
    /// Under a seccomp filter.
    pub is_filtered: bool,
    /// Version of the cgroup hierarchy: 1, 2, or `None` if none is mounted.
    pub cgroup_version: Option<u8>,
}

/// What this process may do.
#[derive(Debug, Serialize)]
pub struct Rights {
    /// Capabilities in effect that something here makes use of.
    pub held: Vec<String>,
    /// Features that lack some.
    pub lacking: Vec<Lacking>,
    /// The command that gives the program all that is missing; `None` if nothing is.
    pub command: Option<String>,
}

/// A feature that lacks rights.
#[derive(Debug, Serialize)]
pub struct Lacking {
    /// The feature.
    pub feature: &'static str,
    /// The capabilities.
    pub missing: Vec<String>,
    /// What is lost.
    pub without: &'static str,
}

/// What this process is limited to.
#[derive(Debug, Serialize)]
pub struct Limits {
    /// Open files, `ulimit -n`; `None` is no limit.
    pub open_files: Option<u64>,
    /// Locked memory in KiB, `ulimit -l`; `None` is no limit. Kernels before 5.11 count BPF memory against it.
    pub locked_memory_kib: Option<u64>,
    /// Processors that this process may run on.
    pub processors: usize,
    /// Settings of the kernel that have a say in tracing, by their names in sysctl; those that it does not show are left out.
    pub sysctl: Vec<Setting>,
}

/// A setting of the kernel.
#[derive(Debug, Serialize)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: i64,
}

/// What the kernel tells of its types.
#[derive(Debug, Serialize)]
pub struct Btf {
    /// Kernel fields that were not found: values that need them are null.
    pub missing_fields: Vec<MissingField>,
}

impl Btf {
    /// With these fields not found, and why.
    pub fn lacking(missing: &[(&'static str, String)]) -> Self {
        let field = |(name, why): &(&'static str, String)| MissingField { name, why: why.clone() };
        Self { missing_fields: missing.iter().map(field).collect() }
    }
}

/// A kernel field that was not found.
#[derive(Debug, Serialize)]
pub struct MissingField {
    /// Its name.
    pub name: &'static str,
    /// Why.
    pub why: String,
}

/// How tracing was loaded and attached.
#[derive(Debug, Serialize)]
pub struct Tracing {
    /// Where the kernel keeps a connection's state: `socket storage` or `an LRU hash`.
    pub records_kept_in: &'static str,
    /// Every hook, with its backend or the reason that it has none.
    pub hooks: Vec<Hook>,
    /// Why no probe can be put on a library; `None` if they can.
    pub probes_refused: Option<String>,
    /// Instructions that the verifier looked at, by program; only if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<Verified>,
}

/// What the verifier looked at.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// The program.
    pub program: String,
    /// Instructions; `None` if the kernel does not tell.
    pub instructions: Option<u32>,
}

/// The libraries of the processes that run here.
#[derive(Debug, Serialize)]
pub struct Libraries {
    /// TLS and C libraries, the most used first.
    pub found: Vec<FoundLibrary>,
    /// Files that could not be looked at.
    pub unreadable: usize,
}

/// A library in use.
#[derive(Debug, Serialize)]
pub struct FoundLibrary {
    /// Name and version.
    pub product: String,
    /// Its path as the first process that was seen to use it sees it.
    pub file: String,
    /// How many processes use it.
    pub processes: usize,
    /// On how many of its functions probes can be put.
    pub functions: usize,
}

/// A connection made and traced.
#[derive(Debug, Serialize)]
pub struct SelfTest {
    /// It was seen, and all fields were right.
    pub passed: bool,
    /// What was looked at.
    pub checks: Vec<Check>,
    /// From loading the hooks to having them in place, in milliseconds.
    pub attach_ms: u64,
}

/// A field of a record, held against what is known to be true.
#[derive(Debug, Serialize)]
pub struct Check {
    /// Which record: `client`, `server`, or one of their exchanges.
    pub record: String,
    /// Which field, in the words of docs/ndjson.md.
    pub field: &'static str,
    /// The truth.
    pub expected: String,
    /// What was traced.
    pub found: String,
    /// They agree.
    pub right: bool,
}
