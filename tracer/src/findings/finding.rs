//! A finding: what is wrong, on which connections, what it costs, what to change, and how sure that is.

use crate::track::record::{ConnectionId, Nanos, Role, WallTime};

/// One diagnosis of one process name and destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The rule that found it, a stable word: the headings of `docs/findings.md`.
    pub rule: &'static str,
    /// By what it costs.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Trust,
    /// When it held.
    pub at: WallTime,
    /// Process name; any characters.
    pub comm: String,
    /// Role of the process.
    pub role: Option<Role>,
    /// `name:port` or `ip:port` of a client's destination, `:port` of a server; of lookups the server asked. Any characters.
    pub destination: String,
    /// One line for people.
    pub title: String,
    /// What it has cost so far; `None` where that is not measured in time.
    pub cost: Option<Nanos>,
    /// The same for each minute observed.
    pub cost_per_minute: Option<Nanos>,
    /// Figures, by the names in `docs/findings.md`.
    pub evidence: Vec<(&'static str, Figure)>,
    /// Up to three connections.
    pub examples: Vec<Example>,
    /// What to do, in one or two sentences.
    pub advice: String,
    /// What else it points to, such as whose default a timeout is.
    pub hint: Option<String>,
    /// What would change the verdict.
    pub would_change: &'static str,
    /// Why the confidence is not higher.
    pub caveats: Vec<String>,
}

impl Finding {
    /// How much of it there is, to tell when it has grown: the first count of the evidence, which says how often it happened.
    pub fn weight(&self) -> u64 {
        let counted = self.evidence.iter().find_map(|(_, figure)| match figure {
            Figure::Count(count) => Some(*count),
            _ => None,
        });
        counted.unwrap_or(1)
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Worth an hour.
    Medium,
    /// Users feel it.
    High,
}

impl Severity {
    /// The word in the output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// By the time lost each minute. A second in a minute is what users complain of; below a tenth hardly anybody notices.
    pub fn by_cost(per_minute: Nanos) -> Self {
        match per_minute {
            1_000_000_000.. => Self::High,
            100_000_000.. => Self::Medium,
            _ => Self::Low,
        }
    }
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// It rests on few samples, or on guesses.
    Low,
    /// Part of it is inferred, or something was lost.
    Medium,
    /// It was measured.
    High,
}

impl Trust {
    /// The word in the output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// One step down.
    pub const fn lowered(self) -> Self {
        match self {
            Self::High => Self::Medium,
            Self::Medium | Self::Low => Self::Low,
        }
    }
}

/// A figure of the evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// How many.
    Count(u64),
    /// How long; `None` if not known.
    Time(Option<Nanos>),
    /// A ratio or a share of 1; `None` if not known.
    Ratio(Option<f64>),
    /// Yes or no; `None` if not known, or some so and some so.
    Flag(Option<bool>),
}

/// A connection that shows what the finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Which.
    pub connection: ConnectionId,
    /// When.
    pub at: Option<WallTime>,
    /// What happened, for people.
    pub what: String,
}
