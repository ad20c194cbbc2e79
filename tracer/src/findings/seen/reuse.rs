//! Why exchanges were cold: which connection could have carried each, had it been kept.

use std::rc::Rc;

use super::{closes::SHORTEST_IDLE, examples::Examples};
use crate::{
    findings::sketch::Durations,
    output::units,
    track::record::{Closer, Connection, Exchange, HttpHead, Nanos, Process, Setup, WallTime},
};

/// Connections that were parted with and nobody has taken the place of. Of more, the longest idle are forgotten.
const KEPT: usize = 128;
/// For how long an idle connection may sensibly be kept: idle timeouts of load balancers end at about this.
const LONGEST_KEPT: Nanos = 600_000_000_000;
/// For how long after its use a connection would have been kept anywhere: few idle timeouts are shorter.
const LONGEST_REUSED: Nanos = 10_000_000_000;
/// For so long after a group's first connection, one that none can be named for belongs to the beginning.
const BEGINNING: Nanos = 60_000_000_000;
/// Exchanges of which the overlap is looked for.
const OVERLAP: usize = 256;

/// Why a connection was there no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// This side closed it when it had been idle.
    LocalIdle,
    /// The peer did.
    PeerIdle,
    /// It was closed right after its only exchange.
    AfterUse,
}

struct Parted {
    process: Rc<Process>,
    idle_since: u64,
    closed_at: u64,
    why: Parting,
}

/// Cold exchanges of one cause.
#[derive(Default)]
pub struct Caused {
    /// How many.
    pub count: u64,
    /// What their setup took.
    pub setup: Durations,
    /// For how long the connection would have had to be kept.
    pub gap: Durations,
    /// The dearest.
    pub examples: Examples,
}

/// The exchanges of a client.
pub struct Reuse {
    parted: Vec<Parted>,
    /// For want of a connection that this side had closed, that the peer had closed, or that had been used once.
    pub local_idle: Caused,
    /// See there.
    pub peer_idle: Caused,
    /// See there.
    pub after_use: Caused,
    /// There had never been one, within the group's first minute.
    pub first: Caused,
    /// The same later, or the connection was closed otherwise.
    pub others: Caused,
    began_at: Option<u64>,
    /// Cold ones.
    pub cold: u64,
    /// Warm ones.
    pub warm: u64,
    /// Setup and wait for the first byte of a cold one; the wait of a warm one.
    pub cold_total: Durations,
    /// See there.
    pub warm_total: Durations,
    /// Of the cold ones, each phase of the setup.
    pub dns: Durations,
    /// See there.
    pub connect: Durations,
    /// See there.
    pub handshake: Durations,
    /// How long an idle connection had to be kept to be warm at each exchange.
    pub needed: Durations,
    /// Connections with one exchange, closed right after it.
    pub once: u64,
    /// Of these, those whose only request, or response, asked to close.
    pub asked: (u64, u64),
    /// Of these, closed by this side and by the peer.
    pub once_closed: (u64, u64),
    /// What the whole exchanges took.
    pub taken: Nanos,
    latest: Vec<(u64, u64)>,
    next: usize,
}

impl Default for Reuse {
    fn default() -> Self {
        Self {
            parted: Vec::new(),
            local_idle: Caused::default(),
            peer_idle: Caused::default(),
            after_use: Caused::default(),
            first: Caused::default(),
            others: Caused::default(),
            began_at: None,
            cold: 0,
            warm: 0,
            cold_total: Durations::default(),
            warm_total: Durations::default(),
            dns: Durations::default(),
            connect: Durations::default(),
            handshake: Durations::default(),
            needed: Durations::fine(),
            once: 0,
            asked: (0, 0),
            once_closed: (0, 0),
            taken: 0,
            latest: Vec::new(),
            next: 0,
        }
    }
}

impl Reuse {
    /// Exchanges that were told.
    pub fn exchanges(&self) -> u64 {
        self.cold + self.warm
    }

    /// Counts an exchange. The first one on a connection that was opened ahead of need is as good as warm.
    pub fn add_exchange(&mut self, exchange: &Exchange, is_ahead: bool) {
        let Some(began_at) = exchange.began_at.map(|at| at.0) else { return };
        self.taken = self.taken.saturating_add(exchange.duration.unwrap_or(0));
        self.note_time(began_at, exchange.duration.or(exchange.first_byte).unwrap_or(0));
        match (exchange.cold, &exchange.setup) {
            (Some(true), Some(_)) if is_ahead => self.add_warm(exchange),
            (Some(true), Some(setup)) => self.add_cold(exchange, setup, began_at),
            (Some(false), _) => self.add_warm(exchange),
            _ => {}
        }
    }

    fn add_warm(&mut self, exchange: &Exchange) {
        self.warm += 1;
        if let Some(idle) = exchange.idle_before {
            self.needed.add(idle);
        }
        if let Some(first_byte) = exchange.first_byte {
            self.warm_total.add(first_byte);
        }
    }

    fn add_cold(&mut self, exchange: &Exchange, setup: &Setup, began_at: u64) {
        self.cold += 1;
        for (phase, sketch) in
            [(setup.dns, &mut self.dns), (setup.connect, &mut self.connect), (setup.handshake, &mut self.handshake)]
        {
            if let Some(took) = phase {
                sketch.add(took);
            }
        }
        if let (Some(total), Some(first_byte)) = (setup.total, exchange.first_byte) {
            self.cold_total.add(total.saturating_add(first_byte));
        }
        let before = [exchange.idle_before, setup.connect, setup.handshake].into_iter().flatten();
        let before = before.fold(0, Nanos::saturating_add);
        let opened_at = began_at.saturating_sub(before);
        let began_at = *self.began_at.get_or_insert(opened_at);
        let parted = self.take_place(opened_at, &exchange.process);
        let gap = parted.as_ref().map(|parted| opened_at.saturating_sub(parted.idle_since));
        let caused = match parted.map(|parted| parted.why) {
            Some(Parting::LocalIdle) => &mut self.local_idle,
            Some(Parting::PeerIdle) => &mut self.peer_idle,
            Some(Parting::AfterUse) => &mut self.after_use,
            None if opened_at.saturating_sub(began_at) <= BEGINNING => &mut self.first,
            None => &mut self.others,
        };
        caused.count += 1;
        if let Some(gap) = gap {
            caused.gap.add(gap);
            self.needed.add(gap);
        }
        if let Some(total) = setup.total {
            caused.setup.add(total);
            caused.examples.add(exchange.connection, Some(WallTime(opened_at)), total, || {
                let gap = gap.map(|gap| format!(", {} after the last use of the one before", units::duration(gap)));
                format!("setup took {}{}", units::duration(total), gap.unwrap_or_default())
            });
        }
    }

    /// The connection that would have carried an exchange: of those that were there no more the one used last, as pools prefer it.
    fn take_place(&mut self, opened_at: u64, process: &Process) -> Option<Parted> {
        let would_be_kept = |parted: &Parted| {
            let (idle, gone) =
                (opened_at.saturating_sub(parted.idle_since), opened_at.saturating_sub(parted.closed_at));
            let is_same = (parted.process.pid, parted.process.started_at) == (process.pid, process.started_at);
            is_same
                && parted.closed_at <= opened_at
                && idle <= LONGEST_KEPT
                && (parted.why != Parting::AfterUse || gone <= LONGEST_REUSED)
        };
        let candidates = self.parted.iter().enumerate().filter(|(_, parted)| would_be_kept(parted));
        let (place, _) = candidates.max_by_key(|(_, parted)| parted.idle_since)?;
        Some(self.parted.swap_remove(place))
    }

    /// Counts a connection that is reported.
    pub fn add_connection(&mut self, connection: &Connection) {
        let (Some(close), Some(exchanges), Some(idle)) =
            (&connection.close, &connection.exchanges, connection.idle_before_close)
        else {
            return;
        };
        // Of one older than the trace the exchanges before that are not known.
        let was_used = exchanges.count > 0 || connection.preexisting;
        if !was_used || exchanges.stale || close.process_exited {
            return;
        }
        let released_at = close.released_at.or(close.ended_at).map(|at| at.0);
        let (closed_at, why) = match close.closer {
            Closer::Local => (released_at, Parting::LocalIdle),
            Closer::Peer => (released_at.map(|at| at.saturating_sub(close.unnoticed.unwrap_or(0))), Parting::PeerIdle),
            Closer::None => return,
        };
        let Some(closed_at) = closed_at else { return };
        let after_use = idle < SHORTEST_IDLE;
        if after_use && (exchanges.count > 1 || connection.preexisting) {
            return;
        }
        if after_use {
            self.once += 1;
            match why {
                Parting::LocalIdle => self.once_closed.0 += 1,
                _ => self.once_closed.1 += 1,
            }
        }
        if self.parted.len() >= KEPT
            && let Some(oldest) = (0..KEPT).min_by_key(|place| self.parted[*place].idle_since)
        {
            self.parted.swap_remove(oldest);
        }
        let why = if after_use { Parting::AfterUse } else { why };
        let process = Rc::clone(&connection.process);
        self.parted.push(Parted { process, idle_since: closed_at.saturating_sub(idle), closed_at, why });
    }

    /// Counts who asked to close on a connection's first exchange.
    pub fn add_heads(&mut self, exchange: &Exchange) {
        let asks = |head: &Option<Rc<HttpHead>>| head.as_ref().is_some_and(|head| head.asks_to_close());
        self.asked.0 += u64::from(asks(&exchange.request));
        self.asked.1 += u64::from(!asks(&exchange.request) && asks(&exchange.response));
    }

    fn note_time(&mut self, began_at: u64, took: Nanos) {
        let time = (began_at, began_at.saturating_add(took));
        match self.latest.get_mut(self.next) {
            Some(place) => *place = time,
            None => self.latest.push(time),
        }
        self.next = (self.next + 1) % OVERLAP;
    }

    /// The most exchanges that were under way at a time, of the latest ones.
    pub fn at_a_time(&self) -> u64 {
        let mut turns: Vec<_> = self.latest.iter().flat_map(|(began, ended)| [(*began, 1_i64), (*ended, -1)]).collect();
        turns.sort_unstable();
        let running = turns.iter().scan(0, |now, (_, step)| {
            *now += step;
            Some(*now)
        });
        running.max().unwrap_or(0).unsigned_abs()
    }
}
