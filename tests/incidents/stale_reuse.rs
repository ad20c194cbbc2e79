//! Downloads through a load balancer that forgets idle connections: what is sent on one of those is never answered, and the
//! client waits for 10 s before it connects anew.

use std::time::Duration;

use harness::{
    Link, Resolver,
    incidents::{Call, Crowd, Expiry, Front, Program, Scene, Store, trusting},
    tls::STORE,
};

/// After how long the load balancer forgets a connection.
const FORGETS: Duration = Duration::from_secs(10);

/// How long the client waits for an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that go idle together.
const AT_ONCE: usize = 4;

/// A load balancer that forgets.
pub fn stage<R: Send>(act: impl FnOnce(&Scene) -> R + Send) -> R {
    Link::run("delay 1ms", |_, link| {
        let store = link.there(|| {
            Expiry::after(FORGETS);
            Store::start(Link::THERE, &[Front::keeping(300)])
        });
        let _resolver = Resolver::start(&[(STORE, &[&Link::THERE.to_string()])], "");
        act(&Scene { crowd: Crowd::new("stale-reuse"), store })
    })
}

/// Gaps that the load balancer bears, and then one that it does not.
pub fn faulty(scene: &Scene) -> Vec<Call> {
    run(scene, "download", &[])
}

/// Each download closes its connection.
pub fn cured(scene: &Scene) -> Vec<Call> {
    run(scene, "download-close", &["close=1"])
}

fn run(scene: &Scene, name: &str, more: &[&str]) -> Vec<Call> {
    let endpoint = format!("endpoint={}", scene.store.endpoint(0));
    let timeout = format!("read_timeout={}", READ_TIMEOUT.as_secs());
    let at_once = format!("at_once={AT_ONCE}");
    let settings = [&endpoint, &trusting(), &timeout, &at_once, "retries=1", "gaps=2,7,12"];
    scene.crowd.run(name, Program::Python("session.py"), &[&settings, more].concat())
}

#[cfg(test)]
mod tests {
    use harness::incidents::{Diagnosis, SLOW_MACHINE, median};

    use super::*;

    #[test]
    fn what_is_sent_on_a_connection_that_was_dropped_in_silence_is_found_with_the_time_it_lost() {
        stage(|scene| {
            let diagnosis = Diagnosis::of(&scene.crowd.group);
            // One after the other: what the clients compute after the answer counts for them, and not for the finding.
            let calls = faulty(scene);
            cured(scene);
            let findings = diagnosis.findings();
            let lost: Vec<_> = calls.iter().filter(|call| call.failed_ms.is_some()).collect();
            assert_eq!(lost.len(), AT_ONCE, "each connection is used once too often: {calls:#?}");

            let stale = findings.one("download", "stale-exchange", &scene.store.destination(0));
            stale.assert_near("stale_exchanges", AT_ONCE as f64, 0.0);
            stale.assert_near("in_silence", AT_ONCE as f64, 0.0);
            // The client waits for its timeout. By how much later it notes the failure is what it computed meanwhile, with all of its
            // connections at once on an emulated processor: that is part of its times, and not of what the connections lost.
            let timeout_ms = READ_TIMEOUT.as_secs_f64() * 1e3;
            stale.assert_near("lost_until_failed_ms_median", timeout_ms, 0.05 * timeout_ms);
            let computed_ms = median(lost.iter().filter_map(|call| call.failed_ms)) - timeout_ms;
            assert!(computed_ms >= 0.0, "{calls:#?}");
            let answered_ms = median(lost.iter().map(|call| call.took_ms)) - computed_ms;
            stale.assert_near("lost_until_answered_ms_median", answered_ms, 0.05 * answered_ms);
            let forgets_ms = FORGETS.as_secs_f64() * 1e3;
            assert!(stale.number("alive_until_ms") < forgets_ms, "{stale:#?}");
            assert!(stale.number("dead_after_ms") >= forgets_ms, "{stale:#?}");
            assert_eq!(stale.evidence["keepalive"], false, "{stale:#?}");

            // The drops could have been found by keepalive; and the pool is opened all at once, twice.
            findings.assert_only("download", &["stale-exchange", "keepalive-off", "cold-start", SLOW_MACHINE]);
            // The cure has its price.
            findings.assert_only("download-close", &["no-reuse", "no-resumption", SLOW_MACHINE]);
            findings.assert_shown("stale-reuse", &[("stale-exchange", "download"), ("keepalive-off", "download")]);
        });
    }
}
