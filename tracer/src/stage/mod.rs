//! The stages of the data's way: read, decode, enrich.

pub mod decode;
pub mod dns;
pub mod enrich;
pub mod event;
pub mod getaddrinfo;
pub mod hello;
pub mod http;
pub mod intake;
pub mod merge;
pub mod outlet;
pub mod pipeline;
pub mod read;
pub mod recorder;
pub mod ring;
pub mod sessions;
pub mod sink;
