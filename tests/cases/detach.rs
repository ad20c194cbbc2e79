//! A trace that ends leaves nothing behind.

use harness::{Backend, Family, LoadedPrograms, Pair, Tracer};
use nix::sys::signal::Signal;

/// One traced connection, so that all of it has been in use.
fn use_it(trace: &Tracer) {
    let mut pair = Pair::new(Family::V4);
    pair.exchange(1, 1).close_client();
    pair.release_server();
    trace.connection(pair.client_ends());
    trace.connection(pair.server_ends());
}

#[test]
fn nothing_stays_in_the_kernel_after_a_signal() {
    for backend in [Backend::Auto, Backend::Kprobe] {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
            let before = LoadedPrograms::now();
            let trace = Tracer::trace_by(backend, &[]);
            assert!(LoadedPrograms::now().has_more_than(&before), "bpftool shows what is loaded");
            use_it(&trace);
            trace.signal(signal);
            if signal == Signal::SIGKILL {
                drop(trace);
            } else {
                let trace = trace.await_end();
                trace.assert_nothing_lost();
                assert!(trace.summary().connections >= 2, "{signal} gives the summary");
            }
            LoadedPrograms::await_nothing_beyond(&before);
        }
    }
}

#[test]
fn what_happens_after_the_end_is_not_recorded() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("out.ndjson");
    let trace = Tracer::trace(&["--output", file.to_str().expect("UTF-8")]);
    let mut seen = Pair::new(Family::V4);
    seen.close_client();
    seen.release_server();
    trace.stop();
    let before = std::fs::read_to_string(&file).expect("the output");
    let mut unseen = Pair::new(Family::V4);
    unseen.close_client();
    unseen.release_server();
    let after = std::fs::read_to_string(&file).expect("the output");
    assert!(before.contains(&seen.client_ends().local.to_string()), "{before}");
    assert_eq!(before, after);
}

#[test]
fn a_trace_ends_by_itself_after_its_duration() {
    let before = LoadedPrograms::now();
    let trace = Tracer::trace(&["-d", "3"]);
    use_it(&trace);
    let trace = trace.await_end();
    trace.assert_nothing_lost();
    let took = trace.summary().stopped_at - trace.summary().began_at;
    assert!((2.9..6.0).contains(&took.as_seconds_f64()), "{took}");
    LoadedPrograms::await_nothing_beyond(&before);
}

#[test]
fn kprobes_are_used_when_told_so_and_the_summary_says_which_hooks_there_were() {
    let trace = Tracer::trace_by(Backend::Kprobe, &[]);
    use_it(&trace);
    let trace = trace.stop();
    trace.assert_nothing_lost();
    assert!(trace.hooks().iter().any(|hook| hook.name.contains("tcp_close")), "{:#?}", trace.hooks());
    for hook in trace.hooks() {
        let backend = hook.backend.as_deref().unwrap_or_else(|| panic!("{hook:#?}"));
        assert!(["kprobe", "kretprobe", "tracepoint", "raw_tracepoint"].contains(&backend), "{hook:#?}");
    }
}
