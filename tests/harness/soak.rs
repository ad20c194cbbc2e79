//! Programs under steady load while traces with probes on their TLS libraries come and go: no request may fail, no program may
//! end, nothing may stay behind, and each HTTP head must be told of the connection that it passed on.

mod breakpoints;
mod joins;
mod load;

use std::{
    fmt::{self, Write as _},
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

pub use self::{
    joins::Joins,
    load::{Done, Load},
};
use crate::{programs::LoadedPrograms, tracer::Tracer, tracer::parse_lines};

/// How long a trace stays attached.
const ATTACHED: Duration = Duration::from_secs(10);

/// How long the programs are left alone after it.
const DETACHED: Duration = Duration::from_secs(1);

/// Until a trace that says that it traces has its probes in place.
const PUTTING_ON: Duration = Duration::from_secs(10);

/// Fewer traces would not have come and gone.
const FEWEST_TRACES: usize = 2;

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// From the first attach to the last detach.
    pub took: Duration,
    /// How many traces there were.
    pub traces: usize,
    /// Fewest breakpoints that a trace had in the programs' code, all programs together.
    pub breakpoints: usize,
    /// What the traces said of HTTP heads.
    pub joins: Joins,
    /// What each program said at its end.
    pub programs: Vec<(&'static str, Done)>,
    /// All that must not be.
    pub failures: Vec<String>,
}

/// Puts the programs under load, and traces them again and again until `length` has passed.
#[track_caller]
pub fn soak(length: Duration) -> Report {
    let dir = tempfile::tempdir().expect("a folder");
    let before = LoadedPrograms::now();
    let mut load = Load::start();
    let mut report = Report { breakpoints: usize::MAX, ..Report::default() };
    let began = Instant::now();
    while began.elapsed() < length || report.traces < FEWEST_TRACES {
        trace_once(&load, &dir.path().join("trace.ndjson"), &mut report);
        LoadedPrograms::await_nothing_beyond(&before);
        report.failures.extend(load.ended());
        thread::sleep(DETACHED);
    }
    report.took = began.elapsed();
    load.await_requests();
    report.programs = load.stop();
    report.failures.extend(failures_of(&report.programs));
    report
}

/// Attaches, waits, detaches, and looks at what came of it.
fn trace_once(load: &Load, file: &Path, report: &mut Report) {
    let pids: Vec<u32> = load.pids().collect();
    let words: Vec<String> = pids.iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]).collect();
    let mut args = vec!["--ssl", "--verbose", "--output", file.to_str().expect("a path in UTF-8")];
    args.extend(words.iter().map(String::as_str));
    let tracer = Tracer::trace(&args);
    let breakpoints = || pids.iter().map(|pid| breakpoints::count(*pid)).collect::<Vec<_>>();
    let began = Instant::now();
    let mut found = breakpoints();
    while found.contains(&0) && began.elapsed() < PUTTING_ON {
        found = breakpoints();
    }
    report.breakpoints = report.breakpoints.min(found.iter().sum());
    thread::sleep(ATTACHED);
    tracer.signal(Signal::SIGINT);
    let trace = tracer.await_end();
    let failures = &mut report.failures;
    let number = report.traces;
    let mut check = |holds: bool, what: String| {
        if !holds {
            failures.push(format!("trace {number}: {what}"))
        }
    };
    check(trace.status.success(), format!("it ended with {}: {}", trace.status, trace.stderr));
    for ((pid, name), found) in pids.iter().zip(load.names()).zip(found) {
        check(found > 0, format!("no breakpoint came into the code of {name}: {}", trace.stderr));
        let left = breakpoints::count(*pid);
        check(left == 0, format!("{left} breakpoints stay in the code of {name}"));
    }
    let lines = parse_lines(&fs::read_to_string(file).expect("the trace's output"));
    let joins = Joins::of(&lines);
    for (pid, name) in pids.iter().zip(load.names()) {
        check(joins.heads.contains_key(pid), format!("no HTTP head of {name}: {}", trace.stderr));
    }
    joins.mistakes.iter().for_each(|mistake| check(false, mistake.clone()));
    report.joins += joins;
    report.traces += 1;
}

fn failures_of<'p>(programs: &'p [(&'static str, Done)]) -> impl Iterator<Item = String> + use<'p> {
    programs.iter().filter_map(|(name, done)| {
        let Done { requests, failed, errors, .. } = done;
        (*failed > 0 || *requests == 0).then(|| format!("{name}: {failed} of {requests} requests failed: {errors:?}"))
    })
}

impl Report {
    /// Requests that the clients made, and how many of them failed.
    pub fn requests(&self) -> (u64, u64) {
        let clients = self.programs.iter().filter(|(name, _)| name.ends_with("client"));
        clients.fold((0, 0), |(made, failed), (_, done)| (made + done.requests, failed + done.failed))
    }
}

/// A line for each program, one for the traces, and the verdict in the last.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, done) in &self.programs {
            let Done { requests, failed, connections, slowest_ms, .. } = done;
            write!(f, "{name}: {requests} requests on {connections} connections, {failed} failed")?;
            if *slowest_ms > 0.0 {
                write!(f, ", the slowest took {slowest_ms:.0} ms")?;
            }
            writeln!(f)?;
        }
        let Self { took, traces, breakpoints, joins, failures, .. } = self;
        let mut losses = String::new();
        for (cause, count) in &joins.losses {
            let _ = write!(losses, ", {count} {cause}");
        }
        let losses = if losses.is_empty() { "nothing".to_owned() } else { losses.trim_start_matches(", ").to_owned() };
        writeln!(
            f,
            "traces: {} exchanges, {} with HTTP heads, {} of those with the head of the exchange before or after, {} before their `open` \
             line; at least {breakpoints} breakpoints a trace; lost: {losses}",
            joins.exchanges,
            joins.with_head(),
            joins.displaced,
            joins.early,
        )?;
        let (made, failed) = self.requests();
        let verdict = if failures.is_empty() { "PASS" } else { "FAIL" };
        write!(
            f,
            "{verdict}: {made} requests of Node and Go, {failed} failed, while {traces} traces came and went in {:.0} s; no program \
             ended: {}; heads on a wrong connection: {}",
            took.as_secs_f64(),
            if failures.iter().any(|failure| failure.contains("has ended")) { "no" } else { "yes" },
            joins.wrong,
        )
    }
}
