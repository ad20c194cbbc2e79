//! `conntracer doctor`: what this kernel and these rights allow, and whether tracing works: what support asks for first.

mod hooks;
mod libraries;
mod limits;
mod report;
mod rights;
mod self_test;
mod surroundings;
mod text;

use std::io::{self, Write as _};

use anyhow::Result;

use self::report::{Btf, Kernel, Report};

use crate::{
    cli,
    kernel::{btf, features, offsets},
};

/// Prints the report. Returns whether tracing works here.
///
/// # Errors
/// If the report cannot be written.
pub async fn doctor(options: &cli::Doctor) -> Result<bool> {
    let report = look_at_all(options).await;
    let mut out = io::stdout();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        out.write_all(text::text(&report).as_bytes())?;
    }
    Ok(report.can_trace)
}

async fn look_at_all(options: &cli::Doctor) -> Report {
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: Kernel {
            release: features::release(),
            machine: features::machine(),
            tick_ms: features::tick_length() / 1_000_000,
            preempts_in_hooks: None,
        },
        surroundings: surroundings::look(),
        rights: rights::look(),
        limits: limits::look(),
        btf: None,
        tracing: None,
        libraries: libraries::look(),
        self_test: None,
        obstacles: Vec::new(),
        can_trace: false,
    };
    if let Some(why) = features::lockdown().obstacle() {
        report.obstacle("lockdown", why.to_owned());
    }
    if let Some(why) = rights::obstacle() {
        report.obstacle("rights", why);
    }
    match btf::Btf::of_running_kernel() {
        Err(error) => report.obstacle("BTF", format!("{:#}", anyhow::Error::from(error))),
        Ok(btf) => {
            let resolved = offsets::resolve(&btf);
            report.kernel.preempts_in_hooks = Some(features::may_skip_hooks(&btf));
            report.btf = Some(Btf::lacking(&resolved.missing));
            if report.obstacles.is_empty() {
                match hooks::try_all(options, &btf, resolved.offsets) {
                    Ok(tracing) => report.tracing = Some(tracing),
                    Err(error) => report.obstacle("hooks", format!("{error:#}")),
                }
            }
        }
    }
    // The verifier's counts are asked for with every program that there is, which is no way to trace.
    // With a foreign /proc no process can be named, the doctor itself no more than others.
    let can_be_named = !report.surroundings.is_proc_foreign;
    if report.tracing.is_some() && can_be_named && !options.no_self_test && !options.verifier {
        match self_test::run(options).await {
            Ok(outcome) => {
                if !outcome.passed {
                    report.obstacle("self-test", self_test::summary(&outcome));
                }
                report.self_test = Some(outcome);
            }
            Err(error) => report.obstacle("self-test", format!("{error:#}")),
        }
    }
    report.can_trace = report.obstacles.is_empty();
    report
}
