//! Tests of the pure parts from outside: events in, records and lines out.

mod correlator;
mod dns;
mod exchanges;
mod ndjson;
mod support;
mod text;
