//! The machine changes under the tracer.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use harness::{Family, Tracer, listen, monotonic_ns, run, wall_ns};

use super::{assert_all_told, live_and_let_die, meanwhile, measured};

/// How far a time may be from what the test read around it.
const NEAR_NS: i128 = 2_000_000_000;

/// Sets the wall clock. The boot clock and the monotonic one go on.
fn set_wall_clock(to_ns: u64) {
    run(&format!("date -s @{}.{:09}", to_ns / 1_000_000_000, to_ns % 1_000_000_000));
}

#[test]
fn steps_of_the_wall_clock_change_no_order_and_no_duration() {
    const HOUR_NS: u64 = 3_600_000_000_000;
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let trace = Tracer::of_port(&listener);
    let began = wall_ns() - monotonic_ns();
    let true_now = || began + monotonic_ns();
    let mut made = Vec::new();
    let mut at = Vec::new();
    for step in [0, HOUR_NS, 0] {
        set_wall_clock(true_now() + step);
        at.push(true_now());
        made.push(live_and_let_die(&listener, to));
        thread::sleep(Duration::from_millis(20));
    }
    for back in [2 * HOUR_NS, 0] {
        set_wall_clock(true_now() - back);
        at.push(true_now());
        made.push(live_and_let_die(&listener, to));
    }
    let trace = trace.stop();
    trace.assert_nothing_lost();
    assert_all_told(&trace, &made);
    let opened: Vec<_> = made.iter().map(|ends| trace.connection(*ends).opened_at.expect("it was seen")).collect();
    assert!(opened.is_sorted(), "{opened:?}");
    for (opened, at) in opened.iter().zip(at) {
        let off = opened.unix_timestamp_nanos() - i128::from(at);
        assert!(off.abs() < NEAR_NS, "{off} ns from the clock as it was at the start");
    }
    let longest = trace.connections.iter().filter_map(|connection| connection.lifetime_ms).fold(0.0, f64::max);
    assert!(longest < 1_000.0, "{longest} ms");
    measured("clock steps of +1 h, -1 h, -2 h: times in order, by the clock as it was at the start; nothing lost");
}

#[test]
fn processors_that_leave_and_come_back_take_nothing_with_them() {
    let switch = Path::new("/sys/devices/system/cpu/cpu1/online");
    assert!(switch.exists(), "the machine has a second processor, and it can be taken away");
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let trace = Tracer::of_port(&listener);
    let done = AtomicBool::new(false);
    let (made, switches) = meanwhile(
        || {
            let mut made = Vec::new();
            while !done.load(Relaxed) {
                made.push(live_and_let_die(&listener, to));
            }
            made
        },
        || {
            let mut switches = 0;
            for _ in 0..3 {
                for state in ["0", "1"] {
                    thread::sleep(Duration::from_millis(150));
                    fs::write(switch, state).expect("a processor that can be switched");
                    switches += 1;
                }
            }
            done.store(true, Relaxed);
            switches
        },
    );
    let trace = trace.stop();
    measured(&format!(
        "a processor switched {switches} times during {} connections: {} ends told, {} losses",
        made.len(),
        trace.connections.len(),
        trace.summary().losses.len()
    ));
    trace.assert_nothing_lost();
    assert_all_told(&trace, &made);
}
