//! TLS handshakes that are slow on this side: on a processor, or waiting for one.

use super::Circumstances;
use crate::{
    findings::{
        finding::Finding,
        seen::{Group, handshakes::Handshakes},
    },
    output::units,
    track::record::{Nanos, Role},
};

/// The rule's name.
pub const NAME: &str = "handshake-cpu";

/// A handshake takes a modern processor one to three milliseconds. With so much it is starved, or very slow.
const SLOW: Nanos = 50_000_000;
/// At least this share of the time is this side's.
const MOST: f64 = 0.5;
/// From this share of the time on, what is lacking is a processor, not a faster one. Of that one handshake is enough: it is measured.
const STARVED: f64 = 0.2;
/// Handshakes that are slow on a processor must be so many: a program's first one also loads what it takes.
const FEWEST_BUSY: u64 = 3;

/// Looks at either side.
pub fn judge(group: &Group, circumstances: &Circumstances<'_>) -> Option<Finding> {
    let handshakes = &group.handshakes;
    let (cpu, runqueue) = handshakes.shares()?;
    let own = handshakes.cpu.sum().saturating_add(handshakes.runqueue.sum()) / handshakes.cpu.count().max(1);
    let starved = runqueue >= STARVED;
    if own < SLOW || cpu + runqueue < MOST || (!starved && handshakes.cpu.count() < FEWEST_BUSY) {
        return None;
    }
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let title = format!(
        "TLS handshakes take {} (median of {}): {} on a processor, {} waiting for one, {} waiting for the peer",
        units::duration(handshakes.took.median()?),
        handshakes.took.count(),
        percent(cpu),
        percent(runqueue),
        percent((1.0 - cpu - runqueue).max(0.0)),
    );
    let quota = circumstances.quota(handshakes.quota).map(|quota| f64::from(quota.thousandths) / 1e3);
    let throttling = circumstances.throttling(handshakes.quota);
    let throttled_share = circumstances.throttled_share(handshakes.quota);
    // What a resumed one would have spared, as those seen show.
    let resumption = handshakes.full.median().zip(handshakes.resumed.median());
    // Of several destinations the far ones may be the full ones.
    let resumption = resumption.filter(|_| !circumstances.key.is_other());
    let resumption = resumption.map(|(full, resumed)| full.saturating_sub(resumed));
    let advice = match (circumstances.key.role, starved) {
        (Some(Role::Server), true) => {
            "Give the server more processor time (a CPU quota or a full node holds it back), and let \
                                       clients resume sessions."
                .into()
        }
        (Some(Role::Server), false) => {
            "Let clients resume sessions, and prefer an ECDSA certificate to an RSA one: both take less processor time."
                .into()
        }
        (_, true) => {
            let throttled =
                throttled_share.map(|share| format!(" and used that up in {} of its periods", percent(share)));
            let by = match quota {
                Some(quota) => format!(
                    ": its cgroup may use {quota:.2} processors (cpu.max){}, so raise that",
                    throttled.unwrap_or_default()
                ),
                None => " by others on the node: give it a larger share".into(),
            };
            format!("The process is held back{by}. {}", savings(handshakes, resumption)?)
        }
        (_, false) => savings(handshakes, resumption)?,
    };
    let cost = handshakes.cpu.sum().saturating_add(handshakes.runqueue.sum());
    let draft = circumstances
        .with_cost(NAME, title, cost)
        .count("handshakes", handshakes.took.count())
        .count("resumed", handshakes.resumed.count())
        .time("handshake_ms_median", handshakes.took.median())
        .time("cpu_ms_median", handshakes.cpu.median())
        .time("runqueue_ms_median", handshakes.runqueue.median())
        .time("wait_ms_median", handshakes.wait.median())
        .ratio("cpu_share", Some(cpu))
        .ratio("runqueue_share", Some(runqueue))
        .ratio("quota_cpus", quota)
        .ratio("throttled_periods_share", throttled_share)
        .time("throttled_ms", throttling.map(|seen| seen.throttled))
        .time("resumption_saves_ms", resumption)
        .examples(handshakes.examples.list())
        .doubt(handshakes.took.count() > handshakes.cpu.count(), "of some handshakes the parts are not known");
    Some(draft.advise(advice, "handshakes that mostly wait for the peer"))
}

/// What a client can do without more processor, and what it would save of each handshake.
fn savings(handshakes: &Handshakes, resumption: Option<Nanos>) -> Option<String> {
    let took = units::duration(handshakes.took.median()?);
    let resumed = match resumption {
        Some(saved) => format!("resuming a TLS session saves {} of it, as those show that did", units::duration(saved)),
        None => "resuming TLS sessions saves the part of it that checks and signs certificates (none was resumed here, so how much \
                 was not seen)"
            .into(),
    };
    Some(format!(
        "Opening connections at start, before requests come, and keeping them takes {took} out of a request's way; {resumed}."
    ))
}
