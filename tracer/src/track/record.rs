//! What the correlator puts out: one type a record of the output, in the vocabulary of `docs/ndjson.md`.
//!
//! Times are wall clock, durations are nanoseconds, and `None` means "not known"; the outputs turn them into RFC 3339
//! and milliseconds.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use tracer_ebpf::pid;

/// Wall-clock time in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub u64);

/// A duration in nanoseconds.
pub type Nanos = u64;

/// One record of the output.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A connection was established, or adopted.
    Open(Connection),
    /// A connection's whole life; once, when it ended or the trace stopped.
    Connection(Connection),
    /// One turn of request and response, when its end is known.
    Exchange(Exchange),
    /// A lookup is over.
    Lookup(Lookup),
    /// A cgroup with a quota was not let run. For findings; no output has a line for it.
    Throttling(Throttling),
    /// Something was lost.
    Loss(Loss),
    /// Exchanges are not looked at for now, or are again.
    Detail(DetailChange),
    /// The last record of every trace.
    Summary(Box<Summary>),
}

/// Identity of a connection, unique in one stream: the kernel's socket number and which of that socket's connections
/// it is (a socket can connect again after a failure).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Socket cookie, or a counted number (`tracer_ebpf::ID_COUNTED`).
    pub socket: u64,
    /// 0 for the socket's first connection.
    pub life: u32,
}

/// A process as the output names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id; see also [`Process::numbers`].
    pub pid: u32,
    /// The kernel's own number, the host's, where it is known and another.
    pub host_pid: Option<u32>,
    /// Start time on the boot clock, to tell reused PIDs apart; 0 if unknown.
    pub started_at: u64,
    /// Name; any characters, control characters too.
    pub comm: String,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Container id or systemd unit.
    pub container: Option<String>,
    /// What its cgroup may use of processors, when it was first seen; `None` without a quota.
    pub quota: Option<CpuQuota>,
}

/// What a cgroup may use of processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct CpuQuota {
    /// Thousandths of a processor.
    pub thousandths: u32,
    /// The number of the cgroup that has this quota: the process's own, or one above it.
    pub cgroup: u64,
}

impl Process {
    /// Its number in the tracer's PID namespace, 0 if it has none there, and the host's where that is another.
    pub fn numbers(&self) -> (u32, Option<u32>) {
        match self.pid & pid::OUTSIDE {
            0 => (self.pid, self.host_pid),
            _ => (0, Some(self.pid & !pid::OUTSIDE)),
        }
    }
}

/// Which side the traced process is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It connected.
    Client,
    /// It accepted.
    Server,
}

/// Who ended the connection first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closer {
    /// The traced process, or the kernel on its behalf.
    Local,
    /// The other end.
    Peer,
    /// Nobody: a timeout, a refused or failed connect.
    None,
}

/// The first sign of a connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// An orderly FIN.
    Fin,
    /// A reset of an established connection, by whoever `closer` says: linger 0, unread data, `SO_LINGER`, a dead peer.
    Rst,
    /// No answer: to the connect, to data, or to keepalive probes.
    Timeout,
    /// The connect was answered by an RST.
    Refused,
    /// The connect found no route, no host or no local address.
    Unreachable,
    /// The local side gave up a connect before it was answered, or an administrator killed the socket.
    Aborted,
}

/// How and by whom a connection ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Close {
    /// Who was first.
    pub closer: Closer,
    /// How.
    pub how: How,
    /// Socket error when it ended, as a positive errno.
    pub errno: Option<u32>,
    /// The kernel closed it because the process ended.
    pub process_exited: bool,
    /// From the peer's FIN or RST to the local release: how long a dead connection was kept.
    pub unnoticed: Option<Nanos>,
    /// That part of it in which nothing more passed: a peer that has only ended its own direction may still be sent to.
    pub unused: Option<Nanos>,
    /// When the application let go of it.
    pub released_at: Option<WallTime>,
    /// When TCP was done with it.
    pub ended_at: Option<WallTime>,
}

/// What kind of bound a value is, where it is not exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The true value may be larger.
    Lower,
    /// The true value may be smaller.
    Upper,
    /// The value may be off either way.
    Estimate,
    /// There is no value, and this is why.
    Unknown,
}

/// A remark on one value of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confidence {
    /// The field's name in the output.
    pub field: &'static str,
    /// What kind of bound it is.
    pub bound: Bound,
    /// Why, in plain words.
    pub why: &'static str,
}

/// One TCP connection as one process sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Identity.
    pub id: ConnectionId,
    /// Owner: the process that opened it, or that released it if that was another.
    pub process: Rc<Process>,
    /// Process that opened it, if not the owner.
    pub opened_by: Option<u32>,
    /// Thread of the owner; `None` for adopted connections.
    pub tid: Option<u32>,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// Role; `None` where it cannot be told (an adopted socket whose listener is gone).
    pub role: Option<Role>,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// Client: when the connect began. Server: when it was accepted. `None` if before the trace.
    pub opened_at: Option<WallTime>,
    /// When it ended and was released (the later of the two).
    pub closed_at: Option<WallTime>,
    /// From `opened_at` to the end of TCP, or to the end of the trace while open.
    pub lifetime: Option<Nanos>,
    /// TCP had not ended it when it was reported: the record says how it stood as the trace stopped.
    pub open: bool,
    /// It was open before the trace began.
    pub preexisting: bool,
    /// Client: the lookup by which the process got to the address.
    pub looked_up: Option<Rc<LookedUp>>,
    /// It was established at some time; a failed connect, or one that nothing has answered yet, was not.
    pub established: bool,
    /// Client: from the connect to ESTABLISHED, or to its failure.
    pub connect: Option<Nanos>,
    /// SYNs or SYN-ACKs sent again.
    pub syn_retransmits: Option<u32>,
    /// Payload bytes sent, each once.
    pub bytes_sent: Option<u64>,
    /// Payload bytes received.
    pub bytes_received: Option<u64>,
    /// Segments sent again.
    pub retransmits: Option<u32>,
    /// Smoothed round trip.
    pub srtt: Option<Nanos>,
    /// `SO_KEEPALIVE`.
    pub keepalive: Option<bool>,
    /// From the last payload either way to the first sign of the end; while open, to the end of the trace.
    pub idle_before_close: Option<Nanos>,
    /// Its exchanges; `None` in detail `connections`.
    pub exchanges: Option<Exchanges>,
    /// Its TLS; `None` if none was seen.
    pub tls: Option<Box<Tls>>,
    /// How it ended; `None` while nothing has ended it. A connection that the peer has closed and the application has
    /// not released has one while it is open: closer peer, `unnoticed` so far, `ended_at` unknown.
    pub close: Option<Close>,
    /// Where a value is a bound.
    pub confidence: Vec<Confidence>,
}

/// What a lookup gave a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookedUp {
    /// The name that had the connection's address.
    pub name: Rc<str>,
    /// What the lookup cost this connection: the call of `getaddrinfo` where one was seen, else from the first question to the
    /// last answer before the connect. 0 if the answer was there already, for an earlier connection.
    pub cost: Nanos,
}

/// What gave the remote end its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameSource {
    /// The name that the client asked for by TLS.
    Sni,
    /// A lookup before the connect.
    Dns,
}

/// The name of the remote end. What a client asks for by SNI is the name of the server: the remote end's only at the client. It is the
/// very one that is meant; a name that was looked up and has the address may be one of many.
pub fn remote_name<'r>(
    role: Option<Role>,
    hello: Option<&'r Hello>,
    looked_up: Option<&'r LookedUp>,
) -> Option<(&'r str, NameSource)> {
    let sni = hello.and_then(|hello| hello.sni.as_deref()).filter(|_| role != Some(Role::Server));
    let looked_up = looked_up.map(|looked_up| (&*looked_up.name, NameSource::Dns));
    sni.map(|name| (name, NameSource::Sni)).or(looked_up)
}

/// One lookup of a process, until it was answered or given up.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup {
    /// Who asked.
    pub process: Rc<Process>,
    /// Its thread.
    pub tid: u32,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// How it asked.
    pub way: LookupWay,
    /// The name; any characters.
    pub name: String,
    /// The type, such as `A`; `None` if addresses of both families were asked for at once.
    pub record_type: Option<String>,
    /// When it was first asked.
    pub asked_at: WallTime,
    /// From then to the answer; `None` if none came.
    pub latency: Option<Nanos>,
    /// What the server said or the call returned, such as `NOERROR`; `None` without an answer.
    pub rcode: Option<String>,
    /// Addresses in the answer.
    pub answers: Vec<IpAddr>,
    /// How often it was asked again.
    pub retries: u32,
}

/// How a name was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupWay {
    /// A DNS server was asked for one name and type.
    Port53 {
        /// Whom it asked first.
        server: SocketAddr,
        /// It was asked over TCP, at last.
        tcp: bool,
    },
    /// By the C library, which asked nobody on port 53.
    GetAddrInfo,
}

impl Lookup {
    /// No answer came, or one that says no.
    pub fn failed(&self) -> bool {
        self.rcode.as_deref() != Some("NOERROR")
    }
}

/// A connection's exchanges together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchanges {
    /// How many were begun.
    pub count: u32,
    /// Longest time without application data, be it between two exchanges or before the end.
    pub max_idle: Option<Nanos>,
    /// Any of them was begun when the peer had closed or dropped the connection.
    pub stale: bool,
}

/// One turn of request and response.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// On this connection.
    pub connection: ConnectionId,
    /// Which of the connection's exchanges, from 0.
    pub index: u32,
    /// The connection's owner.
    pub process: Rc<Process>,
    /// Role of the owner: a client asks, a server answers.
    pub role: Option<Role>,
    /// Local port.
    pub local_port: u16,
    /// Remote end.
    pub remote: SocketAddr,
    /// What the connection's TLS hellos say: they name the remote end.
    pub hello: Option<Rc<Hello>>,
    /// The lookup that led to the connection: it names the remote end if TLS does not.
    pub looked_up: Option<Rc<LookedUp>>,
    /// The first on its connection. `None` where that was open before the trace.
    pub cold: Option<bool>,
    /// The answering side spoke first, not only the first since the trace began.
    pub greeting: bool,
    /// First byte of the ask; of a greeting, when the connection was ready.
    pub began_at: Option<WallTime>,
    /// Time without application data before it; of the first, since the connection was ready.
    pub idle_before: Option<Nanos>,
    /// From the first byte of the ask to that of the answer; `None` without an answer.
    pub first_byte: Option<Nanos>,
    /// From the first byte of the ask to the last of the answer.
    pub duration: Option<Nanos>,
    /// Payload bytes that the owner sent.
    pub bytes_out: Option<u64>,
    /// Payload bytes that the owner received.
    pub bytes_in: Option<u64>,
    /// What a client's first exchange paid before it could ask.
    pub setup: Option<Box<Setup>>,
    /// The HTTP request that it began with, if it was one; of HTTP/2 only that it is that.
    pub request: Option<Rc<HttpHead>>,
    /// The HTTP response that its answer began with.
    pub response: Option<Rc<HttpHead>>,
    /// Begun when the peer had closed or dropped the connection.
    pub stale: bool,
    /// The trace stopped and it may go on.
    pub open: bool,
    /// Where a value is a bound.
    pub confidence: Vec<Confidence>,
}

/// What it took until a client's connection was ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// DNS lookup; `None` if none was seen.
    pub dns: Option<Nanos>,
    /// TCP connect.
    pub connect: Option<Nanos>,
    /// TLS handshake; `None` if there was none, or its time is not known.
    pub handshake: Option<Nanos>,
    /// Of that, on a processor, ready to run, and waiting for the peer.
    pub parts: Parts,
    /// All together; `None` if a part that there was is not known. A lookup that was not seen counts nothing.
    pub total: Option<Nanos>,
}

/// Where the time of a TLS handshake went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// On a processor.
    pub cpu: Option<Nanos>,
    /// Ready to run, but queued or throttled.
    pub runqueue: Option<Nanos>,
    /// The rest: waiting for the peer.
    pub wait: Option<Nanos>,
}

/// TLS on a connection, as it is seen on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// What the hello messages say.
    pub hello: Rc<Hello>,
    /// From the first byte of the ClientHello until application data may pass.
    pub handshake: Option<Nanos>,
    /// Where that went.
    pub parts: Parts,
    /// The server asked for another ClientHello; `None` if that is not known.
    pub retried: Option<bool>,
    /// It began after other data; `None` if that is not known.
    pub mid_stream: Option<bool>,
    /// The library that works on it, if it is known.
    pub library: Option<Rc<str>>,
    /// Where it was seen.
    pub source: TlsSource,
    /// How the handshake failed, if it did.
    pub failed: Option<TlsFailure>,
}

/// Where TLS was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsSource {
    /// In what passed: record headers and hello messages.
    #[default]
    Wire,
    /// In the library only.
    Uprobe,
    /// In both.
    Both,
}

impl TlsSource {
    /// The word in the output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Uprobe => "uprobe",
            Self::Both => "both",
        }
    }
}

/// A handshake that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// By which sign.
    pub how: TlsFailed,
    /// Whose sign it was.
    pub by: Closer,
    /// From the first byte of the ClientHello.
    pub after: Option<Nanos>,
}

/// What ended a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailed {
    /// An alert in the clear, with this description.
    Alert(u8),
    /// The end of the connection.
    Closed(How),
}

/// What the two hello messages of a TLS handshake say; the numbers are those of the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Hello {
    /// Version chosen.
    pub version: Option<u16>,
    /// Cipher suite chosen.
    pub cipher: Option<u16>,
    /// Name that the client asked for.
    pub sni: Option<String>,
    /// ALPN protocols offered; any characters.
    pub alpn_offered: Option<Vec<String>>,
    /// ALPN protocol chosen, where it is in the clear.
    pub alpn: Option<String>,
    /// Versions offered.
    pub versions_offered: Option<Vec<u16>>,
    /// An earlier session was taken up.
    pub resumed: Option<bool>,
}

/// What an HTTP head says, as far as it is kept: nothing else of its bytes is. Of a head that was cut, what its whole lines say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct HttpHead {
    /// Of a request.
    pub method: Option<HttpMethod>,
    /// Of a response: the final one if it came with the interim ones before it.
    pub status: Option<u16>,
    /// Version. That of HTTP/2 comes alone: it has no heads in this form.
    pub version: Option<HttpVersion>,
    /// Of a request: the Host header, with the port if it names one.
    pub host: Option<String>,
    /// Tokens of the Connection header, in lower case; empty if there was none.
    pub connection: Vec<String>,
    /// The Keep-Alive header.
    pub keep_alive: Option<KeepAlive>,
}

impl HttpHead {
    /// Whether the Connection header has this token.
    pub fn has_token(&self, token: &str) -> bool {
        self.connection.iter().any(|known| known == token)
    }

    /// Whether it asks to close the connection.
    pub fn asks_to_close(&self) -> bool {
        self.has_token("close")
    }
}

/// Versions of HTTP that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum HttpVersion {
    /// HTTP/1.0.
    V1_0,
    /// HTTP/1.1.
    V1_1,
    /// HTTP/2.
    V2,
}

/// Declares the methods, and how they are written.
macro_rules! methods {
    ($($name:ident $text:literal,)*) => {
        /// A method. There are no others than these: what else stands in its place may be anything.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum HttpMethod {
            $(#[doc = concat!("`", $text, "`.")] $name,)*
        }

        impl HttpMethod {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As it is written.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

methods! {
    Get "GET",
    Head "HEAD",
    Post "POST",
    Put "PUT",
    Delete "DELETE",
    Connect "CONNECT",
    Options "OPTIONS",
    Trace "TRACE",
    Patch "PATCH",
}

/// What a Keep-Alive header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct KeepAlive {
    /// For how many seconds an idle connection is kept.
    pub timeout_s: Option<u32>,
    /// How many more requests it may carry.
    pub max: Option<u32>,
}

/// How often and for how long a cgroup with a quota was not let run, since it was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttling {
    /// When it was looked at.
    pub at: WallTime,
    /// The cgroup's number.
    pub cgroup: u64,
    /// Periods of its quota in which it had something to run.
    pub periods: u64,
    /// Those of them in which it had used it up.
    pub throttled_periods: u64,
    /// For how long it was not let run; added up over processors.
    pub throttled: Nanos,
}

/// Something that was lost, by cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When it was noticed.
    pub at: WallTime,
    /// Where: `kernel`, `user` or [`Loss::OUTPUT`].
    pub place: String,
    /// Cause, a stable word: `ring_full`, `no_record`, `bad_read`, `targets_full`, `evicted`, `table_full`, ...
    pub cause: String,
    /// How many since the last report.
    pub count: u64,
}

impl Loss {
    /// The place of records that were made and not written: nothing is missing from what is counted or found.
    pub const OUTPUT: &'static str = "output";
}

/// Detail went down because tracing cost too much, or up again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetailChange {
    /// When.
    pub at: WallTime,
    /// Only connections are looked at from now on; else exchanges too.
    pub lowered: bool,
    /// What tracing cost.
    pub overhead: Overhead,
}

impl fmt::Display for DetailChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overhead { percent, limit, counts_programs } = self.overhead;
        let of = if counts_programs { "tracing" } else { "this process (the kernel does not tell about its programs)" };
        match self.lowered {
            true => write!(
                f,
                "only connections are looked at from now on: {of} takes {percent:.1} % of a processor, --max-overhead allows {limit} %"
            ),
            false => write!(
                f,
                "exchanges are looked at again: {of} takes {percent:.1} % of a processor, --max-overhead allows {limit} %"
            ),
        }
    }
}

/// What tracing costs, in percent of one processor.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Overhead {
    /// What it did of late.
    pub percent: f64,
    /// The most that it may.
    pub limit: f64,
    /// Whether the time of the programs in the kernel is known and part of it.
    pub counts_programs: bool,
}

/// Totals of one trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// When the trace began.
    pub began_at: WallTime,
    /// When it stopped.
    pub stopped_at: WallTime,
    /// Connections reported.
    pub connections: u64,
    /// Of these, still open.
    pub open: u64,
    /// By process name and destination, most connections first.
    pub groups: Vec<Group>,
    /// Groups beyond the bound, folded into one; `None` if there are none.
    pub other: Option<Group>,
    /// Which backend each hook got, and why.
    pub hooks: Vec<Hook>,
    /// All losses, by cause.
    pub losses: Vec<Loss>,
    /// Remarks on the completeness of the input, e.g. a recording that was cut short.
    pub remarks: Vec<String>,
}

/// The connections of one process name with one destination (client) or on one listening port (server).
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Process name.
    pub comm: String,
    /// Role.
    pub role: Option<Role>,
    /// Remote `ip:port` of a client, local port of a server.
    pub destination: String,
    /// Connections.
    pub connections: u64,
    /// Of these, still open.
    pub open: u64,
    /// Of these, failed before they were established.
    pub failed: u64,
    /// Total time spent connecting.
    pub setup: Nanos,
    /// Its exchanges; `None` in detail `connections`.
    pub exchanges: Option<GroupExchanges>,
    /// Median of the connect time.
    pub connect_median: Option<Nanos>,
    /// Bytes sent and received, as far as they are known of its connections; `None` if of none.
    pub bytes: (Option<u64>, Option<u64>),
    /// Idle at the close: smallest, median, largest.
    pub idle: Option<(Nanos, Nanos, Nanos)>,
    /// How many ended by local, peer, nobody.
    pub closers: (u64, u64, u64),
}

/// The exchanges of a group's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupExchanges {
    /// Begun, by the connections' count.
    pub count: u64,
    /// First ones on their connections, of those that were reported.
    pub cold: u64,
    /// Later ones.
    pub warm: u64,
    /// Begun when the peer had closed or dropped the connection.
    pub stale: u64,
    /// Median of a cold exchange's setup and wait for the first byte.
    pub cold_median: Option<Nanos>,
    /// Median of its wait for the first byte alone.
    pub cold_first_byte_median: Option<Nanos>,
    /// Median of a warm exchange's wait for the first byte, which is all that it pays.
    pub warm_median: Option<Nanos>,
    /// Total time spent on the DNS lookups that led to them.
    pub dns: Nanos,
    /// Total time spent on TLS handshakes.
    pub handshake: Nanos,
}

/// How one hook is attached.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hook {
    /// What it is for, e.g. `tcp_connect`.
    pub name: String,
    /// `fentry`, `fexit`, `tp_btf`, `kprobe`, `kretprobe`, `tracepoint`, or `None` if it is missing.
    pub backend: Option<String>,
    /// Why not the first choice, or why it is missing.
    pub reason: Option<String>,
    /// What is absent from the output without it.
    pub without: Option<String>,
}
