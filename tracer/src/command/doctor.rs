//! `conntracer doctor`: what this kernel and these privileges allow.

use std::fmt::Write as _;

use anyhow::Result;
use tracer_ebpf::{Config, detail};

use crate::{
    bpf::{self, Settings, library_probes::LibraryProbes, trial},
    cli,
    kernel::{btf::Btf, features, offsets},
    rights::{FEATURES, Held, Right, advice, table},
    track::record::Hook,
};

/// What was found.
struct Report {
    text: String,
    can_trace: bool,
}

/// Prints the report. Returns whether tracing works here.
///
/// # Errors
/// If the report cannot be written.
pub fn doctor(options: &cli::Doctor) -> Result<bool> {
    let mut report = Report { text: String::new(), can_trace: true };
    report.machine();
    report.privileges();
    report.hooks(options);
    let verdict = if report.can_trace { "conntracer can trace here" } else { "conntracer cannot trace here" };
    report.line("verdict", verdict);
    std::io::Write::write_all(&mut std::io::stdout(), report.text.as_bytes())?;
    Ok(report.can_trace)
}

impl Report {
    fn line(&mut self, name: &str, value: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{name:<22} {value}");
    }

    fn obstacle(&mut self, name: &str, obstacle: &str) {
        self.can_trace = false;
        self.line(name, &format!("NO: {obstacle}"));
    }

    fn machine(&mut self) {
        self.line("kernel", &format!("{} {}", features::release(), features::machine()));
        self.line("tick", &format!("{} ms", features::tick_length() / 1_000_000));
        match features::lockdown().obstacle() {
            Some(obstacle) => self.obstacle("lockdown", obstacle),
            None => self.line("lockdown", "does not stand in the way"),
        }
    }

    fn privileges(&mut self) {
        let held = Held::at_start();
        match advice::obstacle(held, &advice::own_path()) {
            Some(obstacle) => self.obstacle("rights", &obstacle),
            None => self.line("rights", "enough to trace"),
        }
        let lacking: Vec<_> = FEATURES.iter().filter(|feature| !held.missing_for(feature).is_empty()).collect();
        for feature in &lacking {
            let missing: Vec<_> = held.missing_for(feature).into_iter().map(Right::name).collect();
            self.line("", &format!("without {}: {}: missing is {}", missing.join(", "), feature.name, feature.without));
        }
        if !lacking.is_empty() {
            self.line("", &format!("all: {}", advice::setcap(held, lacking.iter().copied(), &advice::own_path())));
        }
    }

    fn hooks(&mut self, options: &cli::Doctor) {
        let btf = match Btf::of_running_kernel() {
            Ok(btf) => btf,
            Err(error) => return self.obstacle("BTF", &format!("{:#}", anyhow::Error::from(error))),
        };
        let resolved = offsets::resolve(&btf);
        self.line("BTF", &format!("{} kernel fields not found", resolved.missing.len()));
        for (field, reason) in &resolved.missing {
            self.line("", &format!("{field}: {reason}"));
        }
        let hooks = if features::may_skip_hooks(&btf) { "possible in a hook" } else { "no matter to a hook" };
        self.line("preemption", hooks);
        if !self.can_trace {
            return;
        }
        // Where raising the limit fails, loading says so.
        let _ = features::lift_memlock_limit();
        let settings = Settings {
            config: Config { detail: detail::EXCHANGES, ssl: 1, heads: 1, ..Config::EVERYTHING },
            offsets: resolved.offsets,
            backend: options.backend,
            // Every program is to be looked at, not only those that this kernel would get.
            preemptible: options.verifier || features::may_skip_hooks(&btf),
            without: options.without_hook.clone(),
            absent: bpf::hooks::absent(&btf, &options.without_hook),
            superseded: bpf::hooks::superseded(&btf),
            ring_bytes: 1 << 20,
            exchange_ring_bytes: 1 << 20,
            max_connections: 1024,
        };
        let loaded = bpf::load(&settings).map_err(|error| advice::advised(error, &table::MEMORY));
        let attached = loaded.and_then(|mut loaded| loaded.attach().map(|()| loaded));
        match attached {
            Err(error) => self.obstacle("hooks", &format!("{error:#}")),
            Ok(mut loaded) => {
                self.line("records kept in", if loaded.lru { "an LRU hash" } else { "socket storage" });
                for hook in &loaded.hooks {
                    self.hook(hook);
                }
                let probes = LibraryProbes::load(&mut loaded.ebpf, true, false);
                match probes.and_then(|_| trial::put_on_and_off(&mut loaded.ebpf)) {
                    Ok(()) => self.line("libraries", "can be probed"),
                    Err(error) => {
                        let advice = advice::if_refused(&error, &table::PROBES);
                        self.line("libraries", &format!("MISSING ({error:#}){advice}"));
                    }
                }
                if options.verifier {
                    for (program, count) in loaded.verified_instructions() {
                        let count = count.map_or_else(|| "-".to_owned(), |count| count.to_string());
                        self.line(&format!("verified {program}"), &count);
                    }
                }
            }
        }
    }

    fn hook(&mut self, hook: &Hook) {
        let backend = hook.backend.as_deref().unwrap_or("MISSING");
        let reason = hook.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        self.line(&hook.name, &format!("{backend}{reason}"));
        if let Some(without) = &hook.without {
            self.line("", &format!("missing from the output: {without}"));
        }
    }
}
