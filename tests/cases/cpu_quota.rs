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
    let request = Request { certificate, connections: 3, more: &[&cpu_stat], ..Request::to(to) };
    let told = Client::Rustls.run_by(&request, |client| group.enter(client));
    assert_eq!(told.len(), 3);
    for told in told {
        let throttled_ms = told.throttled_ms.expect("the client reads its group's statistics");
        let told_ms = told.handshake_ms.expect("the client tells how long its handshake took");
        assert!(throttled_ms > told_ms / 2.0, "it is throttled most of the time: {told:#?}");
        let port = told.local_port.expect("the client knows its port");
        let client = trace.connection(Ends::new(([127, 0, 0, 1], port).into(), to));
        let tls = client.tls();
        let runqueue_ms = tls.runqueue_ms.unwrap_or_else(|| panic!("one thread did it all: {client:#?}"));
        let handshake_ms = tls.handshake_ms.unwrap_or_else(|| panic!("{client:#?}"));
        println!("throttled {throttled_ms:.1} ms, in the run queue {runqueue_ms:.1} ms of {handshake_ms:.1} ms");
        assert!(runqueue_ms > handshake_ms / 2.0, "most of the handshake: {client:#?}");
        assert!((runqueue_ms - throttled_ms).abs() <= SHARE * throttled_ms, "{throttled_ms} ms throttled: {client:#?}");
        let cpu_ms = tls.cpu_ms.unwrap_or_else(|| panic!("{client:#?}"));
        assert!(cpu_ms > 0.0 && cpu_ms < handshake_ms / 2.0, "{client:#?}");
    }
}
