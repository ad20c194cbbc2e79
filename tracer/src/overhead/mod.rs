//! What tracing costs, and what is done when that is more than the user allows (`--max-overhead`).

pub mod governor;
pub mod meter;
