//! What is to happen to a connection.

use harness::Family;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// Longest gap. Short, so that many connections fit in little time; the kernel counts in ticks of 4 ms.
const MAX_GAP_MS: u64 = 400;

/// Longest message.
const MAX_BYTES: usize = 40_000;

/// What a plan of a run depends on.
pub fn randomness(seed: u64, index: usize) -> StdRng {
    // Far apart, so that plans of neighbours have nothing in common.
    StdRng::seed_from_u64(seed.wrapping_mul(1 << 32).wrapping_add(index as u64))
}

/// A connection's life.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the ends address each other.
    pub family: Family,
    /// Request, response, and the gap before.
    pub exchanges: Vec<Exchange>,
    /// Gap before the end.
    pub idle_ms: u64,
    /// The end.
    pub end: End,
    /// How long the other side takes to close as well.
    pub unnoticed_ms: u64,
}

/// One turn.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// Gap before it.
    pub gap_ms: u64,
    /// Bytes from client to server.
    pub request: usize,
    /// Bytes back.
    pub response: usize,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that connects.
    Client,
    /// The one that accepts.
    Server,
}

/// How a connection ends, or does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody closes.
    Close(Side),
    /// Somebody sends no more; the other side sends on.
    HalfClose(Side, usize),
    /// Somebody closes with linger 0.
    Reset(Side),
    /// Somebody closes with data unread.
    Unread(Side, usize),
    /// The client's process ends.
    Exit,
    /// Nobody listens.
    Refused,
    /// There is no way there.
    Unreachable,
    /// The client gives up before the answer.
    Aborted,
}

impl Plan {
    /// The plan of one connection of a run.
    pub fn random(seed: u64, index: usize) -> Self {
        let mut random = randomness(seed, index);
        let family = *[Family::V4, Family::V6, Family::Mapped].choose(&mut random).expect("some family");
        let side = if random.random() { Side::Client } else { Side::Server };
        let some_bytes = random.random_range(1..=2_000);
        let end = match random.random_range(0..100) {
            0..40 => End::Close(side),
            40..50 => End::HalfClose(side, some_bytes),
            50..62 => End::Reset(side),
            62..74 => End::Unread(side, some_bytes),
            74..82 => End::Exit,
            82..88 => End::Refused,
            88..94 => End::Unreachable,
            _ => End::Aborted,
        };
        let exchanges = Exchange::several(&mut random);
        Self { family, exchanges, idle_ms: gap(&mut random), end, unnoticed_ms: gap(&mut random) / 4 }
    }
}

impl Exchange {
    /// The turns of one connection. Now and then the server speaks first, and now and then the last ask is not answered.
    fn several(random: &mut StdRng) -> Vec<Self> {
        let mut turns: Vec<Self> = (0..random.random_range(0..=5)).map(|_| Self::random(random)).collect();
        if random.random_ratio(1, 5)
            && let Some(first) = turns.first_mut()
        {
            (first.request, first.response) = (0, random.random_range(1..=MAX_BYTES));
        }
        if random.random_ratio(1, 5)
            && let Some(last) = turns.last_mut()
        {
            (last.request, last.response) = (random.random_range(1..=MAX_BYTES), 0);
        }
        turns
    }

    /// What has no request goes on with the answer before, what has no response with the next ask.
    fn random(random: &mut StdRng) -> Self {
        let gap_ms = gap(random);
        let mut bytes = || if random.random_ratio(1, 8) { 0 } else { random.random_range(1..=MAX_BYTES) };
        Self { gap_ms, request: bytes(), response: bytes() }
    }
}

/// Half of all gaps are none.
pub fn gap(random: &mut StdRng) -> u64 {
    if random.random() { 0 } else { random.random_range(1..=MAX_GAP_MS) }
}
