//! Every map and every read-only global: what it holds, who writes it, who deletes from it, how big it is.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf, SkStorage},
    macros::btf_map,
};
use tracer_ebpf::{Config, ExchangeRecord, Loss, MESSAGE_HOOKS, MESSAGE_PROGRAMS, Offsets, SocketRecord, ssl::FileKey};

use crate::{
    kept::Kept,
    message::Message,
    overlap::{Hook, Marks},
    probes::{getaddrinfo::NameCall, ssl::go::GoRead},
    session::{LibraryCall, Mark, Session, SessionKey},
};

/// Settings of this trace. Written by user space before load, read-only after: the verifier sees constants and drops
/// the branches that they rule out.
#[unsafe(no_mangle)]
pub static CONFIG: Global<Config> = Global::new(Config::EVERYTHING);

/// Where the kernel fields are. Written by user space from BTF before load.
#[unsafe(no_mangle)]
pub static OFFSETS: Global<Offsets> = Global::new(Offsets::NONE);

/// Reads one member of [`CONFIG`]; volatile, so that the compiler does not use the value it was compiled with.
macro_rules! config {
    ($($member:tt)+) => {
        // SAFETY: in bounds of a static that nobody writes while programs run.
        unsafe {
            core::ptr::read_volatile(
                &raw const (*(&raw const crate::maps::CONFIG).cast::<tracer_ebpf::Config>()).$($member)+,
            )
        }
    };
}
pub(crate) use config;

/// Reads one member of [`OFFSETS`], likewise.
macro_rules! offset {
    ($member:ident) => {
        // SAFETY: as above.
        unsafe {
            core::ptr::read_volatile(
                &raw const (*(&raw const crate::maps::OFFSETS).cast::<tracer_ebpf::Offsets>()).$member,
            )
        }
    };
}
pub(crate) use offset;

/// Lifecycle events on their way to user space. User space sets the size (`--ring-size`, 8 MiB unless told).
#[btf_map]
pub static EVENTS: RingBuf<SocketRecord, { 8 * 1024 * 1024 }> = RingBuf::new();

/// Exchanges, handshakes, hello messages and DNS messages on their way to user space. User space sets the size
/// (`--exchange-ring-size`, 8 MiB unless told).
#[btf_map]
pub static EXCHANGES: RingBuf<ExchangeRecord, { 8 * 1024 * 1024 }> = RingBuf::new();

/// The record of each traced socket, where socket storage can be had. Made by the connect, accept and adopt paths,
/// freed by the kernel with the socket.
#[btf_map]
pub static SOCKETS: SkStorage<SocketRecord> = SkStorage::new();

/// The same in detail `exchanges`: one look-up finds all that is kept of a socket.
#[btf_map]
pub static SOCKETS_DETAILED: SkStorage<Kept> = SkStorage::new();

/// The same by socket address, where it cannot. Made by the same paths, deleted at the release. User space sets the
/// size (`--max-connections`).
#[btf_map]
pub static SOCKETS_LRU: LruHashMap<u64, SocketRecord, 65536> = LruHashMap::new();

/// The same in detail `exchanges`.
#[btf_map]
pub static SOCKETS_LRU_DETAILED: LruHashMap<u64, Kept, 65536> = LruHashMap::new();

/// The first bytes of the message that a hook looks at, one for each program of the hooks that do: two tasks that preempt
/// each other on one processor may be in two programs, never in the same. User space makes it smaller where each hook has
/// but one.
#[btf_map]
pub static MESSAGES: PerCpuArray<Message, { MESSAGE_HOOKS * MESSAGE_PROGRAMS }> = PerCpuArray::new();

/// Numbers for sockets without a cookie, one counter a CPU.
#[btf_map]
pub static NEXT_ID: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Which events the programs of a hook have seen, see `overlap`. Written and read by the programs of the hook that is the index. One for
/// all processors: a task that is preempted between two programs may go on on another.
#[btf_map]
pub static SERVED: Array<Marks, { Hook::COUNT }> = Array::new();

/// Target processes (key: tgid, value: `target` bits). Written by user space at the start and by the fork hook,
/// deleted by the exit hook. Where the tracer is in a PID namespace of its own, keys that user space writes are numbers there, marked
/// (`tracer_ebpf::pid::OWN`), and those of the hooks the kernel's.
#[btf_map]
pub static TARGETS: HashMap<u32, u32, 65536> = HashMap::new();

/// The kernel's numbers of processes by those in the tracer's PID namespace, where these differ. Written when a process owns a connection
/// or starts a program; of more than fit, the one unused for longest is forgotten.
#[btf_map]
pub static HOST_PIDS: LruHashMap<u32, u32, 16384> = LruHashMap::new();

/// Sockets open before the trace (key: cookie, value: `adopted`). Written by user space once, deleted when the socket
/// is first seen here.
#[btf_map]
pub static ADOPTED: HashMap<u64, u64, 131072> = HashMap::new();

/// Arguments of a connect that is under way, for its return probe, where fexit cannot be had (key: thread).
#[btf_map]
pub static CONNECT_ARGS: LruHashMap<u64, ConnectArgs, 4096> = LruHashMap::new();

/// The receive that each thread began last, for the probe where it takes a datagram, where fexit cannot be had (key:
/// thread). One that took nothing stays until the thread's next.
#[btf_map]
pub static RECEIVES: LruHashMap<u64, Call, 4096> = LruHashMap::new();

/// The receive from TCP that each thread began last, for the probe at its end, where fexit cannot be had (key: thread). It stays until the
/// thread's next; of more than fit, the oldest is forgotten, and its bytes are not looked at.
#[btf_map]
pub static READS: LruHashMap<u64, Read, 8192> = LruHashMap::new();

/// Calls that are followed from entry to return, see `calls` (key: thread).
#[btf_map]
pub static CALLS: HashMap<u64, Call, 4096> = HashMap::new();

/// Sessions of TLS libraries. Written by the probes on them, deleted when the library frees the session; of more than fit, the
/// one unused for longest is forgotten.
#[btf_map]
pub static SESSIONS: LruHashMap<SessionKey, Session, 32768> = LruHashMap::new();

/// Each thread's last call into a TLS library (key: thread). Written by the probes on them.
#[btf_map]
pub static LIBRARY_CALLS: LruHashMap<u64, LibraryCall, 16384> = LruHashMap::new();

/// First bytes of records that sessions have made and that no socket was seen to send yet (value: the session's address).
/// Written by the probe on what hands them to the library's output, read by the hook of sends.
#[btf_map]
pub static CIPHERTEXTS: LruHashMap<Mark, u64, 8192> = LruHashMap::new();

/// Reads of Go's `crypto/tls` that are under way (key: goroutine and process). Written at their entry, deleted at their return.
#[btf_map]
pub static GO_READS: LruHashMap<SessionKey, GoRead, 16384> = LruHashMap::new();

/// Calls of `getaddrinfo` under way (key: thread). Written by the probe on its entry, deleted by that on its return. A thread that
/// leaves otherwise leaves its entry, which its next call replaces; of more than fit, the oldest is forgotten.
#[btf_map]
pub static NAME_CALLS: LruHashMap<u64, NameCall, 8192> = LruHashMap::new();

/// Empty, see `probes::user::keep_stack_apart`.
#[btf_map]
pub static NO_PROGRAMS: ProgramArray<1> = ProgramArray::new();

/// Files of which user space knows all that it wants to: they hold no TLS library, and the probes on the C library are there. Written
/// by user space when it has looked, read by the hook of mappings.
#[btf_map]
pub static SETTLED_FILES: LruHashMap<FileKey, u8, 16384> = LruHashMap::new();

/// Losses by cause, see `tracer_ebpf::Loss`. Only ever counted up; user space reports the differences.
#[btf_map]
pub static LOSSES: PerCpuArray<u64, { Loss::COUNT as usize }> = PerCpuArray::new();

/// A value of [`CONNECT_ARGS`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ConnectArgs {
    /// `struct sock *`.
    pub sock: u64,
    /// `struct sockaddr *` in kernel memory.
    pub address: u64,
}

/// A value of [`READS`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Read {
    /// `struct sock *`.
    pub sock: u64,
    /// `struct msghdr *`.
    pub msg: u64,
    /// Bytes that the message had room for at the last look.
    pub left: u64,
}

/// A value of [`RECEIVES`] and [`CALLS`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// `struct sock *`.
    pub sock: u64,
    /// `struct msghdr *`, 0 for an accept.
    pub msg: u64,
}
