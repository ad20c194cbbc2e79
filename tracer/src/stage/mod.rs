//! The stages of the data's way: read, decode, enrich.

pub mod decode;
pub mod event;
