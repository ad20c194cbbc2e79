//! A function under a small quota of CPU: its first request waits for a TLS handshake that may hardly run.

use harness::{
    Cgroup, Link, Resolver,
    incidents::{Crowd, Front, Program, Scene, Store, trusting},
    tls::{Authority, STORE, Told},
};

/// Of one processor.
const PERCENT: u32 = 7;

/// How often the function starts.
const STARTS: usize = 5;

/// The servers are near.
pub fn stage<R: Send>(act: impl FnOnce(&Scene) -> R + Send) -> R {
    Link::run("delay 500us", |_, link| {
        let store = link.there(|| Store::start(Link::THERE, &[Front { mutual: true, ..Front::keeping(75) }]));
        let _resolver = Resolver::start(&[(STORE, &[&Link::THERE.to_string()])], "");
        act(&Scene { crowd: Crowd::new("handshake-cpu"), store })
    })
}

/// Each start is held to the quota, and connects for its first request.
pub fn faulty(scene: &Scene) -> Vec<Told> {
    let quota = Cgroup::within_with_cpu_share(&scene.crowd.group, "quota", PERCENT);
    start(scene, "function", &quota, &format!("cpu_stat={}", quota.cpu_stat().display()))
}

/// Each start opens its connection before the quota holds, as a function's platform lets it.
pub fn cured(scene: &Scene) -> Vec<Told> {
    let quota = Cgroup::within_with_cpu_share(&scene.crowd.group, "quota-later", PERCENT);
    let free = Cgroup::within(&scene.crowd.group, "start");
    start(scene, "function-early", &free, &format!("join={}", quota.path().display()))
}

fn start(scene: &Scene, name: &str, group: &Cgroup, more: &str) -> Vec<Told> {
    let port = format!("port={}", scene.store.address(0).port());
    let certificate = Authority::get().rsa_client();
    let [host, sni] = ["host", "sni"].map(|key| format!("{key}={STORE}"));
    let [cert, key] = [format!("cert={}", certificate.path()), format!("key={}", certificate.key_path())];
    let settings = [host.as_str(), &sni, &port, &trusting(), &cert, &key, "requests=3", more];
    (0..STARTS).flat_map(|_| scene.crowd.run_within(group, name, Program::Function, &settings)).collect()
}

#[cfg(test)]
mod tests {
    use harness::incidents::{Diagnosis, median};

    use super::*;

    /// How far the parts of a handshake may be off.
    const SHARE: f64 = 0.10;

    #[test]
    fn a_handshake_under_a_quota_is_found_with_its_time_on_and_without_a_processor() {
        stage(|scene| {
            let diagnosis = Diagnosis::of(&scene.crowd.group);
            // One after the other: they would take the processor from each other.
            let (slow, quick) = (faulty(scene), cured(scene));
            let findings = diagnosis.findings();
            let of = |figure: fn(&Told) -> Option<f64>| median(slow.iter().filter_map(figure));

            let found = findings.one("function", "handshake-cpu", &scene.store.destination(0));
            found.assert_near("handshakes", STARTS as f64, 0.0);
            found.assert_near("quota_cpus", f64::from(PERCENT) / 100.0, 0.001);
            let handshake_ms = of(|told| told.handshake_ms);
            found.assert_near("handshake_ms_median", handshake_ms, SHARE * handshake_ms);
            let cpu_ms = of(|told| told.cpu_ms);
            found.assert_near("cpu_ms_median", cpu_ms, SHARE * cpu_ms);
            // The group's statistics tell it to within a period at either end.
            let (least_ms, most_ms) = (of(|told| Some(told.throttled_ms?[0])), of(|told| Some(told.throttled_ms?[1])));
            let runqueue_ms = found.number("runqueue_ms_median");
            let range_ms = (1.0 - SHARE) * least_ms..=(1.0 + SHARE) * most_ms;
            assert!(range_ms.contains(&runqueue_ms), "throttled {range_ms:?}: {found:#?}");
            assert!(found.number("runqueue_share") > 0.5, "{found:#?}");
            // All starts together; the last may be gone with its group before that is looked at again.
            let all_but_last = slow.iter().rev().skip(1).filter_map(|told| Some(told.throttled_ms?[0])).sum::<f64>();
            assert!(
                found.number("throttled_ms") > (1.0 - SHARE) * all_but_last,
                "{all_but_last} ms at least: {found:#?}"
            );
            assert!(found.number("throttled_periods_share") > 0.5, "{found:#?}");

            // Each start's first request is a cold one: the same story.
            findings.assert_only("function", &["handshake-cpu", "cold-start"]);
            findings.assert_only("function-early", &[]);
            let first_ms = |told: &[Told]| median(told.iter().filter_map(|told| told.first_answer_ms));
            assert!(first_ms(&quick) < first_ms(&slow) / 2.0, "the cure cures: {quick:#?} {slow:#?}");
            findings.assert_shown("handshake-cpu", &[("handshake-cpu", "function")]);
        });
    }
}
