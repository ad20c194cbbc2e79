//! Comparison of a trace with the truth that the `generator` logs: every connection exactly once, closer and manner
//! right, bytes exact, times within bounds.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use crate::{
    client_binary,
    record::{Closer, Connection, Exchange, How, Line, Lookup, Role, Summary},
    span::Range,
    talk::Expected,
    tls::NAME,
    tracer::{Backend, Tracer, parse_lines},
};

/// What really happened to one socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Truth {
    /// Which connection of the run it belongs to, for messages.
    pub index: usize,
    /// What was done to it, for messages.
    pub life: String,
    /// Which end this is.
    pub role: Role,
    /// As the output names it.
    pub local: SocketAddr,
    /// As the output names it.
    pub remote: SocketAddr,
    /// Client: how long connect(2) took.
    pub connect_ms: Option<f64>,
    /// Payload that left this socket, and that reached it; none for failed connects.
    pub bytes: Option<(u64, u64)>,
    /// Who ended it first.
    pub closer: Closer,
    /// How.
    pub how: How,
    /// Its process ended with the socket open.
    pub process_exited: bool,
    /// Between how many milliseconds it had been idle when its end began. The generator's own clock readings stand
    /// just before and after the system calls, so this is all that it can know.
    pub idle_ms: Option<Range>,
    /// Data had passed at this end by then, so that the hooks know when; if not, the kernel's ticks have to do.
    pub idle_is_exact: bool,
    /// Its exchanges; none of failed connects.
    pub exchanges: Option<Vec<Expected>>,
    /// Wall-clock nanoseconds between which it was let go of.
    pub released: Option<(u64, u64)>,
    /// The TLS handshake that it began with.
    pub tls: Option<Handshake>,
    /// A lookup led to it.
    pub lookup: Option<Named>,
}

/// A handshake that succeeded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Handshake {
    pub ms: Range,
    pub version: String,
    pub resumed: bool,
    /// The server asked for another ClientHello.
    pub retried: bool,
}

/// By what name a client knew the address, and what the lookup cost this connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    pub dns_ms: Range,
}

/// What really happened to one question to a DNS server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Looked {
    /// What was done, for messages.
    pub life: String,
    pub name: String,
    pub record_type: String,
    pub server: SocketAddr,
    pub latency_ms: Range,
    pub rcode: String,
    pub answers: Vec<IpAddr>,
    pub retries: u32,
}

/// A line of the generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    Socket(Truth),
    Lookup(Looked),
}

impl Truth {
    /// Name of the remote end, and what gave it.
    fn remote_name(&self) -> (Option<&str>, Option<&str>) {
        match (&self.tls, &self.lookup) {
            // The name is the server's own, not its peer's.
            (Some(_), _) if self.role == Role::Client => (Some(NAME), Some("sni")),
            (_, Some(named)) => (Some(&named.name), Some("dns")),
            _ => (None, None),
        }
    }
}

// The bounds hold on a processor that is emulated by a busy machine, where threads are put aside and timer ticks come
// late and in bunches. The medians show what the tracer does, the rest what the machine does.

/// The most by which half of all connect times may differ from what the application measured around connect(2): 0.3 ms
/// has been seen.
pub const CONNECT_P50_MS: f64 = 3.0;

/// The same for 99 of 100: sixteen threads share two processors, and some are put aside in the system call. 26 ms have
/// been seen.
pub const CONNECT_P99_MS: f64 = 150.0;

/// The most by which half of all times that the hooks saw begin and end may lie outside of what is true. Hooks run within
/// the system calls whose ends are the bounds, and read the same clock.
pub const EXACT_P50_MS: f64 = 0.1;

/// The same for 99 of 100.
pub const EXACT_P99_MS: f64 = 25.0;

/// The same for all.
pub const EXACT_MAX_MS: f64 = 250.0;

/// The same for idle times before the end. Where data passes after a half-close the kernel's ticks are asked whether it had
/// come before, and late ticks are believed: 365 ms have been seen on a machine with five times the work that it can do. All
/// others are exact.
pub const EXACT_IDLE_MAX_MS: f64 = 1_000.0;

/// An exact time that is further off is looked at.
const OUTLIER_MS: f64 = 1.0;

/// The most by which half of all idle times by the kernel's ticks may lie outside of what is true: one tick of 4 ms.
pub const IDLE_P50_MS: f64 = 4.0;

/// The same for 99 of 100: late ticks. 40 ms have been seen, and 8 ms while the machine was less busy.
pub const IDLE_P99_MS: f64 = 100.0;

/// The same for all: 80 ms have been seen.
pub const IDLE_MAX_MS: f64 = 250.0;

/// The most by which half of all releases may lie outside of what is true: wall-clock and boot clock are read one after
/// the other when the trace begins.
pub const RELEASED_P50_MS: f64 = 1.0;

/// Errors in milliseconds: half are at most the first, 99 of 100 at most the second, all at most the third.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    fn of(mut errors: Vec<f64>) -> Self {
        errors.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (errors.len() as f64 * share).ceil() as usize;
            errors.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} / {:.2} / {:.2}", self.p50, self.p99, self.max)
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Report {
    /// Sockets that existed.
    pub sockets: usize,
    /// Of these, reported exactly once.
    pub once: usize,
    /// Closer, manner and process exit are right.
    pub closers: usize,
    /// Bytes are right both ways.
    pub bytes: usize,
    /// Sockets whose number of exchanges is right.
    pub counts: usize,
    /// Exchanges that happened, an ask or an answer of each.
    pub exchanges: usize,
    /// Of these, right but for their times: bytes each way, whether there was an answer, whether it was a greeting, whether
    /// the peer had closed before.
    pub exchanges_right: usize,
    /// From ask to answer against what is true.
    pub first_byte: Spread,
    /// From the ask to the end of the answer against what is true.
    pub duration: Spread,
    /// Idle time before an exchange against what is true.
    pub idle_before: Spread,
    /// Connect time against the application's.
    pub connect: Spread,
    /// Idle time before the end against what is true, where the hooks saw data pass.
    pub exact_idle: Spread,
    /// The same where no data had passed.
    pub idle: Spread,
    /// Release time against what is true.
    pub released: Spread,
    /// Ends of connections with TLS.
    pub handshakes: usize,
    /// Of these, right but for their times: version, resumed, retried, and by what name.
    pub handshakes_right: usize,
    /// Questions to a DNS server.
    pub lookups: usize,
    /// Of these, reported exactly once and right but for their times: server, code, answers, retries.
    pub lookups_right: usize,
    /// From the ClientHello to the end of the handshake against what is true.
    pub handshake: Spread,
    /// From question to answer, and what lookups cost a connection, against what is true.
    pub dns: Spread,
    /// Whatever is wrong, in words.
    pub mistakes: Vec<String>,
    /// Idle times that are far off though data had passed, in words: they show why where a bound is exceeded.
    pub outliers: Vec<String>,
}

impl Report {
    /// A row of the first table: what is right.
    pub fn counts_row(&self, kernel: &str) -> String {
        let Self { sockets, once, closers, bytes, counts, exchanges, exchanges_right, .. } = self;
        let Self { handshakes, handshakes_right, lookups, lookups_right, .. } = self;
        format!(
            "| {kernel} | {sockets} | {once} | {closers} | {bytes} | {counts} | {exchanges} | {exchanges_right} \
             | {handshakes} | {handshakes_right} | {lookups} | {lookups_right} |"
        )
    }

    /// A row of the second table: errors of times, p50 / p99 / max.
    pub fn times_row(&self, kernel: &str) -> String {
        let Self { first_byte, duration, idle_before, exact_idle, idle, connect, released, handshake, dns, .. } = self;
        format!(
            "| {kernel} | {first_byte} | {duration} | {idle_before} | {exact_idle} | {idle} | {connect} | {released} \
             | {handshake} | {dns} |"
        )
    }

    /// Everything that is not as it must be.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.mistakes.clone();
        let mut bound = |what: &str, is: f64, at_most: f64| {
            if is > at_most {
                failures.push(format!("{what} is {is:.2} ms, more than {at_most} ms"));
            }
        };
        bound("the connect error's median", self.connect.p50, CONNECT_P50_MS);
        bound("the connect error's 99th percentile", self.connect.p99, CONNECT_P99_MS);
        for (what, spread, at_most) in [
            ("first byte", self.first_byte, EXACT_MAX_MS),
            ("duration", self.duration, EXACT_MAX_MS),
            ("idle time before an exchange", self.idle_before, EXACT_MAX_MS),
            ("exact idle time", self.exact_idle, EXACT_IDLE_MAX_MS),
            ("handshake", self.handshake, EXACT_MAX_MS),
            ("lookup", self.dns, EXACT_MAX_MS),
        ] {
            bound(&format!("the median error of the {what}"), spread.p50, EXACT_P50_MS);
            bound(&format!("the 99th percentile of the errors of the {what}"), spread.p99, EXACT_P99_MS);
            bound(&format!("the largest error of the {what}"), spread.max, at_most);
        }
        bound("the idle error's median", self.idle.p50, IDLE_P50_MS);
        bound("the idle error's 99th percentile", self.idle.p99, IDLE_P99_MS);
        bound("the largest idle error", self.idle.max, IDLE_MAX_MS);
        bound("the release error's median", self.released.p50, RELEASED_P50_MS);
        failures
    }
}

/// Traces a run of the generator and compares. `dir` takes the files.
#[track_caller]
pub fn measure(connections: usize, seed: u64, backend: Backend, dir: &Path) -> Report {
    let output = dir.join("trace.ndjson");
    let trace = Tracer::trace_by(backend, &["--output", output.to_str().expect("UTF-8")]);
    let generator = Command::new(client_binary("generator"))
        .args(["--connections", &connections.to_string(), "--seed", &seed.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("the generator runs");
    let end = trace.stop();
    assert!(generator.status.success(), "the generator failed");
    assert!(end.status.success(), "the tracer failed: {}", end.stderr);
    let truth = String::from_utf8(generator.stdout).expect("the generator's log is text");
    let (mut truths, mut looked) = (Vec::new(), Vec::new());
    for line in truth.lines() {
        match serde_json::from_str(line).expect("the generator's log") {
            Told::Socket(truth) => truths.push(truth),
            Told::Lookup(truth) => looked.push(truth),
        }
    }
    let text = std::fs::read_to_string(&output).expect("the tracer's output");
    let mut traced = Traced::default();
    for line in parse_lines(&text) {
        match line {
            Line::Connection(connection) => traced.connections.push(*connection),
            Line::Summary(last) => traced.summary = Some(last),
            Line::Exchange(exchange) => traced.exchanges.push(*exchange),
            Line::Dns(lookup) => traced.lookups.push(*lookup),
            Line::Open(_) | Line::Loss(_) | Line::Finding(_) | Line::Detail(_) => {}
        }
    }
    compare(&truths, &looked, traced)
}

/// All that was traced.
#[derive(Default)]
struct Traced {
    connections: Vec<Connection>,
    exchanges: Vec<Exchange>,
    lookups: Vec<Lookup>,
    summary: Option<Summary>,
}

/// Compares what was traced with what happened.
fn compare(truths: &[Truth], looked: &[Looked], traced: Traced) -> Report {
    let handshakes = truths.iter().filter(|truth| truth.tls.is_some()).count();
    let (sockets, lookups) = (truths.len(), looked.len());
    let mut report = Report { sockets, lookups, handshakes, ..Report::default() };
    let Traced { connections: traced, exchanges, lookups, summary } = traced;
    let summary = summary.expect("the trace has a summary");
    for loss in &summary.losses {
        report.mistakes.push(format!("{} lost: {}", loss.count, loss.cause));
    }
    let mut by_ends: HashMap<_, Vec<Connection>> = HashMap::new();
    for connection in traced {
        let ends = (connection.role, connection.local, connection.remote);
        by_ends.entry(ends).or_default().push(connection);
    }
    let mut exchanges_of: HashMap<String, Vec<Exchange>> = HashMap::new();
    for exchange in exchanges {
        exchanges_of.entry(exchange.connection.clone()).or_default().push(exchange);
    }
    let mut errors = Errors::default();
    for truth in truths {
        match by_ends.remove(&(Some(truth.role), truth.local, truth.remote)) {
            None => report.mistakes.push(format!("not reported: {truth:?}")),
            Some(connections) => match connections.as_slice() {
                [connection] => {
                    report.once += 1;
                    check(truth, connection, &mut report, &mut errors);
                    check_tls(truth, connection, &mut report, &mut errors);
                    check_name(truth, connection, &mut report, &mut errors);
                    let exchanges = exchanges_of.remove(&connection.id).unwrap_or_default();
                    check_exchanges(truth, connection, &exchanges, &mut report, &mut errors);
                }
                _ => report.mistakes.push(format!("reported {} times: {truth:?}", connections.len())),
            },
        }
    }
    for unknown in by_ends.values().flatten() {
        report.mistakes.push(format!("reported, but never happened: {unknown:?}"));
    }
    for unknown in exchanges_of.values().flatten() {
        report.mistakes.push(format!("reported, but of no such connection: {unknown:?}"));
    }
    check_lookups(looked, lookups, &mut report, &mut errors);
    report.handshake = Spread::of(errors.handshake);
    report.dns = Spread::of(errors.dns);
    report.first_byte = Spread::of(errors.first_byte);
    report.duration = Spread::of(errors.duration);
    report.idle_before = Spread::of(errors.idle_before);
    report.exact_idle = Spread::of(errors.exact_idle);
    report.connect = Spread::of(errors.connect);
    report.idle = Spread::of(errors.idle);
    report.released = Spread::of(errors.released);
    report
}

#[derive(Default)]
struct Errors {
    first_byte: Vec<f64>,
    duration: Vec<f64>,
    idle_before: Vec<f64>,
    exact_idle: Vec<f64>,
    connect: Vec<f64>,
    idle: Vec<f64>,
    released: Vec<f64>,
    handshake: Vec<f64>,
    dns: Vec<f64>,
}

fn check(truth: &Truth, connection: &Connection, report: &mut Report, errors: &mut Errors) {
    let mut wrong = |what: &str| report.mistakes.push(format!("{what} is wrong: {truth:?} but {connection:?}"));
    match &connection.close {
        Some(close)
            if (close.closer, close.how, close.process_exited) == (truth.closer, truth.how, truth.process_exited) =>
        {
            report.closers += 1;
        }
        _ => wrong("the close"),
    }
    let bytes = connection.bytes_sent.zip(connection.bytes_received);
    if truth.bytes.is_none_or(|truth| bytes == Some(truth)) {
        report.bytes += 1;
    } else {
        wrong("the number of bytes");
    }
    match (truth.connect_ms, connection.connect_ms) {
        (Some(truth), Some(traced)) => errors.connect.push((truth - traced).abs()),
        (Some(_), None) => wrong("the connect time"),
        (None, _) => {}
    }
    match (truth.idle_ms, connection.idle_before_close_ms) {
        (Some(range), Some(traced)) if truth.idle_is_exact => {
            let error = range.outside(traced);
            errors.exact_idle.push(error);
            if error > OUTLIER_MS {
                report.outliers.push(format!("idle {error:.2} ms off: {truth:?} but {connection:?}"));
            }
        }
        (Some(range), Some(traced)) => errors.idle.push(range.outside(traced)),
        (None, None) => {}
        _ => wrong("the idle time"),
    }
    let released = connection.close.as_ref().and_then(|close| close.released_at);
    match (truth.released, released) {
        (Some((earliest, latest)), Some(traced)) => {
            let ms = |ns: u64| ns as f64 / 1e6;
            // Relative to the first, so that no digits are lost.
            let traced = (traced.unix_timestamp_nanos() - i128::from(earliest)) as f64 / 1e6;
            errors.released.push(Range(0.0, ms(latest - earliest)).outside(traced));
        }
        (Some(_), None) => wrong("the release"),
        (None, _) => {}
    }
}

/// Where there was no TLS, none must be reported.
fn check_tls(truth: &Truth, connection: &Connection, report: &mut Report, errors: &mut Errors) {
    let mut wrong = |what: &str| report.mistakes.push(format!("{what} is wrong: {truth:?} but {connection:?}"));
    let (handshake, traced) = match (&truth.tls, &connection.tls) {
        (None, None) => return,
        (Some(handshake), Some(traced)) => (handshake, traced),
        _ => return wrong("TLS"),
    };
    let is_right = traced.version.as_ref() == Some(&handshake.version)
        && (traced.resumed, traced.retried) == (Some(handshake.resumed), Some(handshake.retried))
        && (traced.failed.is_none(), traced.mid_stream) == (true, Some(false))
        && traced.sni.as_deref() == Some(NAME);
    if !is_right {
        wrong("the handshake");
    }
    match traced.handshake_ms {
        Some(traced) => errors.handshake.push(handshake.ms.outside(traced)),
        None => wrong("the time of the handshake"),
    }
    report.handshakes_right += usize::from(is_right);
}

fn check_name(truth: &Truth, connection: &Connection, report: &mut Report, errors: &mut Errors) {
    let mut wrong = |what: &str| report.mistakes.push(format!("{what} is wrong: {truth:?} but {connection:?}"));
    if (connection.remote_name.as_deref(), connection.remote_name_source.as_deref()) != truth.remote_name() {
        wrong("the name");
    }
    match (truth.lookup.as_ref().map(|named| named.dns_ms), connection.dns_ms) {
        (None, None) => {}
        // An earlier connection has paid.
        (Some(Range(0.0, 0.0)), Some(0.0)) => {}
        (Some(range), Some(traced)) if range.1 > 0.0 => errors.dns.push(range.outside(traced)),
        _ => wrong("what the lookup cost"),
    }
}

fn check_lookups(looked: &[Looked], lookups: Vec<Lookup>, report: &mut Report, errors: &mut Errors) {
    let mut by_question: HashMap<_, Vec<Lookup>> = HashMap::new();
    for lookup in lookups {
        by_question
            .entry((lookup.name.clone(), lookup.record_type.clone().unwrap_or_default()))
            .or_default()
            .push(lookup);
    }
    for truth in looked {
        let lookups = by_question.remove(&(truth.name.clone(), truth.record_type.clone())).unwrap_or_default();
        let [lookup] = lookups.as_slice() else {
            report.mistakes.push(format!("reported {} times: {truth:?}", lookups.len()));
            continue;
        };
        let is_right = lookup.asked() == (truth.server, "udp")
            && lookup.rcode.as_ref() == Some(&truth.rcode)
            && lookup.failed == (truth.rcode != "NOERROR")
            && (&lookup.answers, lookup.retries) == (&truth.answers, truth.retries);
        match lookup.latency_ms {
            Some(traced) if is_right => {
                report.lookups_right += 1;
                errors.dns.push(truth.latency_ms.outside(traced));
            }
            _ => report.mistakes.push(format!("the lookup is wrong: {truth:?} but {lookup:?}")),
        }
    }
    for unknown in by_question.values().flatten() {
        report.mistakes.push(format!("reported, but never looked up: {unknown:?}"));
    }
}

fn check_exchanges(
    truth: &Truth,
    connection: &Connection,
    exchanges: &[Exchange],
    report: &mut Report,
    errors: &mut Errors,
) {
    let expected = truth.exchanges.as_deref().unwrap_or_default();
    report.exchanges += expected.len();
    let indexes: Vec<u64> = exchanges.iter().map(|exchange| exchange.index).collect();
    let all: Vec<u64> = (0..expected.len() as u64).collect();
    if connection.exchanges.unwrap_or(0) != expected.len() as u64 || indexes != all {
        let reported = connection.exchanges;
        report.mistakes.push(format!("the exchanges are {reported:?}, {indexes:?}, not {}: {truth:?}", expected.len()));
        return;
    }
    report.counts += 1;
    for (expected, exchange) in expected.iter().zip(exchanges) {
        if is_right(expected, exchange) {
            report.exchanges_right += 1;
        } else {
            report.mistakes.push(format!("the exchange is wrong: {expected:?} but {exchange:?}, in {truth:?}"));
        }
        let mut error =
            |errors: &mut Vec<f64>, what: &str, range: Option<Range>, traced: Option<f64>| match (range, traced) {
                (Some(range), Some(traced)) => errors.push(range.outside(traced)),
                (Some(_), None) => report.mistakes.push(format!("{what} is missing: {expected:?} but {exchange:?}")),
                (None, _) => {}
            };
        error(&mut errors.first_byte, "the first byte", expected.first_byte, exchange.first_byte_ms);
        error(&mut errors.duration, "the duration", expected.duration, exchange.duration_ms);
        // A greeting follows upon nothing.
        let idle_before = (!expected.greeting).then_some(expected.idle_before);
        error(&mut errors.idle_before, "the idle time before", idle_before, exchange.idle_before_ms);
    }
}

/// Whether all is right that has no tolerance.
fn is_right(expected: &Expected, exchange: &Exchange) -> bool {
    // Where it says so, it has guessed.
    let stale_is_known = !exchange.confidence.iter().any(|remark| remark.field == "stale");
    (exchange.bytes_out, exchange.bytes_in) == (Some(expected.bytes_out), Some(expected.bytes_in))
        && exchange.greeting == expected.greeting
        && exchange.first_byte_ms.is_some() == expected.first_byte.is_some()
        && (exchange.stale == expected.stale || !stale_is_known)
        && !exchange.open
        && exchange.cold == Some(exchange.index == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_errors() {
        let spread = Spread::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((spread.p50, spread.p99, spread.max), (50.0, 99.0, 100.0));
        assert_eq!(Spread::of(Vec::new()).max, 0.0);
    }
}
