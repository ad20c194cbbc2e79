//! The TLS parsers against real handshakes, against wrong ones, and against anything.

mod follow;
mod golden;
mod handshake;
mod malformed;
mod properties;
mod record;
mod resumption;
mod support;
