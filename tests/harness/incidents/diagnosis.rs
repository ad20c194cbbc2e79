//! What is found about a group of programs while they run.

use std::process::Command;

use super::page;
use crate::{Cgroup, Trace, Tracer, conntracer, record::Finding, tracer_path};

/// May be found besides in any incident, and rightly so: an emulated processor takes tens of milliseconds, and programs that share
/// it wait for one another, where others take two.
pub const SLOW_MACHINE: &str = "handshake-cpu";

/// A running `conntracer diagnose`.
pub struct Diagnosis {
    tracer: Tracer,
    recording: tempfile::NamedTempFile,
}

impl Diagnosis {
    /// Of the programs of a group, ready to see what comes.
    #[track_caller]
    pub fn of(group: &Cgroup) -> Self {
        let recording = tempfile::NamedTempFile::new().expect("a file");
        let mut command = Command::new(tracer_path());
        command.args(["diagnose", "--format", "ndjson", "--cgroup"]).arg(group.path());
        command.arg("--record").arg(recording.path());
        Self { tracer: Tracer::start(command), recording }
    }

    /// Asks it to end, and returns what it has found.
    #[track_caller]
    pub fn findings(self) -> Findings {
        let trace = self.tracer.stop();
        assert!(trace.status.success(), "{}: {}", trace.status, trace.stderr);
        assert!(trace.summary().losses.is_empty(), "nothing may be lost: {:#?}", trace.summary().losses);
        println!("found {:#?}", trace.findings);
        Findings { trace, recording: self.recording }
    }
}

/// What was found.
pub struct Findings {
    trace: Trace,
    recording: tempfile::NamedTempFile,
}

impl Findings {
    /// Fails unless `docs/incidents.md` shows what people are told of these findings (rule and process name) as it is now, figures
    /// aside.
    #[track_caller]
    pub fn assert_shown(&self, block: &str, wanted: &[(&str, &str)]) {
        let file = self.recording.path().to_str().expect("UTF-8");
        let exit = conntracer(&[], &["diagnose", "--no-color", "--from", file]);
        assert!(exit.status.success(), "{exit:#?}");
        page::assert_shown(block, &page::passages(&exit.stdout, wanted));
    }

    /// All of them.
    pub fn all(&self) -> &[Finding] {
        &self.trace.findings
    }

    /// Whether a process of this name had connections.
    pub fn looked_at(&self, comm: &str) -> bool {
        self.trace.summary().groups.iter().any(|group| group.get("comm").and_then(|name| name.as_str()) == Some(comm))
    }

    /// The one finding of a rule about a process and a destination; fails if there is none, or more than one.
    #[track_caller]
    pub fn one(&self, comm: &str, rule: &str, destination: &str) -> &Finding {
        let is_it = |found: &&Finding| found.comm == comm && found.rule == rule && found.destination == destination;
        let mut found = self.all().iter().filter(is_it);
        match (found.next(), found.next()) {
            (Some(found), None) => {
                found.assert_whole();
                found
            }
            _ => panic!("not one {rule} of {comm} to {destination}: {:#?}", self.all()),
        }
    }

    /// Fails if anything was found about a process but by these rules, or if nothing was seen of it.
    #[track_caller]
    pub fn assert_only(&self, comm: &str, rules: &[&str]) {
        assert!(self.looked_at(comm), "nothing was seen of {comm}");
        let others: Vec<_> =
            self.all().iter().filter(|found| found.comm == comm && !rules.contains(&found.rule.as_str())).collect();
        assert!(others.is_empty(), "{comm} has more than {rules:?}: {others:#?}");
    }
}
