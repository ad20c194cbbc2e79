//! Exchanges that were begun on a dead connection: how it had died, and how long it took until one was answered again.

use super::examples::Examples;
use crate::{
    findings::sketch::Durations,
    output::units,
    track::record::{Closer, Connection, ConnectionId, Exchange, How, Nanos, WallTime},
};

/// Stale exchanges whose outcome is not known yet. More are counted, but not followed.
const MOST_PENDING: usize = 64;
/// Exchanges that have been answered, to find the one that took a stale one's place.
const KEPT: usize = 128;

/// How a connection had died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The peer's FIN had come.
    Fin,
    /// It was reset, mostly in answer to the ask.
    Rst,
    /// Nothing came at all.
    Silence,
}

/// A stale exchange under way.
#[derive(Clone, Copy)]
struct Pending {
    connection: ConnectionId,
    began_at: u64,
    idle: Option<Nanos>,
    failed_at: Option<u64>,
}

/// The stale exchanges of a client.
pub struct Stale {
    /// How many.
    pub count: u64,
    /// By how the connection had died.
    pub deaths: [u64; 3],
    /// Some were inferred from what became of them.
    pub guessed: bool,
    /// From the peer's FIN to the ask.
    pub unnoticed: Durations,
    /// From the ask until it was given up or failed.
    pub until_failed: Durations,
    /// From the ask until the first exchange after it was answered.
    pub until_answered: Durations,
    /// Shortest idle time of a connection that was dead.
    pub dead_after: Option<Nanos>,
    /// Idle time of those that were alive.
    pub alive: Durations,
    /// Some on connections without TCP keepalive died in silence.
    pub silent_without_keepalive: u64,
    /// The dearest.
    pub examples: Examples,
    pending: Vec<Pending>,
    answered: Vec<(u64, u64, ConnectionId)>,
    next: usize,
}

impl Default for Stale {
    fn default() -> Self {
        Self {
            count: 0,
            deaths: [0; 3],
            guessed: false,
            unnoticed: Durations::default(),
            until_failed: Durations::default(),
            until_answered: Durations::default(),
            dead_after: None,
            alive: Durations::fine(),
            silent_without_keepalive: 0,
            examples: Examples::default(),
            pending: Vec::new(),
            answered: Vec::new(),
            next: 0,
        }
    }
}

impl Stale {
    /// Deaths of one kind.
    pub fn by(&self, death: Death) -> u64 {
        self.deaths[death as usize]
    }

    /// Counts an exchange.
    pub fn add_exchange(&mut self, exchange: &Exchange) {
        let Some(began_at) = exchange.began_at.map(|at| at.0) else { return };
        if exchange.stale {
            self.count += 1;
            self.guessed |= exchange.confidence.iter().any(|remark| remark.field == "stale");
            if self.pending.len() < MOST_PENDING {
                let Exchange { connection, idle_before: idle, .. } = *exchange;
                self.pending.push(Pending { connection, began_at, idle, failed_at: None });
            }
            return;
        }
        let Some(first_byte) = exchange.first_byte else { return };
        if let Some(idle) = exchange.idle_before.filter(|_| exchange.index > 0) {
            self.alive.add(idle);
        }
        let answered = (began_at, began_at.saturating_add(first_byte), exchange.connection);
        match self.answered.get_mut(self.next) {
            Some(place) => *place = answered,
            None => self.answered.push(answered),
        }
        self.next = (self.next + 1) % KEPT;
        self.settle();
    }

    /// Takes in how a connection with a stale exchange ended.
    pub fn add_connection(&mut self, connection: &Connection) {
        let Some(pending) = self.pending.iter_mut().find(|pending| pending.connection == connection.id) else { return };
        let Some(close) = &connection.close else { return };
        let failed_at = match (close.released_at, close.ended_at) {
            (Some(released), Some(ended)) => Some(released.min(ended)),
            (released, ended) => released.or(ended),
        };
        let death = match (close.closer, close.how) {
            (Closer::Peer, How::Fin) => Death::Fin,
            (Closer::Peer, _) | (Closer::None, How::Rst) => Death::Rst,
            _ => Death::Silence,
        };
        let Pending { began_at, idle, .. } = *pending;
        pending.failed_at = Some(failed_at.map_or(began_at, |at| at.0.max(began_at)));
        self.deaths[death as usize] += 1;
        let dead_after = match death {
            Death::Fin => {
                if let (Some(idle), Some(alive)) = (idle, connection.idle_before_close) {
                    self.unnoticed.add(idle.saturating_sub(alive));
                }
                connection.idle_before_close
            }
            Death::Rst | Death::Silence => idle,
        };
        self.dead_after = [self.dead_after, dead_after].into_iter().flatten().min();
        self.silent_without_keepalive += u64::from(death == Death::Silence && connection.keepalive == Some(false));
        self.settle();
    }

    /// Finds the exchanges that took the places of stale ones.
    fn settle(&mut self) {
        let Self { pending, answered, until_failed, until_answered, examples, .. } = self;
        pending.retain(|stale| {
            let Some(failed_at) = stale.failed_at else { return true };
            // A client may try again a little before it lets go of the dead connection.
            let is_next = |(began, _, connection): &&(u64, u64, ConnectionId)| {
                *connection != stale.connection
                    && *began > stale.began_at
                    && began.saturating_add(RETRY_EARLY) >= failed_at
                    && *began <= failed_at.saturating_add(RETRY_LATE)
            };
            let Some((_, answered_at, _)) = answered.iter().filter(is_next).min_by_key(|(began, ..)| *began) else {
                return true;
            };
            let (failed, again) = (failed_at - stale.began_at, answered_at.saturating_sub(stale.began_at));
            until_failed.add(failed);
            until_answered.add(again);
            examples.add(stale.connection, Some(WallTime(stale.began_at)), again, || {
                let idle = stale.idle.map_or_else(|| "some time".into(), units::duration);
                format!(
                    "asked after {idle} idle, failed after {}, answered by another connection after {}",
                    units::duration(failed),
                    units::duration(again)
                )
            });
            false
        });
    }

    /// Takes in that nothing more will come: what has failed and was never asked again.
    pub fn conclude(&mut self) {
        for stale in std::mem::take(&mut self.pending) {
            if let Some(failed_at) = stale.failed_at {
                self.until_failed.add(failed_at - stale.began_at);
                self.examples.add(stale.connection, Some(WallTime(stale.began_at)), failed_at - stale.began_at, || {
                    format!("failed after {}", units::duration(failed_at - stale.began_at))
                });
            }
        }
    }
}

/// See [`Stale::settle`].
const RETRY_EARLY: Nanos = 50_000_000;
/// What comes later is no second try, but the next thing to do.
const RETRY_LATE: Nanos = 10_000_000_000;
