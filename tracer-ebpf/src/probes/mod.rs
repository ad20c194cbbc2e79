//! One hook family a file. Each hook is a thin shell around a `try_` function, once for typed pointers (fentry, fexit,
//! tp_btf) and once for the fallback (kprobe, kretprobe, raw tracepoint).

pub mod accept;
pub mod close;
pub mod connect;
pub mod dns;
pub mod error;
pub mod getaddrinfo;
pub mod io;
pub mod mapped;
pub mod no_route;
pub mod nothing;
pub mod process;
pub mod reset;
pub mod retransmit;
pub mod ssl;
pub mod state;
pub mod user;

/// Result of a `try_` function: `None` means that there was nothing to do or that a read failed, and where that lost
/// something it has been counted.
pub type Outcome = Option<()>;
