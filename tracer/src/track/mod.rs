//! The pure correlator: events and time in, records out. No clock, no I/O, bounded memory.

pub mod record;
