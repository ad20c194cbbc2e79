//! NDJSON: one object a line, as `docs/ndjson.md` promises.
//!
//! Every connection costs two lines, so they are written by hand: keys as literals, numbers by integer arithmetic, and
//! what belongs to a process from a cache. A test compares each line with what a JSON library makes of the record.

use tracer_ebpf::tls::names::AlertDescription;

use super::{
    Output, errno,
    escape::json_string,
    finding_ndjson,
    hellos::Hellos,
    http::Http,
    identity::Identities,
    line::{Line, Put, Room},
    number::{Quoted, Times, decimal, milliseconds},
    numbers::numbers,
};
use crate::{
    findings::finding::Finding,
    track::record::{
        Bound, Close, Closer, Confidence, Connection, DetailChange, Exchange, Group, GroupExchanges, Hook, How,
        LookedUp, Lookup, LookupWay, Loss, Nanos, Overhead, Record, Role, Setup, Summary, Tls, TlsFailed, TlsFailure,
        TlsSource, WallTime,
    },
};

/// The NDJSON writer.
#[derive(Default)]
pub struct Ndjson {
    times: Times,
    identities: Identities,
    hellos: Hellos,
    room: Room,
    without_exchanges: bool,
}

impl Output for Ndjson {
    fn record(&mut self, record: &Record, out: &mut Vec<u8>) {
        match record {
            Record::Open(connection) => self.open(connection, out),
            Record::Connection(connection) => self.connection(connection, out),
            Record::Exchange(_) if self.without_exchanges => {}
            Record::Exchange(exchange) => self.exchange(exchange, out),
            Record::Lookup(lookup) => self.lookup(lookup, out),
            Record::Throttling(_) => {}
            Record::Loss(loss) => {
                out.literal(br#"{"type":"loss","#);
                self.loss_fields(loss, out);
                out.literal(b"}\n");
            }
            Record::Detail(change) => self.detail(change, out),
            Record::Summary(summary) => self.summary(summary, out),
        }
    }

    fn finding(&mut self, finding: &Finding, out: &mut Vec<u8>) {
        finding_ndjson::write(finding, &mut self.times, out);
    }

    fn wants_exchanges(&self) -> bool {
        !self.without_exchanges
    }
}

impl Ndjson {
    /// Writes `exchange` lines only if told so.
    pub fn new(exchanges: bool) -> Self {
        Self { without_exchanges: !exchanges, ..Self::default() }
    }

    fn open(&mut self, connection: &Connection, out: &mut Vec<u8>) {
        let Self { times, identities, room, .. } = self;
        out.literal(br#"{"type":"open","id":""#);
        identities.write(connection, times, out);
        room.line(out, |line| {
            match connection.preexisting {
                true => line.literal(br#","preexisting":true,"dns_ms":"#),
                false => line.literal(br#","preexisting":false,"dns_ms":"#),
            }
            optional(lookup_cost(connection), line, milliseconds);
            line.literal(br#","connect_ms":"#);
            optional(connection.connect, line, milliseconds);
            line.literal(br#","syn_retransmits":"#);
            optional(connection.syn_retransmits, line, decimal);
            line.literal(b"}\n");
        });
    }

    fn connection(&mut self, connection: &Connection, out: &mut Vec<u8>) {
        let Self { times, identities, hellos, room, .. } = self;
        out.literal(br#"{"type":"connection","id":""#);
        identities.write(connection, times, out);
        if connection.tls.is_none() && connection.exchanges.is_none() {
            room.line(out, |line| {
                let closed_at = beginning(connection, times, line);
                line.literal(br#","tls":null,"exchanges":null,"bytes_sent":"#);
                rest::<false>(connection, closed_at, times, line);
            });
        } else {
            detailed(connection, times, hellos, room, out);
        }
        if !connection.confidence.is_empty() {
            items(&connection.confidence, out, confidence);
            out.literal(b"]}\n");
        }
    }

    fn exchange(&mut self, exchange: &Exchange, out: &mut Vec<u8>) {
        let Self { times, identities, room, .. } = self;
        let http = Http::of(exchange);
        out.literal(br#"{"type":"exchange","connection":""#);
        out.extend_from_slice(identities.of_exchange(exchange));
        room.line(out, |line| {
            decimal(exchange.index, line);
            match exchange.cold {
                Some(false) => line.literal(br#","cold":false,"greeting":"#),
                Some(true) => line.literal(br#","cold":true,"greeting":"#),
                None => line.literal(br#","cold":null,"greeting":"#),
            }
            boolean(exchange.greeting, line);
            line.literal(br#","began_at":"#);
            time(exchange.began_at, times, line);
            line.literal(br#","idle_before_ms":"#);
            optional(exchange.idle_before, line, milliseconds);
            line.literal(br#","first_byte_ms":"#);
            optional(exchange.first_byte, line, milliseconds);
            line.literal(br#","duration_ms":"#);
            optional(exchange.duration, line, milliseconds);
            line.literal(br#","bytes_out":"#);
            optional(exchange.bytes_out, line, decimal);
            line.literal(br#","bytes_in":"#);
            optional(exchange.bytes_in, line, decimal);
            line.literal(br#","setup":"#);
            optional(exchange.setup.as_deref(), line, setup);
            if http.is_none() {
                line.literal(br#","http":null"#);
                end_of_exchange(exchange, line);
            }
        });
        if let Some(http) = http {
            // It holds names of any length.
            out.literal(br#","http":"#);
            http.write(out);
            end_of_exchange(exchange, out);
        }
        if !exchange.confidence.is_empty() {
            items(&exchange.confidence, out, confidence);
            out.literal(b"]}\n");
        }
    }

    fn lookup(&mut self, lookup: &Lookup, out: &mut Vec<u8>) {
        let Lookup { process, tid, netns, way, name, record_type, latency, rcode, answers, retries, .. } = lookup;
        out.literal(br#"{"type":"dns","#);
        numbers(process, out);
        out.literal(br#","tid":"#);
        decimal(*tid, out);
        out.literal(br#","comm":"#);
        json_string(&process.comm, out);
        out.literal(br#","exe":"#);
        optional(process.exe.as_deref(), out, json_string);
        out.literal(br#","container":"#);
        optional(process.container.as_deref(), out, json_string);
        out.literal(br#","netns":"#);
        optional(*netns, out, decimal);
        match way {
            LookupWay::Port53 { server, tcp } => {
                out.literal(br#","source":"port53","server":"#);
                json_string(&server.to_string(), out);
                out.literal(if *tcp { br#","transport":"tcp","name":"# } else { br#","transport":"udp","name":"# });
            }
            LookupWay::GetAddrInfo => {
                out.literal(br#","source":"getaddrinfo","server":null,"transport":null,"name":"#);
            }
        }
        json_string(name, out);
        out.literal(br#","record_type":"#);
        optional(record_type.as_deref(), out, json_string);
        out.literal(br#","asked_at":"#);
        time(Some(lookup.asked_at), &mut self.times, out);
        out.literal(br#","latency_ms":"#);
        optional(*latency, out, milliseconds);
        out.literal(br#","rcode":"#);
        optional(rcode.as_deref(), out, json_string);
        out.literal(br#","answers":"#);
        array(answers, out, |address, out| json_string(&address.to_string(), out));
        out.literal(br#","retries":"#);
        decimal(*retries, out);
        out.literal(br#","failed":"#);
        boolean(lookup.failed(), out);
        out.literal(b"}\n");
    }

    fn detail(&mut self, change: &DetailChange, out: &mut Vec<u8>) {
        let DetailChange { at, lowered, overhead } = change;
        out.literal(br#"{"type":"detail","at":"#);
        time(Some(*at), &mut self.times, out);
        out.literal(br#","detail":"#);
        json_string(if *lowered { "connections" } else { "exchanges" }, out);
        let Overhead { percent, limit, counts_programs } = overhead;
        let rest = format!(
            r#","overhead_percent":{percent:.3},"limit_percent":{limit:.3},"programs_counted":{counts_programs}"#
        );
        out.extend_from_slice(rest.as_bytes());
        out.literal(b"}\n");
    }

    fn loss_fields(&mut self, loss: &Loss, out: &mut Vec<u8>) {
        out.extend_from_slice(br#""at":"#);
        time(Some(loss.at), &mut self.times, out);
        out.extend_from_slice(br#","place":"#);
        json_string(&loss.place, out);
        out.extend_from_slice(br#","cause":"#);
        json_string(&loss.cause, out);
        out.extend_from_slice(br#","count":"#);
        decimal(loss.count, out);
    }

    fn summary(&mut self, summary: &Summary, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"type":"summary","began_at":"#);
        time(Some(summary.began_at), &mut self.times, out);
        out.extend_from_slice(br#","stopped_at":"#);
        time(Some(summary.stopped_at), &mut self.times, out);
        out.extend_from_slice(br#","connections":"#);
        decimal(summary.connections, out);
        out.extend_from_slice(br#","open":"#);
        decimal(summary.open, out);
        out.extend_from_slice(br#","groups":"#);
        array(&summary.groups, out, group);
        out.extend_from_slice(br#","other":"#);
        optional(summary.other.as_ref(), out, group);
        out.extend_from_slice(br#","hooks":"#);
        array(&summary.hooks, out, hook);
        out.extend_from_slice(br#","losses":"#);
        array(&summary.losses, out, |loss, out| {
            out.push(b'{');
            self.loss_fields(loss, out);
            out.push(b'}');
        });
        out.extend_from_slice(br#","remarks":"#);
        array(&summary.remarks, out, |remark, out| json_string(remark, out));
        out.literal(b"}\n");
    }
}

#[inline(always)]
pub(super) fn time(time: Option<WallTime>, times: &mut Times, out: &mut impl Put) {
    optional(time, out, |time, out| out.literal(times.quoted(time)));
}

#[inline(always)]
fn lookup_cost(connection: &Connection) -> Option<Nanos> {
    connection.looked_up.as_deref().map(|LookedUp { cost, .. }| *cost)
}

/// A `connection` line from `closed_at` to what comes before `tls`. Returns the text of `closed_at`, which mostly is that of the end
/// too.
#[inline(always)]
fn beginning(connection: &Connection, times: &mut Times, line: &mut Line) -> Option<(WallTime, Quoted)> {
    line.literal(br#","closed_at":"#);
    let closed_at = connection.closed_at.map(|time| (time, *times.quoted(time)));
    optional(closed_at, line, |(_, text), line| line.literal(&text));
    line.literal(br#","lifetime_ms":"#);
    optional(connection.lifetime, line, milliseconds);
    line.literal(br#","open":"#);
    boolean(connection.open, line);
    line.literal(br#","preexisting":"#);
    boolean(connection.preexisting, line);
    line.literal(br#","dns_ms":"#);
    optional(lookup_cost(connection), line, milliseconds);
    line.literal(br#","connect_ms":"#);
    optional(connection.connect, line, milliseconds);
    line.literal(br#","syn_retransmits":"#);
    optional(connection.syn_retransmits, line, decimal);
    closed_at
}

/// A `connection` line from `closed_at` on, in detail `exchanges`.
#[inline(never)]
fn detailed(connection: &Connection, times: &mut Times, hellos: &mut Hellos, room: &mut Room, out: &mut Vec<u8>) {
    let tls = connection.tls.as_deref();
    let mut closed_at = None;
    room.line(out, |line| {
        closed_at = beginning(connection, times, line);
        match tls {
            Some(tls) => {
                line.literal(br#","tls":{"handshake_ms":"#);
                optional(tls.handshake, line, milliseconds);
            }
            None => line.literal(br#","tls":null"#),
        }
    });
    if let Some(tls) = tls {
        // The names in it may be long: they do not go through the room.
        out.extend_from_slice(hellos.of(&tls.hello));
    }
    room.line(out, |line| {
        if let Some(tls) = tls {
            rest_of_tls(tls, line);
        }
        line.literal(br#","exchanges":"#);
        optional(connection.exchanges.as_ref(), line, |exchanges, line| decimal(exchanges.count, line));
        line.literal(br#","bytes_sent":"#);
        rest::<true>(connection, closed_at, times, line);
    });
}

/// From the value of `bytes_sent` on; remarks, and the end of the line if there are any, are left to be added.
#[inline(always)]
fn rest<const DETAILED: bool>(
    connection: &Connection,
    closed_at: Option<(WallTime, Quoted)>,
    times: &mut Times,
    line: &mut Line,
) {
    let exchanges = if DETAILED { connection.exchanges.as_ref() } else { None };
    optional(connection.bytes_sent, line, decimal);
    line.literal(br#","bytes_received":"#);
    optional(connection.bytes_received, line, decimal);
    line.literal(br#","retransmits":"#);
    optional(connection.retransmits, line, decimal);
    line.literal(br#","srtt_ms":"#);
    optional(connection.srtt, line, milliseconds);
    line.literal(br#","keepalive":"#);
    optional(connection.keepalive, line, boolean);
    line.literal(br#","idle_before_close_ms":"#);
    optional(connection.idle_before_close, line, milliseconds);
    if DETAILED {
        line.literal(br#","max_idle_ms":"#);
        optional(exchanges.and_then(|exchanges| exchanges.max_idle), line, milliseconds);
        line.literal(br#","close":"#);
    } else {
        line.literal(br#","max_idle_ms":null,"close":"#);
    }
    optional(connection.close.as_ref(), line, |end, line| close(end, closed_at, times, line));
    match exchanges.map(|exchanges| exchanges.stale) {
        None => line.literal(br#","stale_exchange":null,"confidence":["#),
        Some(false) => line.literal(br#","stale_exchange":false,"confidence":["#),
        Some(true) => line.literal(br#","stale_exchange":true,"confidence":["#),
    }
    if connection.confidence.is_empty() {
        line.literal(b"]}\n");
    }
}

/// An `exchange` line from what comes behind `http`, to its end unless there are remarks.
#[inline(always)]
fn end_of_exchange(exchange: &Exchange, line: &mut impl Put) {
    match (exchange.stale, exchange.open) {
        (false, false) => line.literal(br#","stale":false,"open":false,"confidence":["#),
        (false, true) => line.literal(br#","stale":false,"open":true,"confidence":["#),
        (true, false) => line.literal(br#","stale":true,"open":false,"confidence":["#),
        (true, true) => line.literal(br#","stale":true,"open":true,"confidence":["#),
    }
    if exchange.confidence.is_empty() {
        line.literal(b"]}\n");
    }
}

fn setup(setup: &Setup, line: &mut Line) {
    line.literal(br#"{"dns_ms":"#);
    optional(setup.dns, line, milliseconds);
    line.literal(br#","connect_ms":"#);
    optional(setup.connect, line, milliseconds);
    line.literal(br#","handshake_ms":"#);
    optional(setup.handshake, line, milliseconds);
    line.literal(br#","total_ms":"#);
    optional(setup.total, line, milliseconds);
    line.literal(b"}");
}

/// A `tls` object from what the hello messages do not tell on.
#[inline(always)]
fn rest_of_tls(tls: &Tls, line: &mut Line) {
    line.literal(br#","retried":"#);
    optional(tls.retried, line, boolean);
    line.literal(br#","mid_stream":"#);
    optional(tls.mid_stream, line, boolean);
    library(tls, line);
    line.literal(br#","cpu_ms":"#);
    optional(tls.parts.cpu, line, milliseconds);
    line.literal(br#","runqueue_ms":"#);
    optional(tls.parts.runqueue, line, milliseconds);
    line.literal(br#","wait_ms":"#);
    optional(tls.parts.wait, line, milliseconds);
    line.literal(br#","failed":"#);
    optional(tls.failed, line, failure);
    line.literal(b"}");
}

/// The library's name has no letters that JSON would have to escape.
#[inline]
fn library(tls: &Tls, line: &mut Line) {
    if let (None, TlsSource::Wire) = (&tls.library, tls.source) {
        return line.literal(br#","library":null,"source":"wire""#);
    }
    line.literal(br#","library":"#);
    optional(tls.library.as_deref(), line, |library, line| quoted(Some(library), "", line));
    line.literal(br#","source":""#);
    line.word(tls.source.as_str().as_bytes());
    line.literal(b"\"");
}

/// A name that is known, or else its number.
pub(super) fn quoted(name: Option<&str>, number: impl std::fmt::Display, out: &mut impl Put) {
    out.literal(b"\"");
    match name {
        Some(name) => out.word(name.as_bytes()),
        None => out.word(number.to_string().as_bytes()),
    }
    out.literal(b"\"");
}

fn failure(failure: TlsFailure, line: &mut Line) {
    line.literal(br#"{"how":""#);
    match failure.how {
        TlsFailed::Alert(_) => line.literal(b"alert"),
        TlsFailed::Closed(how) => line.word(how_word(how).as_bytes()),
    }
    match failure.by {
        Closer::Local => line.literal(br#"","by":"local","alert":"#),
        Closer::Peer => line.literal(br#"","by":"peer","alert":"#),
        Closer::None => line.literal(br#"","by":"none","alert":"#),
    }
    match failure.how {
        TlsFailed::Alert(number) => quoted(AlertDescription(number).name(), AlertDescription(number), line),
        TlsFailed::Closed(_) => line.literal(b"null"),
    }
    line.literal(br#","after_ms":"#);
    optional(failure.after, line, milliseconds);
    line.literal(b"}");
}

const fn how_word(how: How) -> &'static str {
    match how {
        How::Fin => "fin",
        How::Rst => "rst",
        How::Timeout => "timeout",
        How::Refused => "refused",
        How::Unreachable => "unreachable",
        How::Aborted => "aborted",
    }
}

#[inline(always)]
fn close(close: &Close, closed_at: Option<(WallTime, Quoted)>, times: &mut Times, line: &mut Line) {
    match close.closer {
        Closer::Local => line.literal(br#"{"closer":"local","how":""#),
        Closer::Peer => line.literal(br#"{"closer":"peer","how":""#),
        Closer::None => line.literal(br#"{"closer":"none","how":""#),
    }
    match close.how {
        How::Fin => line.literal(br#"fin","errno":"#),
        How::Rst => line.literal(br#"rst","errno":"#),
        How::Timeout => line.literal(br#"timeout","errno":"#),
        How::Refused => line.literal(br#"refused","errno":"#),
        How::Unreachable => line.literal(br#"unreachable","errno":"#),
        How::Aborted => line.literal(br#"aborted","errno":"#),
    }
    optional(close.errno, line, |number, line| {
        line.literal(b"\"");
        line.word(errno::text(number).as_bytes());
        line.literal(b"\"");
    });
    line.literal(br#","process_exited":"#);
    boolean(close.process_exited, line);
    line.literal(br#","unnoticed_ms":"#);
    optional(close.unnoticed, line, milliseconds);
    line.literal(br#","released_at":"#);
    time(close.released_at, times, line);
    line.literal(br#","ended_at":"#);
    match (close.ended_at, closed_at) {
        (Some(ended_at), Some((closed_at, text))) if ended_at == closed_at => line.literal(&text),
        _ => time(close.ended_at, times, line),
    }
    line.literal(b"}");
}

fn confidence(note: &Confidence, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"field":"#);
    json_string(note.field, out);
    out.extend_from_slice(match note.bound {
        Bound::Lower => br#","bound":"lower","why":"#.as_slice(),
        Bound::Upper => br#","bound":"upper","why":"#,
        Bound::Estimate => br#","bound":"estimate","why":"#,
        Bound::Unknown => br#","bound":"unknown","why":"#,
    });
    json_string(note.why, out);
    out.push(b'}');
}

fn group(group: &Group, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"comm":"#);
    json_string(&group.comm, out);
    out.extend_from_slice(match group.role {
        Some(Role::Client) => br#","role":"client","destination":"#.as_slice(),
        Some(Role::Server) => br#","role":"server","destination":"#,
        None => br#","role":null,"destination":"#,
    });
    json_string(&group.destination, out);
    let (local, peer, none) = group.closers;
    let idle = |pick: fn((Nanos, Nanos, Nanos)) -> Nanos| group.idle.map(pick);
    for (key, count) in [
        (br#","connections":"#.as_slice(), group.connections),
        (br#","open":"#, group.open),
        (br#","failed":"#, group.failed),
        (br#","closed_by_local":"#, local),
        (br#","closed_by_peer":"#, peer),
        (br#","closed_by_none":"#, none),
    ] {
        out.extend_from_slice(key);
        decimal(count, out);
    }
    for (key, bytes) in [(br#","bytes_sent":"#.as_slice(), group.bytes.0), (br#","bytes_received":"#, group.bytes.1)] {
        out.extend_from_slice(key);
        optional(bytes, out, decimal);
    }
    for (key, duration) in [
        (br#","setup_ms":"#.as_slice(), Some(group.setup)),
        (br#","connect_median_ms":"#, group.connect_median),
        (br#","idle_min_ms":"#, idle(|(smallest, _, _)| smallest)),
        (br#","idle_median_ms":"#, idle(|(_, median, _)| median)),
        (br#","idle_max_ms":"#, idle(|(_, _, largest)| largest)),
    ] {
        out.extend_from_slice(key);
        optional(duration, out, milliseconds);
    }
    group_exchanges(group, out);
    out.push(b'}');
}

fn group_exchanges(group: &Group, out: &mut Vec<u8>) {
    let known = group.exchanges.as_ref();
    let count = |pick: fn(&GroupExchanges) -> u64| known.map(pick);
    for (key, count) in [
        (br#","exchanges":"#.as_slice(), count(|exchanges| exchanges.count)),
        (br#","cold":"#, count(|exchanges| exchanges.cold)),
        (br#","warm":"#, count(|exchanges| exchanges.warm)),
        (br#","stale":"#, count(|exchanges| exchanges.stale)),
    ] {
        out.extend_from_slice(key);
        optional(count, out, decimal);
    }
    let time = |pick: fn(&GroupExchanges) -> Option<Nanos>| known.and_then(pick);
    // Thousandths, by way of the milliseconds' decimals.
    let each = known.and_then(|known| (known.count.saturating_mul(1_000)).checked_div(group.connections));
    for (key, value) in [
        (br#","exchanges_per_connection":"#.as_slice(), each.map(|thousandths| thousandths.saturating_mul(1_000))),
        (br#","cold_median_ms":"#, time(|exchanges| exchanges.cold_median)),
        (br#","cold_first_byte_median_ms":"#, time(|exchanges| exchanges.cold_first_byte_median)),
        (br#","warm_median_ms":"#, time(|exchanges| exchanges.warm_median)),
        (br#","setup_total_ms":{"dns_ms":"#, known.map(|exchanges| exchanges.dns)),
        (br#","connect_ms":"#, Some(group.setup)),
        (br#","handshake_ms":"#, known.map(|exchanges| exchanges.handshake)),
    ] {
        out.extend_from_slice(key);
        optional(value, out, milliseconds);
    }
    out.push(b'}');
}

fn hook(hook: &Hook, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"name":"#);
    json_string(&hook.name, out);
    for (key, value) in [
        (br#","backend":"#.as_slice(), &hook.backend),
        (br#","reason":"#, &hook.reason),
        (br#","without":"#, &hook.without),
    ] {
        out.extend_from_slice(key);
        optional(value.as_deref(), out, json_string);
    }
    out.push(b'}');
}

pub(super) fn array<T>(array: &[T], out: &mut Vec<u8>, write: impl FnMut(&T, &mut Vec<u8>)) {
    out.push(b'[');
    items(array, out, write);
    out.push(b']');
}

fn items<T>(items: &[T], out: &mut Vec<u8>, mut write: impl FnMut(&T, &mut Vec<u8>)) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
}

#[inline(always)]
pub(super) fn optional<T, P: Put>(value: Option<T>, out: &mut P, write: impl FnOnce(T, &mut P)) {
    match value {
        Some(value) => write(value, out),
        None => out.literal(b"null"),
    }
}

#[inline]
pub(super) fn boolean(value: bool, out: &mut impl Put) {
    match value {
        true => out.literal(b"true"),
        false => out.literal(b"false"),
    }
}
