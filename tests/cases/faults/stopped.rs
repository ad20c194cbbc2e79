//! The tracer does not run for a while.

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{Family, Tracer, listen};
use nix::sys::signal::Signal;

use super::{assert_all_told, live_and_let_die, measured};

/// Connections a second meanwhile.
const RATE: u32 = 50;

fn stopped_for(pause: Duration) {
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let trace = Tracer::of_port(&listener);
    trace.signal(Signal::SIGSTOP);
    let until = Instant::now() + pause;
    let mut made = Vec::new();
    while Instant::now() < until {
        made.push(live_and_let_die(&listener, to));
        thread::sleep(Duration::from_secs(1) / RATE);
    }
    trace.signal(Signal::SIGCONT);
    let trace = trace.stop();
    measured(&format!(
        "SIGSTOP for {} s, {} connections meanwhile: {} ends told, {} losses",
        pause.as_secs(),
        made.len(),
        trace.connections.len(),
        trace.summary().losses.len()
    ));
    trace.assert_nothing_lost();
    assert_all_told(&trace, &made);
    // Times are the kernel's: nothing is as late as the tracer was.
    let longest = trace.connections.iter().filter_map(|connection| connection.lifetime_ms).fold(0.0, f64::max);
    assert!(longest < 1_000.0, "{longest} ms");
}

#[test]
fn a_tracer_that_was_stopped_for_seconds_tells_all_that_happened_meanwhile() {
    stopped_for(Duration::from_secs(2));
}

#[test]
#[ignore = "takes a minute: cargo xtask faults"]
fn a_tracer_that_was_stopped_for_a_minute_tells_all_that_happened_meanwhile() {
    stopped_for(Duration::from_secs(60));
}
