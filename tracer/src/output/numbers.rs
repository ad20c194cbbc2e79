//! A process's numbers.

use super::{line::Put, number::decimal};
use crate::track::record::Process;

/// `"pid":7`, and `,"host_pid":4711` where the host has another number for it.
pub(super) fn numbers(process: &Process, out: &mut impl Put) {
    let (own, host) = process.numbers();
    out.literal(br#""pid":"#);
    decimal(own, out);
    if let Some(host) = host {
        out.literal(br#","host_pid":"#);
        decimal(host, out);
    }
}
