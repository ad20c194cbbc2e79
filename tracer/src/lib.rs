//! User space of conntracer, as a library so that tests and benchmarks can reach its parts.

#![deny(unsafe_code)]

pub mod app;
pub mod bpf;
pub mod cli;
pub mod command;
pub mod findings;
pub mod kernel;
pub mod memory;
pub mod output;
pub mod overhead;
pub mod rights;
pub mod stage;
pub mod target;
pub mod track;
#[expect(unsafe_code, reason = "it is all here")]
mod unchecked;
