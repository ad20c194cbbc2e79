//! The outputs: records as lines of text or NDJSON, events as a recording.

pub mod diagnosis;
mod errno;
pub(crate) mod escape;
mod finding_ndjson;
mod finding_text;
mod hellos;
mod http;
mod identity;
mod line;
pub mod ndjson;
mod number;
mod numbers;
mod phases;
pub mod recording;
mod summary;
pub mod text;
pub(crate) mod units;
mod words;

use crate::{findings::finding::Finding, track::record::Record};

/// Turns records into bytes.
pub trait Output {
    /// Appends one record, with its line ends. Where the bytes go is the caller's business.
    fn record(&mut self, record: &Record, out: &mut Vec<u8>);

    /// Appends a finding.
    fn finding(&mut self, finding: &Finding, out: &mut Vec<u8>);

    /// Whether it does anything with the record of an exchange. If not, none need be made.
    fn wants_exchanges(&self) -> bool;
}
