//! The tracer is killed.

use std::{process::Command, thread, time::Duration};

use harness::{
    Cgroup, Ends, Family, Line, LoadedPrograms, Trace, Tracer, conntracer, listen, parse_lines, tracer_path,
};
use nix::sys::signal::Signal;

use super::{live_and_let_die, measured};

/// What a recording may keep back, and a little more.
const WRITTEN: Duration = Duration::from_millis(1_500);

/// The next trace begins and sees what there is to see.
#[track_caller]
fn the_next_start_works() {
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let trace = Tracer::of_port(&listener);
    let ends = live_and_let_die(&listener, to);
    trace.connection(ends);
    trace.connection(ends.flipped());
    trace.stop().assert_nothing_lost();
}

#[test]
fn after_a_sigkill_nothing_stays_and_what_was_written_is_whole_but_for_the_last_second() {
    const LIVES: usize = 20;
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (output, recording) = (path("out.ndjson"), path("trace.rec"));
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let port = to.port().to_string();
    let before = LoadedPrograms::now();
    let trace = Tracer::trace(&["--port", &port, "--output", &output, "--record", &recording]);
    let made: Vec<_> = (0..LIVES).map(|_| live_and_let_die(&listener, to)).collect();
    thread::sleep(WRITTEN);
    trace.signal(Signal::SIGKILL);
    drop(trace);
    LoadedPrograms::await_nothing_beyond(&before);

    let text = std::fs::read_to_string(&output).expect("the output");
    assert!(text.ends_with('\n'), "no line is cut");
    let told = |ends: &Ends, lines: &[Line]| {
        let is_it = |line: &&Line| matches!(line, Line::Connection(c) if Ends::new(c.local, c.remote) == *ends);
        lines.iter().filter(is_it).count() == 1
    };
    let lines = parse_lines(&text);
    assert!(made.iter().all(|ends| told(ends, &lines) && told(&ends.flipped(), &lines)), "{text}");
    let replay = conntracer(&[], &["replay", "--format", "ndjson", &recording]);
    let replayed = Trace::of_text(replay.status, &replay.stdout, replay.stderr);
    assert_eq!(replayed.connections.len(), 2 * LIVES, "the recording has them too, and a summary");
    the_next_start_works();
}

#[test]
fn after_the_kernel_has_run_out_of_memory_for_it_nothing_stays() {
    let group = Cgroup::with_memory("faults-memory");
    let before = LoadedPrograms::now();
    let mut command = Command::new(tracer_path());
    command.args(["trace", "--format", "ndjson"]);
    let trace = Tracer::start(group.enter_anywhere(&command));
    // Less than it has in use: what cannot be taken from it is taken with it.
    group.limit_memory(1 << 20);
    assert!(trace.ends_within(Duration::from_secs(20)), "{}", trace.stderr());
    let kills = group.killed_for_memory();
    measured(&format!("out of memory: killed {kills} times; nothing stayed in the kernel"));
    assert!(kills >= 1);
    drop(trace);
    LoadedPrograms::await_nothing_beyond(&before);
    the_next_start_works();
}
