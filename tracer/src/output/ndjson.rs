//! NDJSON: one object a line, as `docs/ndjson.md` promises.
//!
//! Every connection costs two lines, so they are written by hand: keys as literals, numbers by integer arithmetic, and
//! what belongs to a process from a cache. A test compares each line with what a JSON library makes of the record.

use std::rc::Rc;

use foldhash::fast::RandomState;
use hashlink::LinkedHashMap;

use super::{
    Output, errno,
    escape::json_string,
    number::{Times, address, decimal, hex, milliseconds},
};
use crate::track::record::{
    Bound, Close, Closer, Confidence, Connection, ConnectionId, Group, Hook, How, Loss, Nanos, Process, Record, Role,
    Summary, WallTime,
};

/// Processes whose fragment is kept.
const MAX_FRAGMENTS: usize = 1024;

/// The NDJSON writer.
#[derive(Default)]
pub struct Ndjson {
    times: Times,
    fragments: Fragments,
}

impl Output for Ndjson {
    fn record(&mut self, record: &Record, out: &mut Vec<u8>) {
        match record {
            Record::Open(connection) => self.open(connection, out),
            Record::Connection(connection) => self.connection(connection, out),
            Record::Loss(loss) => {
                out.extend_from_slice(br#"{"type":"loss","#);
                self.loss_fields(loss, out);
            }
            Record::Summary(summary) => self.summary(summary, out),
        }
        out.extend_from_slice(b"}\n");
    }
}

impl Ndjson {
    fn open(&mut self, connection: &Connection, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"type":"open","id":""#);
        self.identity(connection, out);
        out.extend_from_slice(if connection.preexisting {
            br#","preexisting":true,"dns_ms":null,"connect_ms":"#
        } else {
            br#","preexisting":false,"dns_ms":null,"connect_ms":"#
        });
        optional(connection.connect, out, milliseconds);
        out.extend_from_slice(br#","syn_retransmits":"#);
        optional(connection.syn_retransmits, out, decimal);
    }

    fn connection(&mut self, connection: &Connection, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"type":"connection","id":""#);
        self.identity(connection, out);
        out.extend_from_slice(br#","closed_at":"#);
        self.time(connection.closed_at, out);
        out.extend_from_slice(br#","lifetime_ms":"#);
        optional(connection.lifetime, out, milliseconds);
        out.extend_from_slice(br#","open":"#);
        boolean(connection.open, out);
        out.extend_from_slice(br#","preexisting":"#);
        boolean(connection.preexisting, out);
        out.extend_from_slice(br#","dns_ms":null,"connect_ms":"#);
        optional(connection.connect, out, milliseconds);
        out.extend_from_slice(br#","syn_retransmits":"#);
        optional(connection.syn_retransmits, out, decimal);
        out.extend_from_slice(br#","tls":null,"exchanges":null,"bytes_sent":"#);
        optional(connection.bytes_sent, out, decimal);
        out.extend_from_slice(br#","bytes_received":"#);
        optional(connection.bytes_received, out, decimal);
        out.extend_from_slice(br#","retransmits":"#);
        optional(connection.retransmits, out, decimal);
        out.extend_from_slice(br#","srtt_ms":"#);
        optional(connection.srtt, out, milliseconds);
        out.extend_from_slice(br#","keepalive":"#);
        optional(connection.keepalive, out, boolean);
        out.extend_from_slice(br#","idle_before_close_ms":"#);
        optional(connection.idle_before_close, out, milliseconds);
        out.extend_from_slice(br#","max_idle_ms":null,"close":"#);
        match &connection.close {
            Some(close) => self.close(close, out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(br#","stale_exchange":null,"confidence":"#);
        array(&connection.confidence, out, confidence);
    }

    /// The fields that `open` and `connection` begin with, from inside the quotes of `id`.
    fn identity(&mut self, connection: &Connection, out: &mut Vec<u8>) {
        id(connection.id, out);
        out.extend_from_slice(self.fragments.of(connection));
        address(connection.local, out);
        out.extend_from_slice(br#"","remote":""#);
        address(connection.remote, out);
        out.extend_from_slice(br#"","remote_name":null,"remote_name_source":null,"opened_at":"#);
        self.time(connection.opened_at, out);
    }

    fn close(&mut self, close: &Close, out: &mut Vec<u8>) {
        out.extend_from_slice(match close.closer {
            Closer::Local => br#"{"closer":"local","how":""#.as_slice(),
            Closer::Peer => br#"{"closer":"peer","how":""#,
            Closer::None => br#"{"closer":"none","how":""#,
        });
        out.extend_from_slice(how(close.how));
        out.extend_from_slice(br#"","errno":"#);
        optional(close.errno, out, |number, out| {
            out.push(b'"');
            out.extend_from_slice(errno::text(number).as_bytes());
            out.push(b'"');
        });
        out.extend_from_slice(br#","process_exited":"#);
        boolean(close.process_exited, out);
        out.extend_from_slice(br#","unnoticed_ms":"#);
        optional(close.unnoticed, out, milliseconds);
        out.extend_from_slice(br#","released_at":"#);
        self.time(close.released_at, out);
        out.extend_from_slice(br#","ended_at":"#);
        self.time(close.ended_at, out);
        out.push(b'}');
    }

    fn loss_fields(&mut self, loss: &Loss, out: &mut Vec<u8>) {
        out.extend_from_slice(br#""at":"#);
        self.time(Some(loss.at), out);
        out.extend_from_slice(br#","place":"#);
        json_string(&loss.place, out);
        out.extend_from_slice(br#","cause":"#);
        json_string(&loss.cause, out);
        out.extend_from_slice(br#","count":"#);
        decimal(loss.count, out);
    }

    fn summary(&mut self, summary: &Summary, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"type":"summary","began_at":"#);
        self.time(Some(summary.began_at), out);
        out.extend_from_slice(br#","stopped_at":"#);
        self.time(Some(summary.stopped_at), out);
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
    }

    fn time(&mut self, time: Option<WallTime>, out: &mut Vec<u8>) {
        optional(time, out, |time, out| {
            out.push(b'"');
            self.times.rfc3339(time, out);
            out.push(b'"');
        });
    }
}

/// The part of a line that is the same for most connections of a process, by the process's address; holding it keeps the
/// address its own.
struct Fragments {
    by_address: LinkedHashMap<*const Process, Fragment, RandomState>,
}

struct Fragment {
    process: Rc<Process>,
    /// What else the text holds.
    rest: Rest,
    text: Vec<u8>,
}

/// What a fragment holds besides the process.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rest {
    tid: Option<u32>,
    netns: Option<u32>,
    role: Option<Role>,
    is_ipv4: bool,
}

impl Default for Fragments {
    fn default() -> Self {
        Self { by_address: LinkedHashMap::with_hasher(RandomState::default()) }
    }
}

impl Fragments {
    /// From the end of `id` to the quote that begins `local`.
    fn of(&mut self, connection: &Connection) -> &[u8] {
        let process = &connection.process;
        let address = Rc::as_ptr(process);
        if self.by_address.len() >= MAX_FRAGMENTS && !self.by_address.contains_key(&address) {
            self.by_address.pop_front();
        }
        let Connection { tid, netns, role, .. } = *connection;
        let rest = Rest { tid, netns, role, is_ipv4: connection.remote.is_ipv4() };
        let fragment = self.by_address.entry(address).or_insert_with(|| Fragment {
            process: Rc::clone(process),
            rest,
            text: fragment(process, rest),
        });
        if fragment.rest != rest {
            fragment.rest = rest;
            fragment.text = self::fragment(&fragment.process, rest);
        }
        &fragment.text
    }
}

fn fragment(process: &Process, rest: Rest) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(br#"","pid":"#);
    decimal(process.pid, &mut out);
    out.extend_from_slice(br#","tid":"#);
    optional(rest.tid, &mut out, decimal);
    out.extend_from_slice(br#","comm":"#);
    json_string(&process.comm, &mut out);
    out.extend_from_slice(br#","exe":"#);
    optional(process.exe.as_deref(), &mut out, json_string);
    out.extend_from_slice(br#","container":"#);
    optional(process.container.as_deref(), &mut out, json_string);
    out.extend_from_slice(br#","netns":"#);
    optional(rest.netns, &mut out, decimal);
    out.extend_from_slice(match rest.role {
        Some(Role::Client) => br#","role":"client","family":"#.as_slice(),
        Some(Role::Server) => br#","role":"server","family":"#,
        None => br#","role":null,"family":"#,
    });
    out.extend_from_slice(match rest.is_ipv4 {
        true => br#""ipv4","local":""#,
        false => br#""ipv6","local":""#,
    });
    out
}

fn id(id: ConnectionId, out: &mut Vec<u8>) {
    hex(id.socket, out);
    if id.life > 0 {
        out.push(b'.');
        decimal(id.life, out);
    }
}

fn how(how: How) -> &'static [u8] {
    match how {
        How::Fin => b"fin",
        How::Rst => b"rst",
        How::Timeout => b"timeout",
        How::Refused => b"refused",
        How::Unreachable => b"unreachable",
        How::Aborted => b"aborted",
    }
}

fn confidence(note: &Confidence, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"field":"#);
    json_string(note.field, out);
    out.extend_from_slice(match note.bound {
        Bound::Lower => br#","bound":"lower","why":"#.as_slice(),
        Bound::Upper => br#","bound":"upper","why":"#,
        Bound::Estimate => br#","bound":"estimate","why":"#,
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
        (br#","bytes_sent":"#, group.bytes.0),
        (br#","bytes_received":"#, group.bytes.1),
    ] {
        out.extend_from_slice(key);
        decimal(count, out);
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

fn array<T>(items: &[T], out: &mut Vec<u8>, mut write: impl FnMut(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

fn optional<T>(value: Option<T>, out: &mut Vec<u8>, write: impl FnOnce(T, &mut Vec<u8>)) {
    match value {
        Some(value) => write(value, out),
        None => out.extend_from_slice(b"null"),
    }
}

fn boolean(value: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if value { b"true".as_slice() } else { b"false" });
}
