//! A handshake that takes long because its process may not run: that is told from waiting for the peer.

use std::net::SocketAddr;

use harness::{
    Backend, Cgroup, Ends, Tracer,
    tls::{Authority, Client, Nginx, Request, Site, Told},
};

/// Of one processor.
const PERCENT: u32 = 25;

/// How many times the client signs: some hundred ms of a processor, many periods of its group's.
const SIGNINGS: &str = "signings=8";

/// How far the time in the run queue may be off what the group's statistics say.
const SHARE: f64 = 0.10;

/// Most rounds of five connections until one is certain.
const ROUNDS: usize = 4;

#[test]
fn a_throttled_handshake_is_mostly_run_queue() {
    let trace = Tracer::shared(Backend::Auto);
    let nginx = Nginx::start();
    let to = nginx.address(Site::Mutual13);
    let group = Cgroup::with_cpu_share("conntracer-quota", PERCENT);
    let cpu_stat = format!("cpu_stat={}", group.cpu_stat().display());
    let certificate = Some(Authority::get().slow_client());
    let request = Request { certificate, connections: 5, more: &[&cpu_stat, SIGNINGS], ..Request::to(to) };
    // The client knows for how long it was throttled to a period or a few; that must be within a tenth at least once.
    let is_certain = (0..ROUNDS).any(|_| {
        let told = Client::Rustls.run_by(&request, |client| group.enter(&client));
        assert_eq!(told.len(), 5);
        // All of them are held to it, certain or not.
        let certain: Vec<bool> = told.iter().map(|told| is_certain(&trace, told, to)).collect();
        certain.contains(&true)
    });
    assert!(is_certain, "in one of them at least the client knows for how long it was throttled");
}

/// Holds a connection to what its client and the group's statistics tell. Returns whether they are sure enough for the share.
fn is_certain(trace: &Tracer, told: &Told, to: SocketAddr) -> bool {
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
    let cpu_ms = tls.cpu_ms.unwrap_or_else(|| panic!("{client:#?}"));
    assert!(cpu_ms > 0.0 && cpu_ms < handshake_ms / 2.0, "{client:#?}");
    most_ms - least_ms <= SHARE * least_ms
}
