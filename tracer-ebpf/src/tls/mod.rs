//! TLS as it is seen on the wire: record headers, alerts, the two hello messages, and their names.
//!
//! Pure and without allocation. [`handshake`], [`walk`], [`record`] and [`alert`] are for hooks and user space; the rest is for user space alone, which
//! gets a bounded copy of what was sent first each way.
//!
//! The parser is our own because `tls-parser` 0.12 answers a copy that was cut with `Incomplete` and nothing of what it had
//! read, and a ClientHello that is split over records with an error. It also allocates a list for each extension, where few of
//! them are needed here.

pub mod alert;
#[cfg(not(target_arch = "bpf"))]
pub mod bounded;
#[cfg(not(target_arch = "bpf"))]
mod digest;
pub mod handshake;
#[cfg(not(target_arch = "bpf"))]
pub mod hello;
#[cfg(not(target_arch = "bpf"))]
mod message;
#[cfg(not(target_arch = "bpf"))]
pub mod names;
pub mod record;
pub mod walk;

#[cfg(not(target_arch = "bpf"))]
pub use digest::digest;
