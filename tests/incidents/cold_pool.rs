//! A web API in front of DynamoDB, 100 ms away: the first calls after start, and after a lull, open connections.

use std::time::Duration;

use harness::{
    Link, Resolver,
    incidents::{Call, Crowd, Front, Program, Scene, Store},
    tls::STORE,
};

/// One way; there and back is 100 ms.
const WAY: &str = "delay 50ms";

/// The load balancer's.
const IDLE_TIMEOUT_S: u32 = 12;

/// Calls at once, at most.
const POOL: usize = 6;

/// The servers are 100 ms away.
pub fn stage<R: Send>(act: impl FnOnce(&Scene) -> R + Send) -> R {
    Link::run(WAY, |_, link| {
        let store = link.there(|| Store::start(Link::THERE, &[Front::keeping(IDLE_TIMEOUT_S); 2]));
        let _resolver = Resolver::start(&[(STORE, &[&Link::THERE.to_string()])], "");
        act(&Scene { crowd: Crowd::new("cold-pool"), store })
    })
}

/// Several calls at once, as the busiest moment wants, and then one after the other; then none for a while, and all again.
pub fn faulty(scene: &Scene) -> Vec<Call> {
    let lull = Duration::from_secs(u64::from(IDLE_TIMEOUT_S) + 2).as_millis();
    run(scene, "api", 0, 0, &[busy().as_str(); 3].join(&format!(",p{lull},")))
}

/// The pool is opened at start, before the first call, and never idle for long.
pub fn cured(scene: &Scene) -> Vec<Call> {
    let beat = format!(",p3000,{POOL},p3000,{POOL},p3000,");
    run(scene, "api-warm", 1, POOL, &format!("p2000,{}", [busy().as_str(); 3].join(&beat)))
}

fn busy() -> String {
    format!("1,{POOL},{}", ["1"; 12].join(","))
}

fn run(scene: &Scene, name: &str, front: usize, ahead: usize, plan: &str) -> Vec<Call> {
    let endpoint = format!("endpoint={}", scene.store.endpoint(front));
    let settings = [&endpoint, "keep_alive=1", &format!("ahead={ahead}"), &format!("plan={plan}")];
    scene.crowd.run(name, Program::Node("service.js"), &settings)
}

#[cfg(test)]
mod tests {
    use harness::incidents::{Diagnosis, SLOW_MACHINE, at_once};

    use super::*;

    #[test]
    fn a_cold_pool_is_found_with_what_it_costs_and_who_tears_it_down() {
        stage(|scene| {
            let diagnosis = Diagnosis::of(&scene.crowd.group);
            let (calls, _) = at_once(|| faulty(scene), || cured(scene));
            let findings = diagnosis.findings();
            let (destination, connections) = (scene.store.destination(0), scene.store.requests(0).len() as f64);

            let start = findings.one("api", "cold-start", &destination);
            start.assert_near("exchanges", calls.len() as f64, 0.0);
            start.assert_near("cold_exchanges", connections, 0.0);
            // All at once, but that a processor may be so slow that the first is done when the last begins.
            let (at_start, needed) = (start.number("cold_at_start"), start.number("pool_needed"));
            assert!((3.0..=POOL as f64).contains(&at_start), "{start:#?}");
            assert!((2.0..=POOL as f64).contains(&needed), "{start:#?}");
            start.assert_near("cold_after_lull", connections - at_start, 0.0);
            // A round trip; what is more is the machine's.
            start.assert_near("connect_ms_median", 100.0, 15.0);
            assert!(start.number("handshake_ms_median") > 100.0, "a round trip at least: {start:#?}");
            assert!(start.number("cold_ms_median") > start.number("warm_ms_median") + 200.0, "two round trips more");

            let timeout = findings.one("api", "peer-idle-timeout", &destination);
            timeout.assert_near("idle_timeout_ms", f64::from(IDLE_TIMEOUT_S) * 1e3, 200.0);
            timeout.assert_near("exchanges", calls.len() as f64, 0.0);

            // It is far away, and that is told too.
            findings.assert_only("api", &["cold-start", "peer-idle-timeout", "connect-far", SLOW_MACHINE]);
            findings.assert_only("api-warm", &[]);
            findings.assert_shown("cold-pool", &[("cold-start", "api"), ("peer-idle-timeout", "api")]);
        });
    }
}
