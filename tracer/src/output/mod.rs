//! The outputs: records as lines of text or NDJSON, events as a recording.

mod errno;
mod escape;
mod hellos;
mod http;
mod identity;
mod line;
pub mod ndjson;
mod number;
mod phases;
pub mod recording;
mod summary;
pub mod text;
mod units;
mod words;

use crate::track::record::Record;

/// Turns records into bytes.
pub trait Output {
    /// Appends one record, with its line ends. Where the bytes go is the caller's business.
    fn record(&mut self, record: &Record, out: &mut Vec<u8>);

    /// Whether it does anything with the record of an exchange. If not, none need be made.
    fn wants_exchanges(&self) -> bool;
}
