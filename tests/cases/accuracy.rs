//! A small run of what `cargo xtask accuracy` measures.

use harness::{Backend, accuracy::measure};

/// Two ends each, but for the failed connects.
const CONNECTIONS: usize = 200;

#[test]
fn random_connections_are_reported_as_they_were() {
    assert_accurate(Backend::Auto, 1);
}

#[test]
fn random_connections_are_reported_as_they_were_by_kprobes_too() {
    assert_accurate(Backend::Kprobe, 2);
}

fn assert_accurate(backend: Backend, seed: u64) {
    let dir = tempfile::tempdir().expect("a folder");
    let report = measure(CONNECTIONS, seed, backend, dir.path());
    println!("{}\n{}", report.counts_row("right"), report.times_row("errors, ms"));
    assert!(report.sockets > CONNECTIONS, "most connections have two ends: {report:#?}");
    assert!(report.exchanges > CONNECTIONS, "and more than one exchange: {report:#?}");
    assert!(report.handshakes > 0, "{report:#?}");
    assert!(report.lookups >= CONNECTIONS / 5, "some ask for two types: {report:#?}");
    let failures = report.failures();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
