//! What holds for the traces that most tests look into. Tests run in alphabetical order, so this comes last.

use harness::{Backend, Family, Pair, Tracer};

#[test]
fn lost_nothing_and_reported_each_connection_once() {
    let mut pair = Pair::new(Family::V4);
    for backend in [Backend::Auto, Backend::Kprobe] {
        // Adopts the pair, if this test runs alone.
        Tracer::shared(backend);
    }
    pair.exchange(1, 1).close_client();
    pair.release_server();
    for backend in [Backend::Auto, Backend::Kprobe] {
        Tracer::shared(backend).connection(pair.server_ends());
    }
    Tracer::end_shared();
}
