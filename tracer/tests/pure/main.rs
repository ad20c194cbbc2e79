//! Tests of the pure parts from outside: events in, records and lines out.

mod correlator;
mod dns;
mod exchanges;
mod findings;
mod http;
mod ndjson;
mod support;
mod text;
