//! The output as the contract has it (`docs/ndjson.md`). A field too many or too few is an error: the contract would have
//! changed.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// One line of NDJSON.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// A connection was established or adopted.
    Open(Open),
    /// A connection's whole life.
    Connection(Box<Connection>),
    /// One turn of request and response on a connection.
    Exchange(Box<Exchange>),
    /// A name was looked up.
    Dns(Box<Lookup>),
    /// Something is wrong, and what to do about it.
    Finding(Box<Finding>),
    /// Something was lost.
    Loss(Loss),
    /// Detail was lowered or raised.
    Detail(DetailChange),
    /// The last line.
    Summary(Summary),
}

/// The side of the traced process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It connected.
    Client,
    /// It accepted.
    Server,
}

/// Who ended it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Closer {
    /// The traced process.
    Local,
    /// The other end.
    Peer,
    /// Nobody.
    None,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Orderly.
    Fin,
    /// Reset.
    Rst,
    /// No answer.
    Timeout,
    /// Nobody listened.
    Refused,
    /// No way there.
    Unreachable,
    /// Given up before the answer.
    Aborted,
}

/// The `detail` record.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetailChange {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub detail: String,
    pub overhead_percent: f64,
    pub limit_percent: f64,
    pub programs_counted: bool,
}

/// The `open` record.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    pub id: String,
    pub pid: u32,
    #[serde(default)]
    pub host_pid: Option<u32>,
    pub tid: Option<u32>,
    pub comm: String,
    pub exe: Option<String>,
    pub container: Option<String>,
    pub netns: Option<u32>,
    pub role: Option<Role>,
    pub family: String,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub remote_name: Option<String>,
    pub remote_name_source: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub opened_at: Option<OffsetDateTime>,
    pub preexisting: bool,
    pub dns_ms: Option<f64>,
    pub connect_ms: Option<f64>,
    pub syn_retransmits: Option<u32>,
}

/// The `connection` record.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    pub id: String,
    pub pid: u32,
    #[serde(default)]
    pub host_pid: Option<u32>,
    pub tid: Option<u32>,
    pub comm: String,
    pub exe: Option<String>,
    pub container: Option<String>,
    pub netns: Option<u32>,
    pub role: Option<Role>,
    pub family: String,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub remote_name: Option<String>,
    pub remote_name_source: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub opened_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub closed_at: Option<OffsetDateTime>,
    pub lifetime_ms: Option<f64>,
    pub open: bool,
    pub preexisting: bool,
    pub dns_ms: Option<f64>,
    pub connect_ms: Option<f64>,
    pub syn_retransmits: Option<u32>,
    pub tls: Option<Tls>,
    pub exchanges: Option<u64>,
    pub bytes_sent: Option<u64>,
    pub bytes_received: Option<u64>,
    pub retransmits: Option<u32>,
    pub srtt_ms: Option<f64>,
    pub keepalive: Option<bool>,
    pub idle_before_close_ms: Option<f64>,
    pub max_idle_ms: Option<f64>,
    pub close: Option<Close>,
    pub stale_exchange: Option<bool>,
    pub confidence: Vec<Confidence>,
}

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Close {
    pub closer: Closer,
    pub how: How,
    pub errno: Option<String>,
    pub process_exited: bool,
    pub unnoticed_ms: Option<f64>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub released_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
}

/// A connection's TLS handshake.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub handshake_ms: Option<f64>,
    pub version: Option<String>,
    pub sni: Option<String>,
    pub alpn_offered: Option<Vec<String>>,
    pub alpn: Option<String>,
    pub versions_offered: Option<Vec<String>>,
    pub cipher: Option<String>,
    pub resumed: Option<bool>,
    pub retried: Option<bool>,
    pub mid_stream: Option<bool>,
    pub library: Option<String>,
    pub source: String,
    pub cpu_ms: Option<f64>,
    pub runqueue_ms: Option<f64>,
    pub wait_ms: Option<f64>,
    pub failed: Option<Failed>,
}

/// How a handshake failed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    pub how: String,
    pub by: Closer,
    pub alert: Option<String>,
    pub after_ms: Option<f64>,
}

/// The `exchange` record.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    pub connection: String,
    pub index: u64,
    pub pid: u32,
    #[serde(default)]
    pub host_pid: Option<u32>,
    pub comm: String,
    pub role: Option<Role>,
    pub remote: SocketAddr,
    pub remote_name: Option<String>,
    pub cold: Option<bool>,
    pub greeting: bool,
    #[serde(with = "time::serde::rfc3339::option")]
    pub began_at: Option<OffsetDateTime>,
    pub idle_before_ms: Option<f64>,
    pub first_byte_ms: Option<f64>,
    pub duration_ms: Option<f64>,
    pub bytes_out: Option<u64>,
    pub bytes_in: Option<u64>,
    pub setup: Option<Setup>,
    pub http: Option<Http>,
    pub stale: bool,
    pub open: bool,
    pub confidence: Vec<Confidence>,
}

/// What the heads of HTTP said.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub method: Option<String>,
    pub status: Option<u16>,
    pub version: Option<String>,
    pub host: Option<String>,
    pub connection_header: Vec<String>,
    pub close_asked: Option<String>,
    pub keep_alive: Option<HttpKeepAlive>,
}

/// The Keep-Alive header.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpKeepAlive {
    pub timeout_s: Option<u64>,
    pub max: Option<u64>,
}

/// What a cold exchange paid before its first byte could be sent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    pub dns_ms: Option<f64>,
    pub connect_ms: Option<f64>,
    pub handshake_ms: Option<f64>,
    pub total_ms: Option<f64>,
}

/// A remark on a value that is not exact.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confidence {
    pub field: String,
    pub bound: String,
    pub why: String,
}

/// The `dns` record: one lookup.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    pub pid: u32,
    #[serde(default)]
    pub host_pid: Option<u32>,
    pub tid: u32,
    pub comm: String,
    pub exe: Option<String>,
    pub container: Option<String>,
    pub netns: Option<u32>,
    pub source: String,
    pub server: Option<SocketAddr>,
    pub transport: Option<String>,
    pub name: String,
    pub record_type: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub asked_at: OffsetDateTime,
    pub latency_ms: Option<f64>,
    pub rcode: Option<String>,
    pub answers: Vec<IpAddr>,
    pub retries: u32,
    pub failed: bool,
}

impl Lookup {
    /// Whom it asked on port 53, and over what.
    #[track_caller]
    pub fn asked(&self) -> (SocketAddr, &str) {
        match (self.source.as_str(), self.server, &self.transport) {
            ("port53", Some(server), Some(transport)) => (server, transport),
            _ => panic!("no server was asked: {self:?}"),
        }
    }
}

/// The `finding` record: a diagnosis.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    pub rule: String,
    pub severity: Grade,
    pub confidence: Grade,
    #[serde(with = "time::serde::rfc3339")]
    pub found_at: OffsetDateTime,
    pub comm: String,
    /// None of lookups.
    pub role: Option<Role>,
    pub destination: String,
    pub title: String,
    pub cost_ms: Option<f64>,
    pub cost_ms_per_minute: Option<f64>,
    /// Each rule has its own; see [`Finding::number`].
    pub evidence: serde_json::Map<String, serde_json::Value>,
    pub examples: Vec<Example>,
    pub advice: String,
    pub hint: Option<String>,
    pub would_change: String,
    pub caveats: Vec<String>,
}

/// How bad, or how sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}

/// A connection that shows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    pub connection: String,
    #[serde(with = "time::serde::rfc3339::option")]
    pub at: Option<OffsetDateTime>,
    pub what: String,
}

/// Something that was lost.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub place: String,
    pub cause: String,
    pub count: u64,
}

/// The last record. Its groups are for people; the tests look at the totals.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    #[serde(with = "time::serde::rfc3339")]
    pub began_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub stopped_at: OffsetDateTime,
    pub connections: u64,
    pub open: u64,
    pub groups: Vec<serde_json::Value>,
    pub other: Option<serde_json::Value>,
    pub hooks: Vec<Hook>,
    pub losses: Vec<Loss>,
    pub remarks: Vec<String>,
}

/// How a hook is attached.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    pub name: String,
    pub backend: Option<String>,
    pub reason: Option<String>,
    pub without: Option<String>,
}

impl Finding {
    /// A figure of its evidence; fails if it is not known.
    #[track_caller]
    pub fn number(&self, field: &str) -> f64 {
        let value = self.evidence.get(field).and_then(serde_json::Value::as_f64);
        value.unwrap_or_else(|| panic!("{field} is no number: {self:#?}"))
    }

    /// Fails unless a figure lies within so much of the truth.
    #[track_caller]
    pub fn assert_near(&self, field: &str, truth: f64, within: f64) {
        let value = self.number(field);
        assert!((value - truth).abs() <= within, "{field} is {value}, not {truth} ± {within}: {self:#?}");
    }

    /// Fails unless it says what to do, what would change it, and shows connections.
    #[track_caller]
    pub fn assert_whole(&self) {
        for (what, text) in [("title", &self.title), ("advice", &self.advice), ("would_change", &self.would_change)] {
            assert!(!text.trim().is_empty() && !text.contains('\n'), "{what}: {self:#?}");
        }
        assert!((1..=3).contains(&self.examples.len()), "{self:#?}");
        assert!(self.examples.iter().all(|example| !example.what.trim().is_empty()), "{self:#?}");
    }
}

impl Tls {
    /// How its handshake failed; fails if it did not.
    #[track_caller]
    pub fn failed(&self) -> &Failed {
        self.failed.as_ref().unwrap_or_else(|| panic!("this handshake did not fail: {self:#?}"))
    }
}

impl Connection {
    /// Its end; fails if it has none.
    #[track_caller]
    pub fn close(&self) -> &Close {
        self.close.as_ref().unwrap_or_else(|| panic!("nothing has ended this connection: {self:#?}"))
    }

    /// Its TLS handshake; fails if none was seen.
    #[track_caller]
    pub fn tls(&self) -> &Tls {
        self.tls.as_ref().unwrap_or_else(|| panic!("no TLS was seen: {self:#?}"))
    }

    /// Fails unless this is who ended it, and how.
    #[track_caller]
    pub fn assert_ended(&self, closer: Closer, how: How) {
        let close = self.close();
        assert_eq!((close.closer, close.how), (closer, how), "{self:#?}");
        assert!(!self.open, "it ended: {self:#?}");
    }

    /// Fails unless these payload bytes went out and came in.
    #[track_caller]
    pub fn assert_bytes(&self, sent: u64, received: u64) {
        assert_eq!((self.bytes_sent, self.bytes_received), (Some(sent), Some(received)), "{self:#?}");
    }

    /// How far its idle time may be off: the kernel's own is all there is where no data was seen to pass, and of what is
    /// still open.
    fn idle_slack_ms(&self) -> f64 {
        let was_seen = self.exchanges.is_some_and(|count| count > 0) && !self.preexisting && !self.open;
        if was_seen { EXACT_SLACK_MS } else { IDLE_SLACK_MS }
    }

    /// Fails unless the idle time before the close lies between these, give or take what it may be off: see
    /// [`Connection::idle_slack_ms`].
    #[track_caller]
    pub fn assert_idle(&self, at_least_ms: f64, at_most_ms: f64) {
        let idle = self.idle_before_close_ms.unwrap_or_else(|| panic!("idle time is not known: {self:#?}"));
        assert!(
            (at_least_ms - self.idle_slack_ms()..=at_most_ms + self.idle_slack_ms()).contains(&idle),
            "idle {idle} ms, but it was {at_least_ms}..{at_most_ms} ms: {self:#?}"
        );
    }
}

/// How far `idle_before_close_ms` may be off where it is the kernel's. The kernel counts in ticks of 4 ms (HZ=250) and one
/// is cut at either end; but where the processor is emulated on a busy machine, ticks come late and in bunches: 31 ms have
/// been seen.
pub const IDLE_SLACK_MS: f64 = 60.0;

/// The same where the hooks saw the last data and the end: no ticks, only that two clock readings are not one.
pub const EXACT_SLACK_MS: f64 = 1.0;
