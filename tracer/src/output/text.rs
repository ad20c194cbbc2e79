//! Text for people: one line a connection, and a table at the end.

use std::net::SocketAddr;

use super::{
    Output,
    escape::plain,
    finding_text,
    number::clock,
    phases::phases,
    summary,
    units::{duration, size},
    words::{Gravity, ending},
};
use crate::{
    findings::finding::Finding,
    track::record::{Connection, DetailChange, Exchange, Lookup, LookupWay, Loss, Process, Record, Role, WallTime},
};

/// Widths of the columns before the free text, in characters; what is longer pushes the rest aside.
const PROCESS_WIDTH: usize = 22;
const REMOTE_WIDTH: usize = 21;
/// An arrow before it.
const WHOM_WIDTH: usize = REMOTE_WIDTH + 3;
const VALUE_WIDTH: usize = 7;

/// The text writer.
pub struct Text {
    paint: Paint,
    verbose: bool,
}

impl Text {
    /// With colours only if told so: whether this is a terminal is for others to know. A line for each exchange and
    /// each lookup, also those that went well, only if `verbose`.
    pub fn new(colour: bool, verbose: bool) -> Self {
        Self { paint: Paint { colour }, verbose }
    }

    /// Its colours.
    pub(super) fn paint(&self) -> Paint {
        self.paint
    }
}

impl Output for Text {
    fn record(&mut self, record: &Record, out: &mut Vec<u8>) {
        let line = match record {
            Record::Lookup(lookup) if !self.verbose && !lookup.failed() && lookup.retries == 0 => return,
            Record::Lookup(lookup) => self.lookup(lookup),
            Record::Open(connection) => self.open(connection),
            Record::Connection(connection) => self.connection(connection),
            Record::Exchange(_) if !self.verbose => return,
            Record::Exchange(exchange) => self.exchange(exchange),
            Record::Throttling(_) => return,
            Record::Loss(loss) => self.loss(loss),
            Record::Detail(change) => self.detail(change),
            Record::Summary(summary) => summary::text(summary, self.paint),
        };
        out.extend_from_slice(line.trim_end().as_bytes());
        out.push(b'\n');
    }

    fn finding(&mut self, finding: &Finding, out: &mut Vec<u8>) {
        out.extend_from_slice(finding_text::text(finding, self.paint).as_bytes());
    }

    fn wants_exchanges(&self) -> bool {
        self.verbose
    }
}

impl Text {
    fn open(&self, connection: &Connection) -> String {
        let what = match (connection.preexisting, connection.connect) {
            (true, _) => "open since before the trace".into(),
            (false, Some(connect)) => format!("open, connect {}", duration(connect)),
            (false, None) => "open".into(),
        };
        format!("{}{}", self.head(connection, connection.opened_at), self.paint.dim(&what))
    }

    fn connection(&self, connection: &Connection) -> String {
        let (words, gravity) = ending(connection);
        let words = match gravity {
            Gravity::Calm => words,
            Gravity::Odd => self.paint.yellow(&words),
            Gravity::Bad => self.paint.red(&words),
        };
        let close = connection.close.as_ref();
        let ended_at = close.and_then(|close| close.ended_at);
        let head = self.head(connection, ended_at.or(connection.closed_at).or(connection.opened_at));
        if !connection.established {
            return format!("{head}{words}");
        }
        let connect = match connection.role {
            Some(Role::Client) => column("connect", connection.connect.map(duration)),
            Some(Role::Server) => column("accepted", None),
            None => column("", None),
        };
        let values = [
            column("lived", connection.lifetime.map(duration)),
            column("sent", connection.bytes_sent.map(size)),
            column("recv", connection.bytes_received.map(size)),
        ];
        format!("{head}{connect}{}{words}", values.concat())
    }

    fn exchange(&self, exchange: &Exchange) -> String {
        let ends = Ends {
            process: &exchange.process,
            role: exchange.role,
            remote: exchange.remote,
            local_port: exchange.local_port,
        };
        let words = phases(exchange);
        let words = match exchange.stale {
            true => self.paint.red(&words),
            false => self.paint.dim(&words),
        };
        format!("{}{words}", self.line_head(&ends, exchange.began_at))
    }

    fn head(&self, connection: &Connection, at: Option<WallTime>) -> String {
        let ends = Ends {
            process: &connection.process,
            role: connection.role,
            remote: connection.remote,
            local_port: connection.local.port(),
        };
        self.line_head(&ends, at)
    }

    /// Time, process, direction and the other end.
    fn line_head(&self, ends: &Ends<'_>, at: Option<WallTime>) -> String {
        let direction = match ends.role {
            Some(Role::Client) => "->",
            Some(Role::Server) => "<-",
            None => "--",
        };
        let process = process(ends.process);
        let local = match ends.role {
            Some(Role::Client) => String::new(),
            _ => format!(" at :{}", ends.local_port),
        };
        let ends = format!("{}{local}", ends.remote);
        let time = self.paint.dim(&time_of_day(at));
        format!("{time}  {process:<PROCESS_WIDTH$}  {direction} {ends:<REMOTE_WIDTH$}  ")
    }

    /// `lookup of example.org (A): answered after 7.30 ms`
    fn lookup(&self, lookup: &Lookup) -> String {
        let time = self.paint.dim(&time_of_day(Some(lookup.asked_at)));
        let process = process(&lookup.process);
        let whom = match lookup.way {
            LookupWay::Port53 { server, .. } => format!("-> {server}"),
            LookupWay::GetAddrInfo => "by getaddrinfo".to_owned(),
        };
        let record_type = lookup.record_type.as_deref().unwrap_or("A and AAAA");
        let question = format!("lookup of {} ({})", plain(&lookup.name), plain(record_type));
        let outcome = match (&lookup.rcode, lookup.latency) {
            (Some(rcode), Some(latency)) if lookup.failed() => format!("{} after {}", plain(rcode), duration(latency)),
            (Some(_), Some(latency)) => format!("answered after {}", duration(latency)),
            _ => "no answer".into(),
        };
        let retries = match lookup.retries {
            0 => String::new(),
            1 => ", asked again once".into(),
            times => format!(", asked again {times} times"),
        };
        let words = format!("{question}: {outcome}{retries}");
        let words = match (lookup.failed(), lookup.retries) {
            (true, _) => self.paint.red(&words),
            (false, 0) => self.paint.dim(&words),
            (false, _) => self.paint.yellow(&words),
        };
        format!("{time}  {process:<PROCESS_WIDTH$}  {whom:<WHOM_WIDTH$}  {words}")
    }

    fn detail(&self, change: &DetailChange) -> String {
        format!("{}  {}", self.paint.dim(&time_of_day(Some(change.at))), self.paint.yellow(&change.to_string()))
    }

    fn loss(&self, loss: &Loss) -> String {
        let Loss { at, place, cause, count } = loss;
        let (place, cause) = (plain(place), plain(cause));
        let words = self.paint.red(&format!("LOST {count} in the {place}: {cause}"));
        format!("{}  {words}", self.paint.dim(&time_of_day(Some(*at))))
    }
}

/// Who talks to whom.
struct Ends<'r> {
    process: &'r Process,
    role: Option<Role>,
    remote: SocketAddr,
    local_port: u16,
}

/// `curl[1234]`; `curl[host:1234]` if it has no number in the tracer's PID namespace.
fn process(process: &Process) -> String {
    let name = if process.comm.is_empty() { "?".into() } else { plain(&process.comm) };
    match process.numbers() {
        (0, Some(host)) => format!("{name}[host:{host}]"),
        (own, _) => format!("{name}[{own}]"),
    }
}

/// A label and its value, or as much room.
fn column(label: &str, value: Option<String>) -> String {
    match value {
        Some(value) => format!("{label} {value:>VALUE_WIDTH$}  "),
        None if label == "accepted" => {
            format!("{label:<width$}  ", width = "connect ".len() + VALUE_WIDTH)
        }
        None => format!("{label} {:>VALUE_WIDTH$}  ", "?"),
    }
}

/// `03:14:33.123`, UTC.
pub(super) fn time_of_day(at: Option<WallTime>) -> String {
    let Some(WallTime(nanos)) = at else {
        return " ".repeat("03:14:33.123".len());
    };
    let clock = clock(nanos / 1_000_000_000 % 86_400);
    format!("{}.{:03}", clock.escape_ascii(), nanos / 1_000_000 % 1_000)
}

/// Colours, or none.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    colour: bool,
}

impl Paint {
    /// For what matters less.
    pub fn dim(self, text: &str) -> String {
        self.with("\x1b[2m", text)
    }

    /// For headings.
    pub fn bold(self, text: &str) -> String {
        self.with("\x1b[1m", text)
    }

    /// For what is odd.
    pub fn yellow(self, text: &str) -> String {
        self.with("\x1b[33m", text)
    }

    /// For failures and losses.
    pub fn red(self, text: &str) -> String {
        self.with("\x1b[31m", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.colour { format!("{code}{text}\x1b[0m") } else { text.to_owned() }
    }
}
