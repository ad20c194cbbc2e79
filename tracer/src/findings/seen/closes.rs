//! How a group's connections were closed, and after how long.

use super::examples::Examples;
use crate::{
    findings::sketch::Durations,
    output::units,
    track::record::{Close, Closer, Connection, How, Nanos, Role},
};

/// What was idle for less was closed because it was done with, not because it was idle.
pub const SHORTEST_IDLE: Nanos = 500_000_000;

/// Closes that are this close to each other are of one moment.
const MOMENT: Nanos = 1_000_000_000;

/// The closes of established connections.
#[derive(Default)]
pub struct Closes {
    /// By this process, while it went on.
    pub local: ByOne,
    /// By the peer.
    pub peer: ByOne,
    /// By nobody, or because the process ended.
    pub others: u64,
    /// With TCP keepalive on, and without.
    pub keepalive: (u64, u64),
    /// From the peer's FIN, or what passed after it, to the release.
    pub unanswered_fins: Durations,
    /// Those of the longest.
    pub unanswered_examples: Examples,
}

/// The closes of one side.
pub struct ByOne {
    /// How many.
    pub count: u64,
    /// Resets that broke something off: of the peer those of clients' connections that were not idle, of this side those of
    /// connections that never received anything.
    pub breaks: u64,
    /// Time idle before the close, of those that were idle.
    pub idle: Durations,
    /// At how many different moments those were closed: a pool that is let go of as a whole is closed at one.
    pub moments: u64,
    last_moment: u64,
    /// Those that were idle.
    pub idle_examples: Examples,
    /// Those that broke something off.
    pub break_examples: Examples,
}

impl Default for ByOne {
    fn default() -> Self {
        Self {
            count: 0,
            breaks: 0,
            idle: Durations::fine(),
            moments: 0,
            last_moment: 0,
            idle_examples: Examples::default(),
            break_examples: Examples::default(),
        }
    }
}

impl Closes {
    /// All of them.
    pub fn count(&self) -> u64 {
        self.local.count + self.peer.count + self.others
    }

    /// Whether TCP keepalive was on; `None` if sometimes.
    pub fn keepalive(&self) -> Option<bool> {
        match self.keepalive {
            (1.., 0) => Some(true),
            (0, 1..) => Some(false),
            _ => None,
        }
    }

    /// Counts an established connection that is reported.
    pub fn add(&mut self, connection: &Connection) {
        match connection.keepalive {
            Some(true) => self.keepalive.0 += 1,
            Some(false) => self.keepalive.1 += 1,
            None => {}
        }
        let Some(close) = &connection.close else { return };
        self.add_fin(connection, close);
        match close.closer {
            Closer::Local if !close.process_exited => {
                self.local.add(connection, close, connection.bytes_received == Some(0))
            }
            Closer::Peer => self.peer.add(connection, close, breaks_off(connection)),
            _ => self.others += 1,
        }
    }

    fn add_fin(&mut self, connection: &Connection, close: &Close) {
        if close.process_exited {
            return;
        }
        if let (Closer::Peer, How::Fin, Some(unused)) = (close.closer, close.how, close.unused) {
            self.unanswered_fins.add(unused);
            self.unanswered_examples.add(connection.id, connection.opened_at, unused, || {
                format!("the peer's FIN was left unanswered for {}", units::duration(unused))
            });
        }
    }
}

/// Whether the peer's reset broke something off. A client that leaves TLS session tickets unread closes by reset, as do some health
/// checks and load balancers that let go of idle connections: nothing is lost by those.
fn breaks_off(connection: &Connection) -> bool {
    let was_idle = connection.idle_before_close.is_some_and(|idle| idle >= SHORTEST_IDLE);
    connection.role == Some(Role::Client) && !was_idle
}

impl ByOne {
    fn add(&mut self, connection: &Connection, close: &Close, breaks: bool) {
        self.count += 1;
        if close.how == How::Rst && breaks {
            self.breaks += 1;
            self.break_examples.add(connection.id, connection.opened_at, self.breaks, || "it was reset".into());
        }
        if let Some(idle) = connection.idle_before_close
            && idle >= SHORTEST_IDLE
        {
            self.idle.add(idle);
            self.add_moment(close);
            self.idle_examples.add(connection.id, close.released_at.or(close.ended_at), idle, || {
                format!("closed after {} idle", units::duration(idle))
            });
        }
    }

    fn add_moment(&mut self, close: &Close) {
        let released_at = close.released_at.or(close.ended_at).map_or(0, |at| at.0);
        // The peer's close is noticed later.
        let at = released_at.saturating_sub(close.unnoticed.unwrap_or(0));
        if self.moments == 0 || at.abs_diff(self.last_moment) > MOMENT {
            self.moments += 1;
            self.last_moment = at;
        }
    }
}
