//! User space of conntracer, as a library so that tests and benchmarks can reach its parts.

pub mod output;
pub mod stage;
pub mod track;
