//! Loads every program, attaches every hook, and lets go of them again.

use anyhow::Result;
use tracer_ebpf::{Config, Offsets, detail};

use super::report::{Tracing, Verified};
use crate::{
    bpf::{self, Settings, library_probes::LibraryProbes, trial},
    cli,
    command::limits,
    kernel::{btf::Btf, features},
    rights::{advice, table},
};

/// Tries it with all that can be traced.
///
/// # Errors
/// If a program does not load that nothing can stand in for.
pub fn try_all(options: &cli::Doctor, btf: &Btf, offsets: Offsets) -> Result<Tracing> {
    // Where raising the limit fails, loading says so.
    let _ = features::lift_memlock_limit();
    limits::ensure_open_files()?;
    let settings = Settings {
        config: Config { detail: detail::EXCHANGES, ssl: 1, heads: 1, ..Config::EVERYTHING },
        offsets,
        backend: options.backend,
        // Every program is to be looked at, not only those that this kernel would get.
        preemptible: options.verifier || features::may_skip_hooks(btf),
        without: options.without_hook.clone(),
        absent: bpf::hooks::absent(btf, &options.without_hook),
        superseded: bpf::hooks::superseded(btf),
        ring_bytes: 1 << 20,
        exchange_ring_bytes: 1 << 20,
        max_connections: 1024,
    };
    let explain = |error| advice::advised(limits::explain_refusal(error), &table::MEMORY);
    let mut loaded = bpf::load(&settings, btf).map_err(explain)?;
    loaded.attach()?;
    let probes = LibraryProbes::load(&mut loaded.ebpf, true, false);
    let probes = probes.and_then(|_| trial::put_on_and_off(&mut loaded.ebpf));
    let refused = |error| format!("{error:#}{}", advice::if_refused(&error, &table::PROBES));
    let verified = if options.verifier { loaded.verified_instructions() } else { Vec::new() };
    Ok(Tracing {
        records_kept_in: if loaded.lru { "an LRU hash" } else { "socket storage" },
        hooks: loaded.hooks,
        probes_refused: probes.err().map(refused),
        verified: verified.into_iter().map(|(program, instructions)| Verified { program, instructions }).collect(),
    })
}
