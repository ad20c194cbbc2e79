//! Which processes are traced.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Actor, Closer, Connection, Ends, Exit, Family, How, Trace, Tracer, child_of, conntracer, eventually, listen,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

#[test]
fn a_traced_process_and_its_children_are_seen_and_nobody_else() {
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let (mut target, mut stranger) = (Actor::new(), Actor::new());
    let trace = Tracer::trace(&["-p", &target.pid().to_string()]);
    let own = target.connect(to);
    let strange = stranger.connect(to);
    let child = target.become_another("fork");
    let childs = target.connect(to);
    target.order("close");
    stranger.order("close");
    drop(listener);
    trace.connection(childs);
    let trace = trace.stop();

    trace.assert_nothing_lost();
    // The child had the parent's connection too, and let go of it to connect anew.
    assert_eq!(trace.connection(own).pid, child);
    assert_eq!(trace.connection(childs).pid, child);
    assert!(trace.connections_of(strange).is_empty());
    assert_eq!(trace.connections.len(), 2, "the server's ends belong to a process that is not traced: {trace:#?}");
}

#[test]
fn several_processes_can_be_traced() {
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let mut actors = [Actor::new(), Actor::new(), Actor::new()];
    let [a, b, _] = actors.each_ref().map(|actor| actor.pid().to_string());
    let trace = Tracer::trace(&["-p", &a, "-p", &b]);
    let ends = actors.each_mut().map(|actor| {
        let ends = actor.connect(to);
        drop(listener.accept().expect("accept"));
        actor.order("await-eof");
        actor.order("close");
        ends
    });
    trace.connection(ends[0]);
    trace.connection(ends[1]);
    let trace = trace.stop();

    trace.assert_nothing_lost();
    assert_eq!(trace.connection(ends[0]).pid, actors[0].pid());
    assert_eq!(trace.connection(ends[1]).pid, actors[1].pid());
    assert_eq!(trace.connections.len(), 2, "{trace:#?}");
}

/// A client of Python's, to be run by bash: it connects to the port once its input has ended, and stays until it has been answered.
fn waits_before_it_connects(bash: &mut Command, port: u16) -> Child {
    const CLIENT: &str = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(1)";
    bash.args(["-c", r#"read go; exec python3 -c "$1" "$2""#, "bash", CLIENT, &port.to_string()]);
    bash.stdin(Stdio::piped()).spawn().expect("bash")
}

/// Traces what goes by this number, lets the client connect, and returns what is told of that.
fn trace_of_a_client(pid: u32, client: &mut Child, listener: &TcpListener) -> Connection {
    let trace = Tracer::trace(&["-p", &pid.to_string()]);
    drop(client.stdin.take());
    let (server, from) = listener.accept().expect("accept");
    drop(server);
    let seen = trace.connection(Ends::new(from, listener.local_addr().expect("local address")));
    client.wait().expect("it ends");
    let trace = if trace.has_ended() { trace.await_end() } else { trace.stop() };
    trace.assert_nothing_lost();
    assert_eq!(trace.connections.len(), 1, "the server's end is another process's: {trace:#?}");
    seen
}

#[test]
fn a_target_that_becomes_another_program_is_traced_on_by_its_number() {
    let listener = listen(Family::V4);
    let port = listener.local_addr().expect("local address").port();
    let mut target = waits_before_it_connects(&mut Command::new("bash"), port);
    let pid = target.id();
    let seen = trace_of_a_client(pid, &mut target, &listener);

    assert_eq!((seen.pid, seen.comm.as_str()), (pid, "python3"), "{seen:#?}");
    assert!(seen.exe.as_deref().is_some_and(|exe| exe.contains("python3")), "{seen:#?}");
}

#[test]
fn a_target_in_a_pid_namespace_below_goes_by_the_number_that_is_seen_here() {
    let listener = listen(Family::V4);
    let port = listener.local_addr().expect("local address").port();
    let mut unshare = Command::new("unshare");
    let mut parent = waits_before_it_connects(unshare.args(["--pid", "--fork", "--kill-child", "bash"]), port);
    let pid = eventually("the child in its namespace", || child_of(parent.id()));
    let seen = trace_of_a_client(pid, &mut parent, &listener);

    assert_eq!((seen.pid, seen.host_pid), (pid, None), "{seen:#?}");
    assert!(seen.exe.is_some(), "{seen:#?}");
}

#[test]
fn a_named_target_that_starts_later_is_seen_from_its_first_connection() {
    let dir = tempfile::tempdir().expect("a folder");
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let trace = Tracer::trace(&["--comm", "late-target"]);
    assert!(trace.stderr().contains("late-target"), "it says what it waits for: {}", trace.stderr());
    let mut stranger = Actor::new();
    stranger.connect(to);
    stranger.order("close");
    let mut target = Actor::named("late-target", dir.path());
    let ends = target.connect(to);
    target.order("close");
    drop(listener);
    let seen = trace.connection(ends);
    let trace = trace.stop();

    assert_eq!((seen.pid, seen.comm.as_str()), (target.pid(), "late-target"));
    seen.assert_ended(Closer::Local, How::Fin);
    assert_eq!(trace.assert_nothing_lost().connections.len(), 1, "{trace:#?}");
}

#[test]
fn a_target_that_ends_leaves_its_connections_told_and_the_trace_orderly() {
    let listener = listen(Family::V4);
    let mut target = Actor::new();
    let trace = Tracer::trace(&["-p", &target.pid().to_string()]);
    let ends = target.connect(listener.local_addr().expect("local address"));
    let (server, _) = listener.accept().expect("accept");
    target.kill();
    drop(server);
    let seen = trace.connection(ends);
    assert!(seen.close().process_exited, "{seen:#?}");
    // The trace may have ended by itself, with nothing left to trace.
    let trace = if trace.has_ended() { trace.await_end() } else { trace.stop() };
    assert_eq!(trace.assert_nothing_lost().connection(ends).pid, target.pid());
}

/// What a trace comes to whose target is killed so long after it was started. The target's parent asks for its exit status,
/// or leaves a zombie.
#[track_caller]
fn trace_of_a_target_killed(after: Duration, reaped: bool) -> (u32, Exit) {
    let mut target = Actor::new();
    let pid = target.pid();
    let exit = thread::scope(|scope| {
        let tracer = scope.spawn(move || {
            conntracer(&[], &["trace", "--format", "ndjson", "--detail", "connections", "-p", &pid.to_string()])
        });
        thread::sleep(after);
        if reaped {
            target.kill();
        } else {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("the target runs");
        }
        tracer.join().expect("the tracer ends")
    });
    (pid, exit)
}

#[test]
fn a_target_that_ends_at_any_moment_of_the_start_ends_the_trace() {
    const TRIALS: u32 = 16;
    let began = Instant::now();
    let usual = Tracer::trace(&["--detail", "connections", "-p", &std::process::id().to_string()]);
    let start = began.elapsed();
    usual.stop();
    let mut traced = 0;
    for trial in 0..TRIALS {
        let after = start * trial / TRIALS;
        let (pid, exit) = trace_of_a_target_killed(after, trial % 2 == 0);
        // The test's output shows it when the test fails.
        println!("killed {after:?} of {start:?} after the start: {}: {}", exit.status, exit.stderr);
        if exit.status.success() {
            traced += 1;
            assert!(exit.stderr.contains("all traced processes have ended"), "{exit:#?}");
            assert!(!exit.stderr.contains("CAP_SYS_PTRACE"), "a zombie is nobody to ask more rights for: {exit:#?}");
            let trace = Trace::of_text(exit.status, &exit.stdout, exit.stderr);
            assert!(trace.assert_nothing_lost().connections.is_empty(), "{trace:#?}");
        } else {
            // It was gone before it could be looked at.
            exit.assert_fails(1, &[&format!("{pid}"), "ended"]);
        }
    }
    assert!(traced >= TRIALS / 2, "most were there when they were looked at, but only {traced} of {TRIALS} were");
}

#[test]
fn the_whole_node_is_traced_without_a_target() {
    let listener = listen(Family::V4);
    let mut actor = Actor::new();
    let trace = Tracer::trace(&[]);
    let ends = actor.connect(listener.local_addr().expect("local address"));
    let (server, _) = listener.accept().expect("accept");
    actor.order("close");
    drop(server);
    trace.connection(ends);
    trace.connection(ends.flipped());
    let trace = trace.stop();

    trace.assert_nothing_lost();
    assert_eq!(trace.connection(ends).pid, actor.pid());
    assert_eq!(trace.connection(Ends::flipped(ends)).pid, std::process::id());
}
