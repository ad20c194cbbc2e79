//! The command line, as one declaration: clap makes parser, help and errors from it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracer_ebpf::{detail, role};

use crate::{
    bpf::{Backend, filter::Network},
    memory::Budget,
};

/// Shows every TCP connection of running processes, from the kernel: what it cost to set up, how long it sat idle, who
/// closed it, how and why. Nothing in the traced program is touched.
#[derive(Debug, Parser)]
#[command(name = "conntracer", version, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a command, trace it and its children, summarise when it ends.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Trace running processes, or the whole node: one line a connection as it opens and closes,
    /// with -v also one for each exchange.
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(Trace),
    /// Say what is wrong, dearest first, with evidence and advice: of running processes, of the whole node, or of a recording.
    #[command(after_help = DIAGNOSE_EXAMPLES)]
    Diagnose(Diagnose),
    /// Show a recording as if it happened now.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(Replay),
    /// Tell what this kernel and these rights allow and which hooks would be used, and trace a connection of its own to see whether
    /// that works.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(Doctor),
}

const RUN_EXAMPLES: &str = "Examples:
  conntracer run -- curl -s https://example.org/
  conntracer run --format ndjson --output life.ndjson -- ./integration-test.sh

The command's own standard output goes to standard error, so that standard output holds nothing but
data; with --output it stays where it was.";

const TRACE_EXAMPLES: &str = "Examples:
  sudo conntracer trace -p 4321
  sudo conntracer trace -p 4321 -v
  sudo conntracer trace --comm java --port 443 --format ndjson -d 60s";

const DIAGNOSE_EXAMPLES: &str = "Examples:
  sudo conntracer diagnose -p 4321 -d 60s
  sudo conntracer diagnose --comm java -d 5m --format ndjson
  conntracer diagnose --from node7.rec

It looks on until Ctrl-C, the time given, or the end of all targets, and then tells its findings.
docs/findings.md says what each means.";

const REPLAY_EXAMPLES: &str = "Examples:
  conntracer replay node7.rec
  conntracer replay node7.rec --format ndjson | jq 'select(.type == \"connection\")'";

const DOCTOR_EXAMPLES: &str = "Examples:
  sudo conntracer doctor
  sudo conntracer doctor --backend kprobe
  sudo conntracer doctor --json | jq .tracing.hooks

It ends with code 1 if tracing does not work here.";

/// `run`
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub filter: Filter,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub live: Live,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub output: Output,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<std::ffi::OsString>,
}

/// `trace`
#[derive(Debug, Args)]
pub struct Trace {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub target: Target,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub filter: Filter,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub live: Live,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub output: Output,
}

/// `diagnose`
#[derive(Debug, Args)]
pub struct Diagnose {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub target: Target,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub filter: Filter,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub live: Live,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub to: Destination,
    /// Look at a recording instead, made by `trace --record`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["Target", "Filter", "Live"])]
    pub from: Option<PathBuf>,
    /// End with code 3 if anything was found.
    #[arg(long)]
    pub fail_on_finding: bool,
}

/// `replay`
#[derive(Debug, Args)]
pub struct Replay {
    /// A recording made by `trace --record`.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub output: Output,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Which kind of hooks to try.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Print one JSON object, see docs/doctor.md.
    #[arg(long)]
    pub json: bool,
    /// Do not make and trace a connection over loopback.
    #[arg(long)]
    pub no_self_test: bool,
    /// Also print how many instructions the kernel's verifier looked at, program by program.
    #[arg(long, hide = true)]
    pub verifier: bool,
    /// Leave a hook out, or a function for whose lack a hook has another choice, as if the kernel did not have it (for tests).
    #[arg(long, value_name = "HOOK", hide = true)]
    pub without_hook: Vec<String>,
}

/// Which processes. None means the whole node.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Targets (none: the whole node; children are followed)")]
pub struct Target {
    /// A process, with its descendants. May be given several times.
    #[arg(short, long = "pid", value_name = "PID")]
    pub pid: Vec<u32>,
    /// Every process of this name, also those that start later.
    #[arg(long, value_name = "NAME", conflicts_with = "pid")]
    pub comm: Option<String>,
    /// The processes of a container, by its ID or the beginning of it.
    #[arg(long, value_name = "ID", conflicts_with_all = ["pid", "comm"])]
    pub container: Option<String>,
    /// The processes of a cgroup (v2) and of those below it.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["pid", "comm", "container"])]
    pub cgroup: Option<PathBuf>,
}

/// Which connections.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct Filter {
    /// Service port: the remote port of a client, the local port of a server. May be given several times.
    #[arg(long, value_name = "PORT")]
    pub port: Vec<u16>,
    /// Remote address or network. May be given several times.
    #[arg(long, value_name = "CIDR")]
    pub remote: Vec<Network>,
    /// Only connections in which the process has this role.
    #[arg(long, value_enum)]
    pub role: Option<Role>,
}

/// The roles, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The process connected.
    Client,
    /// The process accepted.
    Server,
}

impl Role {
    /// Its number in the wire contract.
    pub fn number(self) -> u8 {
        match self {
            Self::Client => role::CLIENT,
            Self::Server => role::SERVER,
        }
    }
}

/// How much is hooked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Detail {
    /// Nothing per send or receive: idle time and bytes come from the kernel's own counters.
    Connections,
    /// Sends and receives too: each turn of request and response, TLS handshakes, and the exact idle time.
    #[default]
    Exchanges,
}

impl Detail {
    /// Its number in the wire contract.
    pub fn number(self) -> u32 {
        match self {
            Self::Connections => detail::CONNECTIONS,
            Self::Exchanges => detail::EXCHANGES,
        }
    }
}

/// When probes are put on libraries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Ssl {
    /// If targets were named.
    #[default]
    Auto,
    /// Whatever is traced.
    On,
    /// Never.
    Off,
}

/// How to trace.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tracing")]
pub struct Live {
    /// How much is hooked.
    #[arg(long, value_enum, default_value_t)]
    pub detail: Detail,
    /// Stop after this time, e.g. 30s, 5m or 1h; a bare number means seconds.
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Put probes on libraries: on TLS libraries for HTTP heads in TLS and for which library it is, on the C library for lookups
    /// that ask no DNS server. `auto` does so for targets, `on` for the whole node too. On x86-64 only.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub ssl: Ssl,
    /// Keep the events in a file, for `replay`.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Which kind of hooks: typed ones with kprobes where they are refused, or only kprobes.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Leave a hook out, or a function for whose lack a hook has another choice, as if the kernel did not have it (for tests).
    #[arg(long, value_name = "HOOK", hide = true)]
    pub without_hook: Vec<String>,
    /// Size in MiB of the event buffer for connections, a power of two from 1 to 1024.
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = ring_size)]
    pub ring_size: u32,
    /// Size in MiB of the event buffer for exchanges, likewise [default: that of --ring-size].
    #[arg(long, value_name = "MIB", value_parser = ring_size)]
    pub exchange_ring_size: Option<u32>,
    /// Most memory for what is remembered in user space, in MiB. What is too much is forgotten, the oldest first, and counted.
    #[arg(long, value_name = "MIB", default_value_t = Budget::DEFAULT_MIB, value_parser = clap::value_parser!(u32).range(i64::from(Budget::LEAST_MIB)..=1_048_576))]
    pub max_memory: u32,
    /// Most that tracing may cost, in percent of one processor. Above it, detail goes down to `connections`, and up again when the
    /// cost has been well below for half a minute.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub max_overhead: Option<f64>,
    /// Seconds instead of that half minute (for tests).
    #[arg(long, value_name = "S", hide = true, default_value_t = 30)]
    pub overhead_patience: u64,
    /// Most connections remembered at a time, in the kernel (where it has no socket storage) and in user space.
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(16..=4_194_304))]
    pub max_connections: u32,
}

impl Live {
    /// As without any flag.
    pub fn by_default() -> Self {
        #[derive(Parser)]
        struct NoFlags {
            #[command(flatten)]
            live: Live,
        }
        NoFlags::parse_from([""; 1]).live
    }
}

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, see docs/ndjson.md.
    Ndjson,
}

/// Where the output goes, and in which form.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct Destination {
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Write to a file instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// No colour, even on a terminal. The variable NO_COLOR does the same.
    #[arg(long)]
    pub no_color: bool,
}

/// The output of a trace: where it goes, and what is in it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct Output {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub to: Destination,
    /// Also show each exchange (text; NDJSON has them anyway).
    #[arg(short, long)]
    pub verbose: bool,
    /// Leave the exchanges out, and the findings, which are made from them: they are only counted, in `connection` lines and the
    /// summary.
    #[arg(long, conflicts_with = "verbose")]
    pub no_exchanges: bool,
    /// Leave the findings out.
    #[arg(long)]
    pub no_findings: bool,
}

/// A time as people type it.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("{error}; write 30s, 5m or 1h"))?,
    };
    if duration.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(duration) }
}

/// MiB that the kernel accepts for a ring buffer.
fn ring_size(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(mib) if mib.is_power_of_two() && mib <= 1024 => Ok(mib),
        _ => Err("must be a power of two from 1 to 1024 (MiB)".to_owned()),
    }
}

/// A share of one processor.
fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(percent) if (0.1..=10_000.0).contains(&percent) => Ok(percent),
        _ => Err("must be a number from 0.1 to 10000; 100 is one whole processor".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_declaration_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_percentage_may_have_its_sign_and_must_make_sense() {
        assert_eq!(percent("2.5"), Ok(2.5));
        assert_eq!(percent("5%"), Ok(5.0));
        for senseless in ["0", "-1", "NaN", "much"] {
            assert!(percent(senseless).unwrap_err().contains("0.1"), "{senseless}");
        }
    }

    #[test]
    fn a_bare_number_is_seconds_and_zero_is_refused() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        assert!(duration("0").is_err());
        assert!(duration("soon").unwrap_err().contains("30s"));
    }
}
