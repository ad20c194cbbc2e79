//! What is measured beside what, and the bounds that hold for it.

use crate::{
    command,
    peers::{self, Peers},
};

/// A new connection an iteration.
pub const CHURN: &str = "churn";
/// An exchange an iteration.
pub const RR: &str = "rr";
/// The same over TLS, and with OpenSSL's costs.
pub const TLS_RR: &str = "tls-rr";
pub const TLS_CHURN: &str = "tls-churn";
/// A stream of large writes.
pub const BULK: &str = "bulk";
/// All of them.
pub const LOOPS: [&str; 5] = [CHURN, RR, TLS_RR, TLS_CHURN, BULK];

/// No tracer at all.
pub const NONE: &str = "none";
/// conntracer in detail `connections`.
pub const CONNECTIONS: &str = "connections";
/// In detail `exchanges`, with a summary of them only.
pub const SUMMARY: &str = "summary";
/// In detail `exchanges`, with every exchange written.
pub const EXCHANGES: &str = "exchanges";
/// As the summary, with probes on TLS libraries.
pub const UPROBES: &str = "uprobes";
/// As the exchanges, with probes on TLS libraries, which then also look at what reads return.
pub const UPROBES_EXCHANGES: &str = "uprobes-exchanges";
/// As the exchanges, tracing a process that has nothing to do with the loops.
pub const UNSELECTED: &str = "unselected";
/// bpftrace with two probes and a histogram.
const TWO_KPROBES: &str = "two-kprobes";

/// Calls that send or receive in one iteration of `rr`.
const CALLS: i64 = 4;

/// What the kernel hands over at the least: how much is sent, how much is received.
const TWO_KPROBES_SCRIPT: &str =
    "kprobe:tcp_sendmsg { @sent = hist(arg2); } kprobe:tcp_cleanup_rbuf { @received = hist(arg1); }";
/// bpftrace's own tools for TLS, as Debian installs them.
const SSL_TOOLS: [&str; 2] = ["ssllatency", "sslsnoop"];

/// How a figure is held to a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Instructions added to an iteration.
    Added(i64),
    /// Share added of the loop itself.
    Share(f64),
}

/// A bound of one tracer on one loop.
pub struct Bound {
    pub tracer: &'static str,
    pub of: &'static str,
    pub limit: Limit,
}

/// Differences below this share of `rr` are noise.
const NOISE: f64 = 0.005;

/// Every bound. In detail `connections` one iteration of `churn` is two lives.
pub const BOUNDS: [Bound; 11] = [
    Bound { tracer: CONNECTIONS, of: CHURN, limit: Limit::Added(15_000) },
    Bound { tracer: CONNECTIONS, of: RR, limit: Limit::Share(NOISE) },
    Bound { tracer: EXCHANGES, of: CHURN, limit: Limit::Added(20_000) },
    Bound { tracer: SUMMARY, of: RR, limit: Limit::Added(2_400) },
    Bound { tracer: EXCHANGES, of: RR, limit: Limit::Added(6_000) },
    Bound { tracer: SUMMARY, of: TLS_RR, limit: Limit::Added(2_600) },
    Bound { tracer: UPROBES, of: TLS_RR, limit: Limit::Added(16_000) },
    Bound { tracer: SUMMARY, of: TLS_CHURN, limit: Limit::Share(0.006) },
    Bound { tracer: EXCHANGES, of: TLS_CHURN, limit: Limit::Share(0.006) },
    Bound { tracer: EXCHANGES, of: BULK, limit: Limit::Share(0.01) },
    Bound { tracer: UNSELECTED, of: RR, limit: Limit::Added(250 * CALLS) },
];

/// What the guest's script runs, in its words: `NAME:LOOP,LOOP=WORDS`. `{}` stands for a file to write to, `{pid}` for a
/// process that has nothing to do with the loops.
pub fn plans(tracer: &str, peers: Option<&Peers>) -> Vec<String> {
    let plan = |name: &str, loops: &[&str], words: &str| format!("{name}:{}={words}", loops.join(","));
    let ours = |name, loops: &[&str], options: &str| {
        let words = format!("{} trace {options} --format ndjson --output {{}}", command::quote(tracer));
        plan(name, loops, &words)
    };
    let mut plans = vec![
        plan(NONE, &LOOPS, ""),
        ours(CONNECTIONS, &[CHURN, RR], "--detail connections"),
        ours(SUMMARY, &[CHURN, RR, TLS_RR, TLS_CHURN], "--detail exchanges --no-exchanges"),
        ours(EXCHANGES, &LOOPS, "--detail exchanges"),
        ours(UPROBES, &[TLS_RR, TLS_CHURN], "--detail exchanges --no-exchanges --ssl=on"),
        ours(UPROBES_EXCHANGES, &[TLS_RR, TLS_CHURN], "--detail exchanges --ssl=on"),
        ours(UNSELECTED, &[RR], "--detail exchanges -p {pid}"),
    ];
    if let Some(peers) = peers {
        let bpftrace = |name, loops: &[&str], script: &str| plan(name, loops, &format!("bpftrace -o {{}} {script}"));
        plans.extend(peers::TOOLS.map(|tool| plan(tool, &[CHURN, RR], &shell_words(&peers.command(tool)))));
        plans.push(bpftrace(TWO_KPROBES, &[CHURN, RR], &format!("-e {}", command::quote(TWO_KPROBES_SCRIPT))));
        plans.extend(SSL_TOOLS.map(|tool| bpftrace(tool, &[TLS_RR], &format!("/usr/sbin/{tool}.bt"))));
    }
    plans
}

fn shell_words(words: &[String]) -> String {
    words.iter().map(|word| command::quote(word)).collect::<Vec<_>>().join(" ")
}

/// Lines about connections that a tracer writes for so many with both ends on the machine; `None` where it writes none.
pub fn connection_lines(tracer: &str, of: &str, iterations: i64) -> Option<i64> {
    let connections = if [CHURN, TLS_CHURN].contains(&of) { iterations } else { 1 };
    match tracer {
        // Only clients.
        "tcpconnlat" => Some(connections),
        // A line when it opens, a line when it closes.
        "tcptracer" => Some(4 * connections),
        "tcplife" | CONNECTIONS | SUMMARY | EXCHANGES | UPROBES | UPROBES_EXCHANGES => Some(2 * connections),
        UNSELECTED => Some(0),
        _ => None,
    }
}

/// Lines about exchanges that a tracer writes for so many iterations, one at each end.
pub fn exchange_lines(tracer: &str, of: &str, iterations: i64) -> i64 {
    match (tracer, of) {
        // All of it is one ask that is never answered.
        (EXCHANGES, BULK) => 2,
        (EXCHANGES | UPROBES_EXCHANGES, _) => 2 * iterations,
        _ => 0,
    }
}
