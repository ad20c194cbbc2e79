//! The TLS parsers against real handshakes, against wrong ones, and against anything.

mod golden;
mod malformed;
mod properties;
mod record;
mod resumption;
mod support;
