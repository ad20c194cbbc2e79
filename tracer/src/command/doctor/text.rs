//! The report for people: a name and a value a line.

use std::fmt::Write as _;

use super::{
    report::{Kernel, Libraries, Limits, Report, Rights, SelfTest, Surroundings, Tracing},
    self_test,
};
use crate::{
    output::{escape, units::counted},
    track::record::Hook,
};

/// All of it.
pub fn text(report: &Report) -> String {
    let mut lines = Lines(String::new());
    lines.line("conntracer", report.version);
    kernel(&mut lines, &report.kernel);
    lines.line("lockdown", &no(report, "lockdown").unwrap_or_else(|| "does not stand in the way".to_owned()));
    lines.line("surroundings", &surroundings(&report.surroundings));
    rights(&mut lines, report, &report.rights);
    lines.line("limits", &limits(&report.limits));
    match &report.btf {
        None => lines.line("BTF", &no(report, "BTF").unwrap_or_default()),
        Some(btf) => {
            lines.line("BTF", &format!("{} kernel fields not found", btf.missing_fields.len()));
            btf.missing_fields.iter().for_each(|field| lines.more(&format!("{}: {}", field.name, field.why)));
        }
    }
    match &report.tracing {
        Some(found) => tracing(&mut lines, found),
        None => no(report, "hooks").iter().for_each(|why| lines.line("hooks", why)),
    }
    libraries(&mut lines, &report.libraries);
    match (&report.self_test, no(report, "self-test")) {
        (Some(test), _) => told_self_test(&mut lines, test),
        (None, Some(why)) => lines.line("self-test", &why),
        (None, None) => lines.line("self-test", "not tried"),
    }
    lines.line("verdict", if report.can_trace { "conntracer can trace here" } else { "conntracer cannot trace here" });
    lines.0
}

struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, value: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{name:<22} {value}");
    }

    /// More of what the line above says.
    fn more(&mut self, value: &str) {
        self.line("", value);
    }
}

fn no(report: &Report, what: &str) -> Option<String> {
    report.why_not(what).map(|why| format!("NO: {why}"))
}

fn kernel(lines: &mut Lines, kernel: &Kernel) {
    lines.line("kernel", &format!("{} {}", kernel.release, kernel.machine));
    lines.line("tick", &format!("{} ms", kernel.tick_ms));
    if let Some(preempts) = kernel.preempts_in_hooks {
        lines.line("preemption", if preempts { "possible in a hook" } else { "no matter to a hook" });
    }
}

fn surroundings(found: &Surroundings) -> String {
    let container = match (&found.container, &*found.signs) {
        (Some(name), _) => escape::plain(name),
        (None, []) => "no sign of a container".to_owned(),
        (None, signs) => format!("in a container, by {}", signs.join(" and ")),
    };
    let pids = match (found.is_proc_foreign, found.is_in_host_pids) {
        (true, _) => "/proc of another PID namespace",
        (false, true) => "the host's PIDs",
        (false, false) => "a PID namespace of its own",
    };
    let cgroup = found.cgroup_version.map_or_else(|| "no cgroups".to_owned(), |version| format!("cgroup v{version}"));
    let filter = if found.is_filtered { "; a seccomp filter" } else { "" };
    format!("{container}; {pids}; {cgroup}{filter}")
}

fn rights(lines: &mut Lines, report: &Report, rights: &Rights) {
    lines.line("rights", &no(report, "rights").unwrap_or_else(|| "enough to trace".to_owned()));
    lines.more(&format!("held: {}", if rights.held.is_empty() { "none".to_owned() } else { rights.held.join(", ") }));
    for lack in &rights.lacking {
        lines.more(&format!("without {}: {}: missing is {}", lack.missing.join(", "), lack.feature, lack.without));
    }
    rights.command.iter().for_each(|command| lines.more(&format!("all: {command}")));
}

fn limits(limits: &Limits) -> String {
    let limit =
        |limit: Option<u64>, unit| limit.map_or_else(|| "unlimited".to_owned(), |limit| format!("{limit}{unit}"));
    let mut text = format!(
        "open files {}, locked memory {}, {}",
        limit(limits.open_files, ""),
        limit(limits.locked_memory_kib, " KiB"),
        counted(limits.processors as u64, "processor")
    );
    for setting in &limits.sysctl {
        let _ = write!(text, ", {} {}", setting.name, setting.value);
    }
    text
}

fn tracing(lines: &mut Lines, tracing: &Tracing) {
    lines.line("records kept in", tracing.records_kept_in);
    tracing.hooks.iter().for_each(|one| hook(lines, one));
    match &tracing.probes_refused {
        None => lines.line("libraries", "can be probed"),
        Some(why) => lines.line("libraries", &format!("MISSING ({why})")),
    }
    for program in &tracing.verified {
        let count = program.instructions.map_or_else(|| "-".to_owned(), |count| count.to_string());
        lines.line(&format!("verified {}", program.program), &count);
    }
}

fn hook(lines: &mut Lines, hook: &Hook) {
    let backend = hook.backend.as_deref().unwrap_or("MISSING");
    let reason = hook.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    lines.line(&hook.name, &format!("{backend}{reason}"));
    hook.without.iter().for_each(|without| lines.more(&format!("missing from the output: {without}")));
}

fn libraries(lines: &mut Lines, libraries: &Libraries) {
    lines.line("libraries in use", &format!("{}", libraries.found.len()));
    for found in &libraries.found {
        let users = if found.processes == 1 { "process" } else { "processes" };
        lines.more(&format!("{} {} ({} {users})", found.product, escape::plain(&found.file), found.processes));
    }
    if libraries.unreadable > 0 {
        lines.more(&format!("{} could not be looked at", counted(libraries.unreadable as u64, "file")));
    }
}

fn told_self_test(lines: &mut Lines, test: &SelfTest) {
    let outcome = if test.passed { "passed" } else { "FAILED" };
    lines.line("self-test", &format!("{outcome}: {}; attached in {} ms", self_test::summary(test), test.attach_ms));
    for check in test.checks.iter().filter(|check| !check.right) {
        lines.more(&format!("{}, {}: {}, not {}", check.record, check.field, check.found, check.expected));
    }
}
