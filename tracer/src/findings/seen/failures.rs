//! Connects: those that failed, and those whose SYN had to be sent again.

use std::net::Ipv6Addr;

use super::examples::Examples;
use crate::{
    findings::sketch::Durations,
    output::units,
    track::record::{Connection, How, Nanos},
};

/// What is given up sooner lost a race: clients try IPv6 and IPv4 at once, or a quarter of a second apart (RFC 8305).
const RACED: Nanos = 1_000_000_000;

/// The connects of a client. Those to `::1` that are refused do not count: `localhost` is tried there first, and then at 127.0.0.1.
#[derive(Default)]
pub struct Connects {
    /// All that came to an end.
    pub count: u64,
    /// Those that failed, by kind.
    pub refused: u64,
    /// See there.
    pub timeout: u64,
    /// See there.
    pub unreachable: u64,
    /// Given up by this side.
    pub aborted: u64,
    /// Time that was spent on those.
    pub failed: Durations,
    /// Some of them.
    pub failed_examples: Examples,
    /// Those that succeeded at the first SYN.
    pub direct: Durations,
    /// Those whose SYN was sent again.
    pub again: Durations,
    /// Some of them.
    pub again_examples: Examples,
}

impl Connects {
    /// How many failed.
    pub fn failures(&self) -> u64 {
        self.refused + self.timeout + self.unreachable + self.aborted
    }

    /// Counts a connection that is reported.
    pub fn add(&mut self, connection: &Connection) {
        if connection.preexisting || (connection.open && !connection.established) {
            return;
        }
        self.count += 1;
        let took = connection.connect.unwrap_or(0);
        if !connection.established {
            self.add_failure(connection, took);
        } else if connection.syn_retransmits.is_some_and(|again| again > 0) {
            self.again.add(took);
            self.again_examples.add(connection.id, connection.opened_at, took, || {
                format!("connected after {}, the SYN was sent again", units::duration(took))
            });
        } else if connection.connect.is_some() {
            self.direct.add(took);
        }
    }

    fn add_failure(&mut self, connection: &Connection, took: u64) {
        let Some(close) = &connection.close else { return };
        let is_raced = close.how == How::Aborted && took < RACED;
        let is_tried_first = connection.remote.ip() == Ipv6Addr::LOCALHOST && close.how == How::Refused;
        if is_raced || is_tried_first {
            self.count -= 1;
            return;
        }
        let (count, what) = match close.how {
            How::Refused | How::Rst => (&mut self.refused, "refused"),
            How::Timeout => (&mut self.timeout, "not answered"),
            How::Unreachable => (&mut self.unreachable, "unreachable"),
            How::Aborted | How::Fin => (&mut self.aborted, "given up"),
        };
        *count += 1;
        self.failed.add(took);
        self.failed_examples
            .add(connection.id, connection.opened_at, took, || format!("{what} after {}", units::duration(took)));
    }
}
