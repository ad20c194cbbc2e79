//! A service on Java's HttpsURLConnection that writes every 7 s: its pool closes connections after 5 s.

use harness::{
    Link, Resolver,
    incidents::{Call, Crowd, Front, Program, Scene, Store, trusting},
    tls::STORE,
};

/// Writes of each client, 7 s apart.
const WRITES: usize = 11;

/// The servers are near.
pub fn stage<R: Send>(act: impl FnOnce(&Scene) -> R + Send) -> R {
    Link::run("delay 1ms", |_, link| {
        let store = link.there(|| Store::start(Link::THERE, &[Front::keeping(300)]));
        let _resolver = Resolver::start(&[(STORE, &[&Link::THERE.to_string()])], "");
        act(&Scene { crowd: Crowd::new("idle-timeout"), store })
    })
}

/// The pool that cannot be configured.
pub fn faulty(scene: &Scene) -> Vec<Call> {
    run(scene, "writes", "url")
}

/// One that keeps connections for 60 s, with TCP keepalive.
pub fn cured(scene: &Scene) -> Vec<Call> {
    run(scene, "writes-pool", "pool")
}

fn run(scene: &Scene, name: &str, api: &str) -> Vec<Call> {
    let endpoint = format!("endpoint={}", scene.store.endpoint(0));
    let writes = format!("writes={WRITES}");
    scene.crowd.run(name, Program::Writes, &[&endpoint, &trusting(), &format!("api={api}"), &writes, "gap_ms=7000"])
}

#[cfg(test)]
mod tests {
    use harness::incidents::{Diagnosis, SLOW_MACHINE, at_once};

    use super::*;

    #[test]
    fn a_pool_that_closes_after_5_s_is_found_with_what_would_keep_its_connections() {
        stage(|scene| {
            let diagnosis = Diagnosis::of(&scene.crowd.group);
            at_once(|| faulty(scene), || cured(scene));
            let findings = diagnosis.findings();

            let found = findings.one("writes", "local-idle-timeout", &scene.store.destination(0));
            found.assert_near("idle_timeout_ms", 5_000.0, 200.0);
            found.assert_near("exchanges", WRITES as f64, 0.0);
            found.assert_near("cold_exchanges", WRITES as f64, 0.0);
            // A connection that the pool's thread missed was still open when the next one was made.
            assert!(found.number("cold_by_timeout") >= 5.0, "{found:#?}");
            // From the last byte to the next connect: 7 s, and what the client computes.
            found.assert_near("gap_ms_median", 7_150.0, 350.0);
            assert!((7_000.0..9_000.0).contains(&found.number("keeps_95_ms")), "{found:#?}");
            assert_eq!(found.evidence["keepalive"], false, "{found:#?}");
            assert!(found.hint.as_ref().is_some_and(|hint| hint.contains("HttpURLConnection")), "{found:#?}");

            findings.assert_only("writes", &["local-idle-timeout", SLOW_MACHINE]);
            findings.assert_only("writes-pool", &[SLOW_MACHINE]);
            findings.assert_shown("idle-timeout", &[("local-idle-timeout", "writes")]);
        });
    }
}
