//! The same calls from Node, whose agent keeps no connection, and from Python, whose session does.

use harness::{
    Link, Resolver,
    incidents::{Call, Crowd, Front, Program, Scene, Store, at_once, trusting},
    tls::STORE,
};

/// Calls of each client.
const CALLS: usize = 20;

/// The servers are 20 ms away.
pub fn stage<R: Send>(act: impl FnOnce(&Scene) -> R + Send) -> R {
    Link::run("delay 10ms", |_, link| {
        let store = link.there(|| Store::start(Link::THERE, &[Front::keeping(75); 3]));
        let _resolver = Resolver::start(&[(STORE, &[&Link::THERE.to_string()])], "");
        act(&Scene { crowd: Crowd::new("connection-close"), store })
    })
}

/// Node, a connection for each call, and Python beside it.
pub fn faulty(scene: &Scene) -> (Vec<Call>, Vec<Call>) {
    at_once(|| node(scene, "calls", 0, "keep_alive=0"), || python(scene))
}

/// Node with an agent that keeps connections.
pub fn cured(scene: &Scene) -> Vec<Call> {
    node(scene, "calls-agent", 1, "keep_alive=1")
}

/// Python, as it is.
fn python(scene: &Scene) -> Vec<Call> {
    let endpoint = format!("endpoint={}", scene.store.endpoint(2));
    scene.crowd.run(
        "calls-python",
        Program::Python("session.py"),
        &[&endpoint, &trusting(), &format!("gaps={}", ["0.1"; CALLS - 1].join(","))],
    )
}

fn node(scene: &Scene, name: &str, front: usize, agent: &str) -> Vec<Call> {
    let endpoint = format!("endpoint={}", scene.store.endpoint(front));
    let plan = format!("plan={}", ["1"; CALLS].join(",p100,"));
    scene.crowd.run(name, Program::Node("service.js"), &[&endpoint, agent, &plan])
}

#[cfg(test)]
mod tests {
    use harness::incidents::{Diagnosis, SLOW_MACHINE};

    use super::*;

    #[test]
    fn a_client_that_asks_to_close_each_connection_is_found_and_one_that_keeps_it_is_not() {
        stage(|scene| {
            let diagnosis = Diagnosis::of(&scene.crowd.group);
            at_once(|| faulty(scene), || cured(scene));
            let findings = diagnosis.findings();
            assert_eq!(scene.store.requests(0), [1; CALLS]);
            assert_eq!(scene.store.requests(1), [CALLS as u64]);
            assert_eq!(scene.store.requests(2), [CALLS as u64]);

            let found = findings.one("calls", "no-reuse", &scene.store.destination(0));
            found.assert_near("connections", CALLS as f64, 0.0);
            found.assert_near("exchanges_per_connection", 1.0, 0.0);
            found.assert_near("close_asked_local", CALLS as f64, 0.0);
            // A round trip for TCP, and one for TLS 1.3.
            assert!(found.number("setup_ms_median") > 40.0, "{found:#?}");
            assert!(found.cost_ms.is_some_and(|cost| cost > 40.0 * (CALLS - 1) as f64), "{found:#?}");

            findings.assert_only("calls", &["no-reuse", SLOW_MACHINE]);
            findings.assert_only("calls-agent", &[SLOW_MACHINE]);
            findings.assert_only("calls-python", &[SLOW_MACHINE]);
            findings.assert_shown("connection-close", &[("no-reuse", "calls")]);
        });
    }
}
