//! A recording replays to what the trace showed.

use harness::{Family, Pair, Trace, Tracer, connect_from, conntracer, listen};
use nix::sys::signal::Signal;

/// Some connections of every kind, one of them still open.
fn some_lives(trace: impl Fn(harness::Ends)) -> Pair {
    let mut pairs = [Family::V4, Family::V6, Family::V4, Family::Mapped].map(Pair::new);
    pairs[0].exchange(10, 20).rest(50).close_client();
    pairs[1].exchange(1, 2).close_server();
    pairs[2].exchange(3, 4).reset_client();
    pairs[3].half_close_client();
    for pair in &mut pairs {
        pair.release_client();
        pair.release_server();
        trace(pair.client_ends());
        trace(pair.server_ends());
    }
    let closed = listen(Family::V4).local_addr().expect("local address");
    let (local, outcome) = connect_from(([127, 0, 0, 1], 0).into(), closed);
    outcome.expect_err("nobody listens");
    trace(harness::Ends::new(local, closed));
    let mut open = Pair::new(Family::V4);
    open.exchange(7, 7);
    open
}

#[test]
fn a_replay_gives_the_same_records() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("trace.rec");
    let file = file.to_str().expect("UTF-8");
    let mut older = Pair::new(Family::V4);
    older.exchange(8, 9);
    let pid = std::process::id().to_string();
    let trace = Tracer::trace(&["-p", &pid, "--record", file]);
    let _open = some_lives(|ends| drop(trace.connection(ends)));
    older.close_client();
    let live = trace.stop();
    live.assert_nothing_lost();
    assert!(live.connections.len() >= 13, "{live:#?}");

    let replay = conntracer(&[], &["replay", "--format", "ndjson", file]);
    assert!(replay.status.success(), "{replay:#?}");
    let replayed = Trace::of_text(replay.status, &replay.stdout, replay.stderr);
    assert_eq!(replayed.connections, live.connections);
    assert_eq!(replayed.opens, live.opens);
    assert!(live.exchanges.len() >= 8, "{:#?}", live.exchanges);
    assert_eq!(replayed.exchanges, live.exchanges);
    assert_eq!(replayed.summary, live.summary);
}

#[test]
fn a_replay_gives_the_same_text() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (recording, text) = (path("trace.rec"), path("out.txt"));
    let trace = Tracer::trace_as_text(&text, &["--record", &recording]);
    let _open = some_lives(|_| ());
    trace.signal(Signal::SIGINT);
    let end = trace.await_end();
    assert!(end.status.success(), "{}", end.stderr);

    let live = std::fs::read_to_string(&text).expect("the text");
    let replay = conntracer(&[], &["replay", &recording]);
    assert!(replay.status.success(), "{replay:#?}");
    assert!(live.lines().count() > 10, "{live}");
    assert_eq!(replay.stdout, live);
}

#[test]
fn a_recording_that_was_cut_short_replays_up_to_the_cut_and_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("trace.rec");
    let path = file.to_str().expect("UTF-8");
    let trace = Tracer::trace(&["--record", path]);
    let _open = some_lives(|ends| drop(trace.connection(ends)));
    let live = trace.stop();
    let whole = std::fs::read(&file).expect("the recording");
    std::fs::write(&file, &whole[..whole.len() - 10]).expect("a shorter recording");

    let replay = conntracer(&[], &["replay", "--format", "ndjson", path]);
    assert!(replay.stderr.contains("cut short") || replay.stdout.contains("cut short"), "{replay:#?}");
    let replayed = Trace::of_text(replay.status, &replay.stdout, replay.stderr.clone());
    assert!(!replayed.summary().remarks.is_empty(), "{replay:#?}");
    for connection in &replayed.connections {
        let same = live.connections.iter().any(|other| other.id == connection.id);
        assert!(same, "not in the live trace: {connection:#?}");
    }
}
