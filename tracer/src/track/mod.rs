//! The pure correlator: events and time in, records out. No clock, no I/O, bounded memory.

mod clock;
mod close;
mod connection;
mod correlator;
mod dns;
mod early;
mod exchange;
mod http;
mod idle;
mod losses;
mod lowered;
mod process;
pub mod record;
mod report;
mod shared;
mod spread;
mod summary;
mod table;
mod tls;

pub use clock::Clock;
pub use correlator::{Correlator, Limits};
