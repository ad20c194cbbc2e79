//! The contract between the BPF programs and user space.
//!
//! Everything that crosses the border stands in this file and nowhere else: the per-socket record, the events,
//! the configuration, the table of kernel field offsets, and the loss counters. Both sides compile it. Sizes and
//! alignments are asserted below, so that a change that would break the border does not build. Whoever changes a
//! layout raises [`ABI_VERSION`]; recordings carry it.
//!
//! Times are nanoseconds of `CLOCK_BOOTTIME` (it goes on while the machine sleeps); 0 means "not yet" or "unknown".
#![no_std]

use crate::{exchange::Exchanges, tls::handshake::Handshake};

/// Version of every layout in this file. A recording of another version is refused.
pub const ABI_VERSION: u32 = 4;

/// Makes a plain-old-data type that both sides can share: fixed layout, and on the user side the traits that let
/// bytes be viewed as the type without `unsafe`. Those derives also refuse hidden padding.
macro_rules! shared {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)* })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        #[cfg_attr(
            feature = "user",
            derive(
                Debug,
                PartialEq,
                Eq,
                zerocopy::FromBytes,
                zerocopy::IntoBytes,
                zerocopy::Immutable,
                zerocopy::KnownLayout
            )
        )]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }
    )*};
}

pub mod dns;
pub mod exchange;
pub mod getaddrinfo;
pub mod http;
pub mod ssl;
pub mod tls;

/// An IPv6 address as it stands in memory (network byte order). IPv4 is stored v4-mapped, `::ffff:a.b.c.d`.
pub type Address = [u8; 16];

/// Length of a task's name in the kernel (`TASK_COMM_LEN`), terminating zero included.
pub const COMM_LEN: usize = 16;

/// What an event says. The first word of every event is one of these.
pub mod kind {
    /// A connect is under way and its SYN had to be sent again. Sent once a connection.
    pub const CONNECTING: u32 = 1;
    /// The connection is established (client) or was accepted (server).
    pub const OPENED: u32 = 2;
    /// The peer's FIN arrived and the local side has not closed.
    pub const PEER_CLOSED: u32 = 3;
    /// The application let go of the socket (`tcp_close`) after TCP was done with it; a release that comes first is told
    /// with the end.
    pub const RELEASED: u32 = 4;
    /// TCP is done with the connection (state CLOSE).
    pub const ENDED: u32 = 5;
    /// The first byte of an exchange's answer has passed: an [`ExchangeRecord`](super::ExchangeRecord).
    pub const ANSWERED: u32 = 6;
    /// A TLS handshake has succeeded or failed: a [`TlsRecord`](super::TlsRecord).
    pub const TLS: u32 = 7;
    /// A piece of a ClientHello or ServerHello: a [`HelloRecord`](super::HelloRecord), cut to what it holds.
    pub const HELLO: u32 = 8;
    /// A DNS message: a [`DnsRecord`](super::dns::DnsRecord).
    pub const DNS: u32 = 9;
    /// The beginning of an HTTP head: a [`HeadRecord`](super::http::HeadRecord), cut to what it holds.
    pub const HEAD: u32 = 10;
    /// A TLS library's session has been joined to its connection: a [`JoinedRecord`](super::ssl::JoinedRecord).
    pub const JOINED: u32 = 11;
    /// A call of `getaddrinfo` has returned: a [`GetAddrInfoRecord`](super::getaddrinfo::GetAddrInfoRecord).
    pub const GETADDRINFO: u32 = 12;
    /// A process started another program (`execve`).
    pub const EXEC: u32 = 16;
    /// A process ended.
    pub const EXIT: u32 = 17;
    /// A process has mapped code: a [`MappedRecord`](super::ssl::MappedRecord).
    pub const MAPPED: u32 = 18;
}

/// The role of the local side, in [`SocketRecord::role`].
pub mod role {
    /// It connected.
    pub const CLIENT: u8 = 1;
    /// It accepted.
    pub const SERVER: u8 = 2;
}

/// Bits of [`SocketRecord::flags`].
pub mod flag {
    /// The socket was open before the trace began; `opened_at` is 0.
    pub const PREEXISTING: u32 = 1 << 0;
    /// `bytes_sent` and `bytes_received` were read from the kernel.
    pub const BYTES_KNOWN: u32 = 1 << 1;
    /// `sent_idle_ticks` and `received_idle_ticks` were read from the kernel.
    pub const IDLE_KNOWN: u32 = 1 << 2;
    /// `srtt_us` was read from the kernel.
    pub const SRTT_KNOWN: u32 = 1 << 3;
    /// `retransmits` was read from the kernel.
    pub const RETRANSMITS_KNOWN: u32 = 1 << 4;
    /// [`KEEPALIVE`] was read from the kernel.
    pub const KEEPALIVE_KNOWN: u32 = 1 << 5;
    /// `SO_KEEPALIVE` is set.
    pub const KEEPALIVE: u32 = 1 << 6;
    /// The socket was closed by the kernel because its process ended.
    pub const PROCESS_EXITED: u32 = 1 << 7;
    /// The peer's RST arrived.
    pub const RST_RECEIVED: u32 = 1 << 8;
    /// An RST was sent for this connection.
    pub const RST_SENT: u32 = 1 << 9;
    /// The peer's FIN arrived.
    pub const PEER_FIN: u32 = 1 << 10;
    /// [`CONNECTING`](super::kind::CONNECTING) was sent for this connection.
    pub const CONNECTING_SENT: u32 = 1 << 11;
    /// The first sign of the end came before the accept: `end_sign_at` is the accept, an upper bound, but the idle ticks
    /// run to the peer's last acknowledgment, which its FIN carried.
    pub const ENDED_BEFORE_ACCEPT: u32 = 1 << 12;
    /// The connect failed before a SYN was sent (no route, no address); `error` says why.
    pub const NO_SYN: u32 = 1 << 13;
    /// The socket was connected anew without having been closed; no release belongs to this life.
    pub const RECONNECTED: u32 = 1 << 14;
    /// The last word on this life has been sent; the record only waits to be freed or reused.
    pub const FINISHED: u32 = 1 << 15;
    /// Sending or receiving is done by the kernel's own TLS (or another upper layer protocol): what passes the hooks may
    /// not be what the application sent.
    pub const KERNEL_TLS: u32 = 1 << 16;
    /// A subflow of a Multipath TCP connection.
    pub const MPTCP: u32 = 1 << 17;
    /// The first data was handed over with the connect (TCP Fast Open).
    pub const FAST_OPEN: u32 = 1 << 18;
}

/// Set in [`SocketRecord::id`] when the kernel has no socket cookie for tracing programs and the tracer counted by
/// itself. Cookies are small counters and never reach this bit.
pub const ID_COUNTED: u64 = 1 << 63;

/// TCP states as `inet_sock_set_state` reports them (`include/net/tcp_states.h`).
pub mod tcp_state {
    /// Connected.
    pub const ESTABLISHED: u8 = 1;
    /// Connect under way.
    pub const SYN_SENT: u8 = 2;
    /// Handshake of an accepted connection under way.
    pub const SYN_RECV: u8 = 3;
    /// Local FIN sent.
    pub const FIN_WAIT1: u8 = 4;
    /// Local FIN acknowledged.
    pub const FIN_WAIT2: u8 = 5;
    /// Both sides closed; the kernel keeps a stub.
    pub const TIME_WAIT: u8 = 6;
    /// Done, or not begun.
    pub const CLOSE: u8 = 7;
    /// The peer's FIN arrived first.
    pub const CLOSE_WAIT: u8 = 8;
    /// FIN sent after the peer's.
    pub const LAST_ACK: u8 = 9;
    /// Waiting for connections.
    pub const LISTEN: u8 = 10;
    /// Both FINs crossed.
    pub const CLOSING: u8 = 11;
}

shared! {
    /// Everything known of one connection. It lives in socket storage, the hooks update it in place, and an event
    /// is a copy of it: each carries all that is known so far, so losing any but the last costs no facts.
    pub struct SocketRecord {
        /// What happened: one of the connection [`kind`]s. Set just before the record is sent.
        pub kind: u32,
        /// [`flag`] bits.
        pub flags: u32,
        /// When this event was sent.
        pub at: u64,
        /// Socket cookie, or a number with [`ID_COUNTED`] set.
        pub id: u64,
        /// Client: entry of `tcp_connect`. Server: return of the accept.
        pub opened_at: u64,
        /// When the state became ESTABLISHED (client) or the accept returned (server).
        pub established_at: u64,
        /// First FIN or RST either way, or the timeout. The peer's FIN if `state_at_end` is CLOSE_WAIT.
        pub end_sign_at: u64,
        /// Entry of `tcp_close`.
        pub released_at: u64,
        /// When the state became CLOSE.
        pub ended_at: u64,
        /// Payload bytes sent at least once, retransmissions not counted.
        pub bytes_sent: u64,
        /// Payload bytes received in order.
        pub bytes_received: u64,
        /// `start_boottime` of the process `tgid`, to tell reused PIDs apart.
        pub process_started_at: u64,
        /// Process that owns the connection: the opener, or who released it if that was another.
        pub tgid: u32,
        /// Its thread.
        pub tid: u32,
        /// Process that connected or accepted.
        pub opener_tgid: u32,
        /// Inode number of the network namespace.
        pub netns: u32,
        /// Kernel ticks between the last payload sent and the first sign of the end.
        pub sent_idle_ticks: u32,
        /// Kernel ticks between the last payload received and the first sign of the end.
        pub received_idle_ticks: u32,
        /// Smoothed round trip in microseconds, 0 if none was measured.
        pub srtt_us: u32,
        /// Segments sent again, SYNs included.
        pub retransmits: u32,
        /// SYNs (client) or SYN-ACKs (server) sent again.
        pub syn_retransmits: u32,
        /// Positive errno of the socket when it ended, 0 if none.
        pub error: u32,
        /// Local address.
        pub local_address: Address,
        /// Remote address.
        pub remote_address: Address,
        /// Local port.
        pub local_port: u16,
        /// Remote port.
        pub remote_port: u16,
        /// One of [`role`].
        pub role: u8,
        /// State in which the connection was when the first sign of the end came ([`tcp_state`]).
        pub state_before_end: u8,
        /// State that it then changed to.
        pub state_at_end: u8,
        /// If data was unacknowledged at the first sign of the end: one more than the binary logarithm of the kernel ticks since
        /// the last acknowledgment. Else 0, as in recordings from before this was kept.
        pub unacknowledged: u8,
        /// Name of the process, zero padded; any bytes.
        pub comm: [u8; COMM_LEN],
    }

    /// A connection in detail `exchanges`: what is kept of each socket, and what every connection event is then a copy of.
    /// Events in detail `connections` end after `socket`.
    pub struct DetailedRecord {
        /// Its life.
        pub socket: SocketRecord,
        /// Its exchanges.
        pub exchanges: Exchanges,
        /// Its TLS handshake.
        pub handshake: Handshake,
    }

    /// An exchange's answer has begun. It tells how the exchange began, and the counts at its beginning, which are the end of
    /// the exchange before it. On a ring buffer of its own, so that a burst of exchanges cannot push out a close.
    pub struct ExchangeRecord {
        /// [`kind::ANSWERED`].
        pub kind: u32,
        /// Which of the connection's exchanges, from 0.
        pub index: u32,
        /// First byte of the answer, as in [`Exchanges::answered_at`].
        pub at: u64,
        /// The connection's number.
        pub id: u64,
        /// [`Exchanges::asked_at`].
        pub asked_at: u64,
        /// [`Exchanges::ready_at`].
        pub ready_at: u64,
        /// [`Exchanges::previous_at`].
        pub previous_at: u64,
        /// [`Exchanges::sent_before`].
        pub sent_before: u64,
        /// [`Exchanges::received_before`].
        pub received_before: u64,
        /// [`exchange::flag`] bits.
        pub flags: u32,
        /// Explicit padding.
        pub reserved: u32,
    }

    /// A TLS handshake has ended. On the ring buffer of the exchanges.
    pub struct TlsRecord {
        /// [`kind::TLS`].
        pub kind: u32,
        /// Explicit padding.
        pub reserved: u32,
        /// When it ended.
        pub at: u64,
        /// The connection's number.
        pub id: u64,
        /// All that is known of it.
        pub handshake: Handshake,
    }

    /// A piece of a hello message as it passed, record headers included. On the ring buffer of the exchanges.
    pub struct HelloRecord {
        /// [`kind::HELLO`].
        pub kind: u32,
        /// Valid bytes of `bytes`; the event ends behind them.
        pub length: u32,
        /// When it passed.
        pub at: u64,
        /// The connection's number.
        pub id: u64,
        /// From the client (1) or from the server (0).
        pub from_client: u32,
        /// Bytes of the same piece that did not fit.
        pub left_out: u32,
        /// The bytes.
        pub bytes: [u8; HELLO_LEN],
    }

    /// A process started a program or ended.
    pub struct ProcessRecord {
        /// [`kind::EXEC`] or [`kind::EXIT`].
        pub kind: u32,
        /// Process.
        pub tgid: u32,
        /// When.
        pub at: u64,
        /// `start_boottime` of the process.
        pub process_started_at: u64,
        /// New name, zero padded; any bytes.
        pub comm: [u8; COMM_LEN],
        /// Path as given to `execve`, zero terminated, cut to fit; any bytes. Empty for an exit.
        pub filename: [u8; FILENAME_LEN],
    }

    /// One remote network of `--remote`.
    pub struct Cidr {
        /// Network address, already masked.
        pub network: [u32; 4],
        /// Mask, same byte order as the address.
        pub mask: [u32; 4],
    }

    /// Read-only settings of one trace; the verifier sees them as constants.
    pub struct Config {
        /// [`storage`]: where the per-socket record lives.
        pub storage: u32,
        /// [`select`] bits; 0 selects the whole node.
        pub select: u32,
        /// Role to report: 0 both, else one of [`role`].
        pub role: u32,
        /// Number of valid `ports`.
        pub port_count: u32,
        /// Number of valid `remotes`.
        pub remote_count: u32,
        /// Unread bytes of the ring buffer at which the reader is woken at once.
        pub wake_bytes: u32,
        /// Level of `cgroup_id` below the root.
        pub cgroup_level: u32,
        /// [`detail`]: how much is hooked.
        pub detail: u32,
        /// Whether tasks may preempt each other in a hook: 1, else 0. Then hooks in processes have several programs.
        pub preemptible: u32,
        /// Whether probes may be put on TLS libraries: 1, else 0.
        pub ssl: u32,
        /// Whether HTTP heads are looked for: 1, else 0. Only records of exchanges tell what they say.
        pub heads: u32,
        /// Whether processes go by their numbers in the tracer's own PID namespace: 1, else 0, and then by the kernel's ([`pid`]).
        pub own_pids: u32,
        /// Device, as the kernel writes it, and inode number of that namespace.
        pub pid_namespace: [u64; 2],
        /// cgroup to select.
        pub cgroup_id: u64,
        /// Process name to select, zero padded.
        pub comm: [u8; COMM_LEN],
        /// Service ports to select: the remote port of a client, the local port of a server.
        pub ports: [u16; MAX_PORTS],
        /// Remote networks to select.
        pub remotes: [Cidr; MAX_REMOTES],
    }
}

impl Config {
    /// Settings that select everything.
    pub const EVERYTHING: Self = Self {
        storage: storage::SOCKET,
        select: 0,
        role: 0,
        port_count: 0,
        remote_count: 0,
        wake_bytes: 0,
        cgroup_level: 0,
        detail: detail::CONNECTIONS,
        preemptible: 0,
        ssl: 0,
        heads: 0,
        own_pids: 0,
        pid_namespace: [0; 2],
        cgroup_id: 0,
        comm: [0; COMM_LEN],
        ports: [0; MAX_PORTS],
        remotes: [Cidr { network: [0; 4], mask: [0; 4] }; MAX_REMOTES],
    };
}

/// Length of all that is kept of a socket in detail `exchanges`: a [`DetailedRecord`], and what only the hooks know.
pub const KEPT_LEN: usize = size_of::<DetailedRecord>() + 72;
/// Programs of the hook of sends, and of that of receives, where the kernel preempts; elsewhere one.
pub const MESSAGE_PROGRAMS: usize = 4;
/// Hooks that look at messages: of sends and of receives.
pub const MESSAGE_HOOKS: usize = 2;
/// Most bytes of one piece of a hello message. A ClientHello with a post-quantum key share is about 1.8 KB long.
pub const HELLO_LEN: usize = 2048;
/// Bytes kept of an executed path. Longer paths are cut.
pub const FILENAME_LEN: usize = 128;
/// Most `--port` values: they are compared one after the other in the kernel.
pub const MAX_PORTS: usize = 16;
/// Most `--remote` networks, for the same reason.
pub const MAX_REMOTES: usize = 8;

/// Values of [`Config::storage`].
pub mod storage {
    /// BPF socket storage: freed with the socket, no size to overflow.
    pub const SOCKET: u32 = 0;
    /// LRU hash by socket address, where socket storage is not to be had.
    pub const LRU_HASH: u32 = 1;
}

/// Values of [`Config::detail`].
pub mod detail {
    /// Nothing is hooked per send or receive.
    pub const CONNECTIONS: u32 = 0;
    /// Sends and receives are hooked: exchanges, TLS.
    pub const EXCHANGES: u32 = 1;
}

/// Bits of [`Config::select`]: a process is traced if any of them selects it.
pub mod select {
    /// By the TARGETS map.
    pub const TARGETS: u32 = 1 << 0;
    /// By process name.
    pub const COMM: u32 = 1 << 1;
    /// By cgroup, descendants included.
    pub const CGROUP: u32 = 1 << 2;
}

/// Numbers of processes where the tracer is in a PID namespace of its own ([`Config::own_pids`]). There each process goes by its
/// number in that namespace. Real numbers are below 2^22.
pub mod pid {
    /// Set in the kernel's own number of a process that has none in the tracer's namespace, or is in one below.
    pub const OUTSIDE: u32 = 1 << 31;
    /// Set in a key of the TARGETS map that is a number in the tracer's namespace; without it a key is the kernel's own number.
    pub const OWN: u32 = 1 << 30;
}

/// Bits of a value in the TARGETS map (key: tgid, see also [`pid`]).
pub mod target {
    /// The process's connections are traced.
    pub const TRACED: u32 = 1 << 0;
    /// Its future children become targets, traced and followed.
    pub const FOLLOWED: u32 = 1 << 1;
}

/// A value of the ADOPTED map (key: socket cookie): a socket that was open before the trace. `tgid` in the low half,
/// role in the high half.
pub mod adopted {
    /// Packs owner and role.
    pub const fn pack(tgid: u32, role: u8) -> u64 {
        tgid as u64 | (role as u64) << 32
    }
    /// Owner.
    pub const fn tgid(value: u64) -> u32 {
        value as u32
    }
    /// Role, one of [`role`](super::role).
    pub const fn role(value: u64) -> u8 {
        (value >> 32) as u8
    }
}

/// Causes of loss on the kernel side: indexes of the LOSSES map, counted per CPU.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The ring buffer was full: an event was not sent.
    RingFull = 0,
    /// No record could be made for a new connection (no memory, map full).
    NoRecord = 1,
    /// A kernel field could not be read: the event was dropped.
    BadRead = 2,
    /// The TARGETS map was full: a child process is not followed.
    TargetsFull = 3,
    /// Records made in the LRU hash; not a loss, the base to work out evictions.
    LruInserted = 4,
    /// Records deleted from the LRU hash; likewise.
    LruDeleted = 5,
    /// Events for which the kernel skipped the first program of a hook and another one did the work; not a loss, the base
    /// to work out how many skipped runs were.
    SkippedAndServed = 6,
    /// The ring buffer of the exchanges was full: an event was not sent. The lifecycles do not suffer.
    ExchangeRingFull = 7,
    /// A message's first bytes could not be read (paged out, or in a form that is not known): TLS may have gone unseen.
    UnreadablePayload = 8,
    /// A call was not followed from its beginning to its end: an accepted connection, or a lookup or its answer, may be
    /// missing. Where fexit cannot be had, or `getaddrinfo` was left by a jump.
    CallMissed = 9,
    /// A TLS library's session answers to two connections: what passes in it is told of neither.
    AmbiguousSession = 10,
}

impl Loss {
    /// Number of counters.
    pub const COUNT: u32 = 11;
}

/// Marks a field that this kernel lacks in [`Offsets`]. Positive as a number of 32 bits: BPF compares with such a constant in
/// one instruction, and fetches a larger one into a register before.
pub const MISSING: u32 = i32::MAX as u32;

/// Declares the table of kernel fields once: the struct that the BPF side reads, and the list that user space resolves
/// from BTF. `member: "struct" . "path" or "path", size` for fields, where the first path that the kernel has is taken;
/// `"enum value"` for enumerators. `optional` at the end: supported kernels do well without it.
macro_rules! offsets {
    (
        fields { $(
            $(#[$fmeta:meta])*
            $field:ident: $ty:literal . $path:literal $(or $other:literal)*, $size:literal $(, $foptional:ident)?;
        )* }
        enumerators { $($(#[$emeta:meta])* $enumerator:ident: $ename:literal $(, $eoptional:ident)?;)* }
    ) => {
        shared! {
            /// Byte offsets of kernel fields (and values of kernel enumerators) on the running kernel, [`MISSING`] where
            /// there is none. Filled from BTF before load; the verifier sees constants.
            pub struct Offsets {
                $($(#[$fmeta])* pub $field: u32,)*
                $($(#[$emeta])* pub $enumerator: u32,)*
            }
        }

        impl Offsets {
            /// A table in which everything is missing.
            pub const NONE: Self = Self { $($field: MISSING,)* $($enumerator: MISSING,)* };

            /// The fields to resolve, in the order of the table.
            pub const FIELDS: &'static [Field] = &[$(
                Field {
                    name: stringify!($field),
                    of: $ty,
                    paths: &[$path $(, $other)*],
                    size: $size,
                    optional: is_optional!($($foptional)?),
                },
            )*];

            /// The enumerators to resolve, in the order of the table, after the fields.
            pub const ENUMERATORS: &'static [Enumerator] = &[$(
                Enumerator {
                    name: stringify!($enumerator),
                    value: $ename,
                    optional: is_optional!($($eoptional)?),
                },
            )*];
        }
    };
}

/// Whether an entry of the table ends in `optional`.
macro_rules! is_optional {
    () => {
        false
    };
    (optional) => {
        true
    };
}

/// A kernel field that the BPF side wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in [`Offsets`].
    pub name: &'static str,
    /// Kernel struct.
    pub of: &'static str,
    /// Where it may be, because kernels renamed it: members to follow from the struct, joined by dots, no pointers on the
    /// way. The first that the kernel has counts.
    pub paths: &'static [&'static str],
    /// Size in bytes that the reader expects; a member of another size counts as missing.
    pub size: u32,
    /// Some supported kernels do without it, and nothing is lost there.
    pub optional: bool,
}

/// A kernel enumerator whose value the BPF side wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enumerator {
    /// Its name in [`Offsets`].
    pub name: &'static str,
    /// The kernel's name for it.
    pub value: &'static str,
    /// Some supported kernels do without it, and nothing is lost there.
    pub optional: bool,
}

offsets! {
    fields {
        /// `AF_INET` or `AF_INET6`.
        sk_family: "sock" . "__sk_common.skc_family", 2;
        /// TCP state.
        sk_state: "sock" . "__sk_common.skc_state", 1;
        /// Local port, host order.
        sk_num: "sock" . "__sk_common.skc_num", 2;
        /// Remote port, network order.
        sk_dport: "sock" . "__sk_common.skc_dport", 2;
        /// Remote IPv4 address.
        sk_daddr: "sock" . "__sk_common.skc_daddr", 4;
        /// Local IPv4 address.
        sk_rcv_saddr: "sock" . "__sk_common.skc_rcv_saddr", 4;
        /// Remote IPv6 address.
        sk_v6_daddr: "sock" . "__sk_common.skc_v6_daddr", 16;
        /// Local IPv6 address.
        sk_v6_rcv_saddr: "sock" . "__sk_common.skc_v6_rcv_saddr", 16;
        /// Cookie, 0 until somebody asked for it.
        sk_cookie: "sock" . "__sk_common.skc_cookie", 8;
        /// Network namespace.
        sk_net: "sock" . "__sk_common.skc_net.net", 8;
        /// Bits of `enum sock_flags`.
        sk_flags: "sock" . "__sk_common.skc_flags", 8;
        /// Socket storage of any BPF program, null while there is none.
        sk_storage: "sock" . "sk_bpf_storage", 8;
        /// Error for the application.
        sk_err: "sock" . "sk_err", 4;
        /// `IPPROTO_*`, in sockets of IPv4 and IPv6.
        sk_protocol: "sock" . "sk_protocol", 2;
        /// First subflow of a Multipath TCP socket.
        mptcp_first: "mptcp_sock" . "first", 8, optional;
        /// Start of a packet's memory.
        skb_head: "sk_buff" . "head", 8;
        /// Where its transport header is, counted from there.
        skb_transport_header: "sk_buff" . "transport_header", 2;
        /// Local port in packets, network order; it stays when the socket has given its port back.
        tcp_sport: "tcp_sock" . "inet_conn.icsk_inet.inet_sport", 2;
        /// Tick of the last payload received.
        tcp_lrcvtime: "tcp_sock" . "inet_conn.icsk_ack.lrcvtime", 4;
        /// Tick of the last payload sent.
        tcp_lsndtime: "tcp_sock" . "lsndtime", 4;
        /// Tick of the last acknowledgment received.
        tcp_rcv_tstamp: "tcp_sock" . "rcv_tstamp", 4;
        /// Payload bytes sent, retransmissions included.
        tcp_bytes_sent: "tcp_sock" . "bytes_sent", 8;
        /// Payload bytes sent again.
        tcp_bytes_retrans: "tcp_sock" . "bytes_retrans", 8;
        /// Sequence space received in order: payload, and one for the FIN.
        tcp_bytes_received: "tcp_sock" . "bytes_received", 8;
        /// Smoothed round trip in eighths of a microsecond.
        tcp_srtt_us: "tcp_sock" . "srtt_us", 4;
        /// Segments sent again.
        tcp_total_retrans: "tcp_sock" . "total_retrans", 4;
        /// Number of the next byte that the application hands to TCP.
        tcp_write_seq: "tcp_sock" . "write_seq", 4;
        /// Number of the next byte that the application takes from TCP.
        tcp_copied_seq: "tcp_sock" . "copied_seq", 4;
        /// Number of the next byte that is to come from the network.
        tcp_rcv_nxt: "tcp_sock" . "rcv_nxt", 4;
        /// A connect with TCP Fast Open.
        tcp_fastopen_req: "tcp_sock" . "fastopen_req", 8;
        /// Bytes that the application handed over with it; 0 if it only wants the cookie for later ones.
        fastopen_size: "tcp_fastopen_request" . "size", 8;
        /// Whether it is a subflow of a Multipath TCP connection.
        tcp_is_mptcp: "tcp_sock" . "is_mptcp", 1, optional;
        /// Operations of an upper layer protocol, such as the kernel's own TLS.
        tcp_ulp_ops: "tcp_sock" . "inet_conn.icsk_ulp_ops", 8;
        /// `struct sock` of a `struct socket`.
        socket_sk: "socket" . "sk", 8;
        /// Inode number of the network namespace.
        net_inum: "net" . "ns.inum", 4;
        /// `PF_*` bits.
        task_flags: "task_struct" . "flags", 4;
        /// Process id.
        task_tgid: "task_struct" . "tgid", 4;
        /// First thread of the process.
        task_group_leader: "task_struct" . "group_leader", 8;
        /// Start time of the task, boot clock.
        task_start_boottime: "task_struct" . "start_boottime", 8;
        /// Name of the thread.
        task_comm: "task_struct" . "comm", 16;
        /// Nanoseconds that the thread has run, up to `task_exec_start`.
        task_runtime: "task_struct" . "se.sum_exec_runtime", 8;
        /// When that was last brought up to date, by the scheduler's clock.
        task_exec_start: "task_struct" . "se.exec_start", 8;
        /// Nanoseconds that the thread has waited to run, throttling included.
        task_run_delay: "task_struct" . "sched_info.run_delay", 8;
        /// The process's open files.
        task_files: "task_struct" . "files", 8;
        /// Their table.
        files_table: "files_struct" . "fdt", 8;
        /// Places in the table.
        table_length: "fdtable" . "max_fds", 4;
        /// The table's pointers to files.
        table_files: "fdtable" . "fd", 8;
        /// Of a socket's file, its `struct socket`.
        file_private: "file" . "private_data", 8;
        /// Inode.
        file_inode: "file" . "f_inode", 8;
        /// Kind and permissions.
        inode_mode: "inode" . "i_mode", 2;
        /// Number.
        inode_number: "inode" . "i_ino", 8;
        /// File system.
        inode_sb: "inode" . "i_sb", 8;
        /// Device.
        sb_device: "super_block" . "s_dev", 4;
        /// Bits of what a mapping may be used for.
        vma_flags: "vm_area_struct" . "vm_flags", 8, optional;
        /// The file that is mapped, if any.
        vma_file: "vm_area_struct" . "vm_file", 8;
        /// Where a thread's stack in the kernel begins.
        task_stack: "task_struct" . "stack", 8;
        /// State shared by the threads of a process.
        task_signal: "task_struct" . "signal", 8;
        /// Threads of the process that still run.
        signal_live: "signal_struct" . "live.counter", 4;
        /// Path given to `execve`.
        binprm_filename: "linux_binprm" . "filename", 8;
        /// Address of the other side, a `sockaddr` in kernel memory; null if the caller does not name or want it.
        msg_name: "msghdr" . "msg_name", 8;
        /// What the segments are; one of the enumerators `iter_*_kind`.
        msg_iter_type: "msghdr" . "msg_iter.iter_type", 1, optional;
        /// The same up to 5.13, with the direction in the lowest bit.
        msg_iter_type_bits: "msghdr" . "msg_iter.type", 4, optional;
        /// Bytes of the first segment that are done with.
        msg_iter_offset: "msghdr" . "msg_iter.iov_offset", 8;
        /// Bytes left in all.
        msg_iter_count: "msghdr" . "msg_iter.count", 8;
        /// Segments left.
        msg_iter_segments: "msghdr" . "msg_iter.nr_segs", 8;
        /// The segments.
        msg_iter_iov: "msghdr" . "msg_iter.__iov" or "msg_iter.iov", 8;
        /// The only segment, where no list is kept for it (6.0 on).
        msg_iter_ubuf: "msghdr" . "msg_iter.ubuf", 8, optional;
    }
    enumerators {
        /// Bit number: the peer's FIN arrived.
        sock_done: "SOCK_DONE";
        /// Bit number: `SO_KEEPALIVE`.
        sock_keepopen: "SOCK_KEEPOPEN";
        /// A list of segments in user memory.
        iter_iovec_kind: "ITER_IOVEC";
        /// One segment in user memory (6.0 on).
        iter_ubuf_kind: "ITER_UBUF", optional;
        /// Number of the helper that tells a probe which of its places it is at (5.15 on).
        get_attach_cookie: "BPF_FUNC_get_attach_cookie", optional;
        /// Number of the helper that tells where a thread's registers in user space are (5.15 on).
        task_pt_regs: "BPF_FUNC_task_pt_regs", optional;
    }
}

const _: () = {
    // With the kernel's head of 72 bytes this fits an allocation of 256 in socket storage.
    assert!(size_of::<SocketRecord>() == 184 && align_of::<SocketRecord>() == 8);
    assert!(size_of::<DetailedRecord>() == size_of::<SocketRecord>() + size_of::<Exchanges>() + size_of::<Handshake>());
    assert!(size_of::<ExchangeRecord>() == 72 && align_of::<ExchangeRecord>() == 8);
    assert!(size_of::<TlsRecord>() == 24 + size_of::<Handshake>());
    assert!(size_of::<HelloRecord>() == 32 + HELLO_LEN && align_of::<HelloRecord>() == 8);
    assert!(size_of::<ProcessRecord>() == 24 + COMM_LEN + FILENAME_LEN && align_of::<ProcessRecord>() == 8);
    assert!(size_of::<Cidr>() == 32 && align_of::<Cidr>() == 4);
    assert!(size_of::<Config>() == 72 + COMM_LEN + 2 * MAX_PORTS + 32 * MAX_REMOTES);
    assert!(size_of::<Offsets>() == 4 * (Offsets::FIELDS.len() + Offsets::ENUMERATORS.len()));
    assert!(align_of::<Offsets>() == 4);
};
