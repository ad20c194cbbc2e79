//! What `-p` names is no process that could be traced, or not any more.

use std::{fs, process::Command};

use harness::{Actor, Ends, Family, Tracer, conntracer, eventually, listen};

use super::measured;

#[test]
fn a_zombie_and_a_kernel_thread_are_refused_with_the_reason() {
    let mut zombie = Command::new("true").spawn().expect("true");
    let pid = zombie.id();
    eventually("a zombie", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.contains("\nState:\tZ").then_some(())
    });
    conntracer(&[], &["trace", "-p", &pid.to_string()]).assert_fails(1, &["zombie", "already ended"]);
    zombie.wait().expect("its status");
    // kthreadd.
    conntracer(&[], &["trace", "-p", "2"]).assert_fails(1, &["kernel thread"]);
}

#[test]
fn a_process_that_gets_the_number_of_a_target_that_has_ended_is_not_traced() {
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let (mut target, mut other) = (Actor::new(), Actor::new());
    let number = target.pid();
    // The other keeps the trace going.
    let trace = Tracer::trace(&["-p", &number.to_string(), "-p", &other.pid().to_string()]);
    let own = target.connect(to);
    target.kill();
    trace.connection(own);
    let mut heir = eventually("a process with the same number", || {
        fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).expect("the last number can be set");
        Some(Actor::new()).filter(|actor| actor.pid() == number)
    });
    let strange = heir.connect(to);
    heir.order("close");
    let last: Ends = other.connect(to);
    other.order("close");
    drop(listener);
    trace.connection(last);
    let trace = trace.stop();
    trace.assert_nothing_lost();
    assert_eq!(trace.connection(own).pid, number);
    assert!(trace.connections_of(strange).is_empty(), "{trace:#?}");
    measured("a target's number given to another process: its connections are not told");
}
