//! The event stream: what flows from the kernel and from `/proc` into the correlator, and into a recording.

use std::{net::SocketAddr, rc::Rc};

use serde::{Deserialize, Serialize};
use tracer_ebpf::{DetailedRecord, ExchangeRecord, ProcessRecord, SocketRecord, TlsRecord};

use super::{dns::DnsMessage, getaddrinfo::Resolved};
use crate::track::record::{CpuQuota, Hello, Hook, HttpHead, Overhead};

/// One event. Times are boot-clock nanoseconds, as the kernel side takes them.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The kernel reports on a connection, in detail `connections`.
    Socket(SocketRecord),
    /// The kernel reports on a connection, in detail `exchanges`; boxed because it is long.
    Detailed(Box<DetailedRecord>),
    /// The answer of an exchange has begun.
    Exchange(ExchangeRecord),
    /// A TLS handshake has ended.
    Tls(TlsRecord),
    /// The kernel reports on a process; boxed, as these are rarer.
    Process(Box<ProcessRecord>),
    /// User space learned or worked out something; boxed because these are rare.
    User(Box<UserEvent>),
}

/// An event that may still lie where the kernel put it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EventRef<'e> {
    /// The kernel reports on a connection, in detail `connections`.
    Socket(&'e SocketRecord),
    /// The kernel reports on a connection, in detail `exchanges`.
    Detailed(&'e DetailedRecord),
    /// The answer of an exchange has begun.
    Exchange(&'e ExchangeRecord),
    /// A TLS handshake has ended.
    Tls(&'e TlsRecord),
    /// The kernel reports on a process.
    Process(&'e ProcessRecord),
    /// User space learned or worked out something.
    User(&'e UserEvent),
}

impl<'e> From<&'e Event> for EventRef<'e> {
    fn from(event: &'e Event) -> Self {
        match event {
            Event::Socket(record) => Self::Socket(record),
            Event::Detailed(record) => Self::Detailed(record),
            Event::Exchange(record) => Self::Exchange(record),
            Event::Tls(record) => Self::Tls(record),
            Event::Process(record) => Self::Process(record),
            Event::User(event) => Self::User(event),
        }
    }
}

impl<'e> EventRef<'e> {
    /// What the kernel says of a connection's life, in either detail.
    #[inline]
    pub fn socket(self) -> Option<&'e SocketRecord> {
        match self {
            Self::Socket(record) => Some(record),
            Self::Detailed(record) => Some(&record.socket),
            _ => None,
        }
    }
}

/// Events made in user space. They are part of a recording, so that a replay needs neither kernel nor `/proc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UserEvent {
    /// What `/proc` says of a process, before its first connection.
    Identity(Identity),
    /// What the hello messages of a TLS handshake say. Their bytes go no further than the stage that reads them.
    Hello {
        /// When the message passed.
        at: u64,
        /// The connection's number.
        id: u64,
        /// What is known by now of both messages.
        hello: Rc<Hello>,
    },
    /// What an HTTP head says. Its bytes go no further than the stage that reads them.
    Http {
        /// When it passed.
        at: u64,
        /// The connection's number.
        id: u64,
        /// The number of its exchange; `None` if it was seen in a TLS library, which knows none.
        index: Option<u32>,
        /// The connection's owner sent it.
        sent: bool,
        /// What it says.
        head: Rc<HttpHead>,
    },
    /// Which TLS library works on a connection.
    Library {
        /// When it became known.
        at: u64,
        /// The connection's number.
        id: u64,
        /// Its name and version; `None` if it cannot be told which of several it is.
        library: Option<Rc<str>>,
    },
    /// What a DNS message says.
    Dns(DnsMessage),
    /// What a call of `getaddrinfo` came to.
    Resolved(Resolved),
    /// How often and for how long a cgroup with a quota was not let run, since it was first seen; when that has grown.
    Throttled {
        /// When it was looked at.
        at: u64,
        /// The cgroup's number.
        cgroup: u64,
        /// Periods of its quota in which it had something to run.
        periods: u64,
        /// Those of them in which it had used it up.
        throttled_periods: u64,
        /// For how long it was not let run, in nanoseconds; added up over processors.
        throttled: u64,
    },
    /// A socket that was open before the trace.
    Adopted(OpenSocket),
    /// The present state of an open socket, taken as the trace stops.
    Present(OpenSocket),
    /// Every open socket of these network namespaces has been shown by a `Present` event: what was not is gone.
    Surveyed {
        /// Inode numbers of the namespaces.
        netns: Vec<u32>,
    },
    /// Losses since the last such event.
    Lost {
        /// When they were read.
        at: u64,
        /// `kernel` or `user`.
        place: String,
        /// Cause.
        cause: String,
        /// How many.
        count: u64,
    },
    /// Detail went down because tracing cost too much, or up again.
    Detail {
        /// When the first hook was taken off, or the last was back.
        at: u64,
        /// Exchanges are not looked at from now on.
        lowered: bool,
        /// What tracing cost.
        overhead: Overhead,
    },
    /// Which hook got which backend.
    Hooks(Vec<Hook>),
    /// The trace stopped: the rest of the table is reported.
    Stop {
        /// When.
        at: u64,
    },
}

/// What `/proc` says of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// The kernel's own number, the host's, where it is known and another.
    #[serde(default)]
    pub host_pid: Option<u32>,
    /// Start time on the boot clock; 0 if unknown.
    pub started_at: u64,
    /// Name.
    pub comm: String,
    /// Executable.
    pub exe: Option<String>,
    /// Container id or systemd unit.
    pub container: Option<String>,
    /// What its cgroup may use of processors; `None` without a quota, and in older recordings.
    #[serde(default)]
    pub quota: Option<CpuQuota>,
}

/// A socket as sock_diag reports it, with its owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenSocket {
    /// When it was looked at.
    pub at: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// Owner; 0 if no process holds it any more.
    pub pid: u32,
    /// Owner's start time on the boot clock; 0 if unknown.
    pub process_started_at: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// One of `tracer_ebpf::role`, 0 if unknown.
    pub role: u8,
    /// TCP state (`tracer_ebpf::tcp_state`).
    pub state: u8,
    /// Local end; v4-mapped addresses as IPv4.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// Payload bytes sent, each once.
    pub bytes_sent: Option<u64>,
    /// Payload bytes received.
    pub bytes_received: Option<u64>,
    /// Segments sent again.
    pub retransmits: Option<u32>,
    /// Smoothed round trip, nanoseconds.
    pub srtt: Option<u64>,
    /// Keepalive, where it can be told.
    pub keepalive: Option<bool>,
    /// Nanoseconds since the last payload sent.
    pub sent_idle: Option<u64>,
    /// Nanoseconds since the last payload received.
    pub received_idle: Option<u64>,
}
