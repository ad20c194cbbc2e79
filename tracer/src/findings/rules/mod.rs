//! The rules, one a file: each looks at what is kept of one group, and says what is wrong with it or nothing. Thresholds are
//! named constants with their reason; `docs/findings.md` has a section for each rule.

mod cold_start;
mod connect_failures;
mod connect_far;
mod dns_retries;
mod handshake_cpu;
mod idle_timeout;
mod keepalive_off;
mod leaked_close_wait;
mod local_idle_timeout;
mod no_resumption;
mod no_reuse;
mod peer_idle_timeout;
mod rst_storms;
mod slow_dns;
mod stale_exchange;
mod syn_retransmits;

use std::collections::BTreeMap;

use super::{
    finding::{Example, Figure, Finding, Severity, Trust},
    seen::{Group, group::Key},
};
use crate::{
    output::units::counted,
    track::record::{CpuQuota, Nanos, Throttling, WallTime},
};

/// A rule: a finding if it holds.
pub type Rule = fn(&Group, &Circumstances<'_>) -> Option<Finding>;

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// How long each record took, or that it was bad whatever the others were, so that it holds for several destinations together.
    AtEach,
    /// What one destination's records have to do with each other: which connection could have carried which exchange, which share of all
    /// is bad, what is more than chance. Several destinations would make it say what is not so, of a port scan for one.
    AtOneDestination,
}

use Looks::{AtEach, AtOneDestination};

/// Every rule, by its name.
pub const RULES: &[(&str, Looks, Rule)] = &[
    (local_idle_timeout::NAME, AtOneDestination, local_idle_timeout::judge),
    (peer_idle_timeout::NAME, AtOneDestination, peer_idle_timeout::judge),
    (stale_exchange::NAME, AtOneDestination, stale_exchange::judge),
    (no_reuse::NAME, AtOneDestination, no_reuse::judge),
    (cold_start::NAME, AtOneDestination, cold_start::judge),
    (handshake_cpu::NAME, AtEach, handshake_cpu::judge),
    (no_resumption::NAME, AtOneDestination, no_resumption::judge),
    (slow_dns::NAME, AtEach, slow_dns::judge),
    (dns_retries::NAME, AtOneDestination, dns_retries::judge),
    (syn_retransmits::NAME, AtOneDestination, syn_retransmits::judge),
    (connect_far::NAME, AtOneDestination, connect_far::judge),
    (keepalive_off::NAME, AtOneDestination, keepalive_off::judge),
    (leaked_close_wait::NAME, AtEach, leaked_close_wait::judge),
    (connect_failures::NAME, AtOneDestination, connect_failures::judge),
    (rst_storms::NAME, AtOneDestination, rst_storms::judge),
];

/// Costs are told for each minute, of at least one: a short trace must not make little look like much.
const SHORTEST: Nanos = 60_000_000_000;

/// What costs less in a minute is not worth anybody's time.
const WORTH_TELLING: Nanos = 10_000_000;

/// A process whose cgroup has used up its quota in this share of the periods is slow at whatever it does.
const MOSTLY_THROTTLED: f64 = 0.5;

/// Whose records a rule looks at, and what is known besides.
pub struct Circumstances<'c> {
    /// The group.
    pub key: &'c Key,
    /// The time of the latest record.
    pub now: WallTime,
    /// From the beginning of the trace to then.
    pub observed: Nanos,
    /// What was lost, for people.
    pub losses: &'c [String],
    /// How cgroups with a quota were throttled, by their numbers.
    pub throttling: &'c BTreeMap<u64, Throttling>,
}

impl Circumstances<'_> {
    /// The quota of the process. Of several processes one may have one, and another be slow.
    fn quota(&self, quota: Option<CpuQuota>) -> Option<CpuQuota> {
        quota.filter(|_| !self.key.is_of_all())
    }

    /// How a quota held its cgroup back, if it did.
    fn throttling(&self, quota: Option<CpuQuota>) -> Option<&Throttling> {
        self.throttling.get(&self.quota(quota)?.cgroup)
    }

    /// In which share of its periods a quota held its cgroup back, if it did.
    fn throttled_share(&self, quota: Option<CpuQuota>) -> Option<f64> {
        self.throttling(quota).map(|seen| share(seen.throttled_periods, seen.periods))
    }

    /// Whether a quota held its cgroup back most of the time.
    fn is_throttled(&self, quota: Option<CpuQuota>) -> bool {
        self.throttled_share(quota).is_some_and(|share| share >= MOSTLY_THROTTLED)
    }

    /// A cost, spread over the minutes observed.
    fn per_minute(&self, cost: Nanos) -> Nanos {
        (u128::from(cost) * 60_000_000_000 / u128::from(self.observed.max(SHORTEST))) as Nanos
    }

    /// A finding whose cost is time that exchanges waited; `None` if it is too little.
    fn costly(&self, rule: &'static str, title: String, cost: Nanos) -> Option<Draft> {
        let per_minute = self.per_minute(cost);
        (per_minute >= WORTH_TELLING).then(|| self.with_cost(rule, title, cost))
    }

    /// A finding as severe as its cost.
    fn with_cost(&self, rule: &'static str, title: String, cost: Nanos) -> Draft {
        let per_minute = self.per_minute(cost);
        self.draft(rule, title, Severity::by_cost(per_minute)).cost(cost, per_minute)
    }

    /// A finding.
    fn draft(&self, rule: &'static str, title: String, severity: Severity) -> Draft {
        let mut draft = Draft(Finding {
            rule,
            severity,
            confidence: Trust::High,
            at: self.now,
            comm: self.key.comm.clone(),
            role: self.key.role,
            destination: self.key.destination.clone(),
            title,
            cost: None,
            cost_per_minute: None,
            evidence: Vec::new(),
            examples: Vec::new(),
            advice: String::new(),
            hint: None,
            would_change: "",
            caveats: Vec::new(),
        });
        if self.key.is_other() {
            draft = draft.caveat("one destination or several, not kept apart: there were too many".into());
        }
        for loss in self.losses {
            draft = draft.caveat(loss.clone());
        }
        if !self.losses.is_empty() {
            draft.0.confidence = draft.0.confidence.lowered();
        }
        draft
    }
}

/// A finding being put together.
struct Draft(Finding);

impl Draft {
    fn cost(mut self, cost: Nanos, per_minute: Nanos) -> Self {
        (self.0.cost, self.0.cost_per_minute) = (Some(cost), Some(per_minute));
        self
    }

    fn count(mut self, name: &'static str, count: u64) -> Self {
        self.0.evidence.push((name, Figure::Count(count)));
        self
    }

    fn time(mut self, name: &'static str, time: Option<Nanos>) -> Self {
        self.0.evidence.push((name, Figure::Time(time)));
        self
    }

    fn ratio(mut self, name: &'static str, ratio: Option<f64>) -> Self {
        self.0.evidence.push((name, Figure::Ratio(ratio)));
        self
    }

    fn flag(mut self, name: &'static str, flag: Option<bool>) -> Self {
        self.0.evidence.push((name, Figure::Flag(flag)));
        self
    }

    fn examples(mut self, examples: Vec<Example>) -> Self {
        self.0.examples = examples;
        self
    }

    fn hint(mut self, hint: Option<String>) -> Self {
        self.0.hint = hint;
        self
    }

    /// Something that makes it less sure.
    fn caveat(mut self, caveat: String) -> Self {
        self.0.caveats.push(caveat);
        self
    }

    /// The same, if it is so; the confidence goes down with it.
    fn doubt(mut self, is_so: bool, caveat: &str) -> Self {
        if is_so {
            self.0.confidence = self.0.confidence.lowered();
            self.0.caveats.push(caveat.to_owned());
        }
        self
    }

    fn advise(mut self, advice: String, would_change: &'static str) -> Finding {
        self.0.advice = advice;
        self.0.would_change = would_change;
        self.0
    }
}

/// `1 of 3`
fn of(part: u64, whole: u64) -> String {
    format!("{part} of {whole}")
}

/// Part of a whole, from 0 to 1.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
