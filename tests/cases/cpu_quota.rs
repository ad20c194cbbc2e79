//! A handshake that takes long because its process may not run: that is told from waiting for the peer.

use harness::{
    Backend, Cgroup, Ends, Tracer,
    tls::{Authority, Client, Nginx, Request, Site},
};

/// Of one processor.
const PERCENT: u32 = 7;

/// How far the time in the run queue may be off what the group's statistics say.
const SHARE: f64 = 0.10;

#[test]
fn a_throttled_handshake_is_mostly_run_queue() {
    let trace = Tracer::shared(Backend::Auto);
    let nginx = Nginx::start();
    let to = nginx.address(Site::Mutual13);
    let group = Cgroup::with_cpu_share("conntracer-quota", PERCENT);
    let cpu_stat = format!("cpu_stat={}", group.cpu_stat().display());
    // Signing with this key takes several times what the group may use in a tenth of a second.
    let certificate = Some(Authority::get().slow_client());
    let request = Request { certificate, connections: 5, more: &[&cpu_stat], ..Request::to(to) };
    let told = Client::Rustls.run_by(&request, |client| group.enter(client));
    assert_eq!(told.len(), 5);
    let mut is_certain = false;
    for told in told {
        // They differ by a whole period where the group was throttled just as the client looked.
        let [least_ms, most_ms] = told.throttled_ms.expect("the client reads its group's statistics");
        let told_ms = told.handshake_ms.expect("the client tells how long its handshake took");
        assert!(least_ms > told_ms / 2.0, "it is throttled most of the time: {told:#?}");
        let port = told.local_port.expect("the client knows its port");
        let client = trace.connection(Ends::new(([127, 0, 0, 1], port).into(), to));
        let tls = client.tls();
        let runqueue_ms = tls.runqueue_ms.unwrap_or_else(|| panic!("one thread did it all: {client:#?}"));
        let handshake_ms = tls.handshake_ms.unwrap_or_else(|| panic!("{client:#?}"));
        println!(
            "throttled {least_ms:.1} to {most_ms:.1} ms, in the run queue {runqueue_ms:.1} ms of {handshake_ms:.1} ms"
        );
        assert!(runqueue_ms > handshake_ms / 2.0, "most of the handshake: {client:#?}");
        let range_ms = (1.0 - SHARE) * least_ms..=(1.0 + SHARE) * most_ms;
        assert!(range_ms.contains(&runqueue_ms), "throttled {least_ms} to {most_ms} ms: {client:#?}");
        is_certain |= most_ms - least_ms <= SHARE * least_ms;
        let cpu_ms = tls.cpu_ms.unwrap_or_else(|| panic!("{client:#?}"));
        assert!(cpu_ms > 0.0 && cpu_ms < handshake_ms / 2.0, "{client:#?}");
    }
    assert!(is_certain, "in one of them at least the client knows for how long it was throttled");
}
