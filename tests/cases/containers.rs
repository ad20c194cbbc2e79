//! The tracer in a container, by a user who is not root and with few rights.

use std::process::Command;

use harness::{
    Actor, Container, Family, Nobody, Pair, Tracer, child_of, client_binary, eventually, listen, with_host_pids,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What most people give it: `docs/containers.md`.
const USUAL: &[&str] = &["bpf", "perfmon", "sys_ptrace", "dac_read_search"];

fn trace(args: &[&str]) -> Command {
    let by = Nobody::with(USUAL);
    by.command(&[&["trace", "--format", "ndjson", "--detail", "connections"], args].concat())
}

#[test]
fn with_the_hosts_pids_a_container_traces_a_process_of_the_host() {
    let listener = listen(Family::V4);
    let mut actor = Actor::new();
    let trace = Tracer::start(with_host_pids(&trace(&["-p", &actor.pid().to_string()])));
    let ends = actor.connect(listener.local_addr().expect("local address"));
    actor.order("close");
    let seen = trace.connection(ends);
    let trace = trace.stop();
    trace.assert_nothing_lost();
    assert_eq!((seen.pid, seen.host_pid), (actor.pid(), None), "{seen:#?}");
    assert!(seen.exe.as_deref().is_some_and(|exe| exe.ends_with("/actor")), "{seen:#?}");
}

/// An actor in a container, its number there and the host's.
fn actor_in(container: &Container) -> (Actor, u32, u32) {
    let mut actor = Actor::by(container.enter(&Command::new(client_binary("actor"))));
    let own = actor.order("pid").parse().expect("a process id");
    let host = eventually("the actor itself", || child_of(actor.pid()));
    (actor, own, host)
}

#[test]
fn in_a_pid_namespace_of_its_own_it_takes_and_tells_the_pids_of_that_namespace() {
    let container = Container::new();
    let (mut actor, own, host) = actor_in(&container);
    assert_ne!(own, host);
    let older = actor.listen();
    let older = actor.connect(older);
    let trace = Tracer::start(container.enter(&trace(&["-p", &own.to_string()])));
    let seen = trace.open(older);
    assert_eq!((seen.pid, seen.preexisting), (own, true), "{seen:#?}");
    actor.order("close");

    let to = actor.listen();
    let ends = actor.connect(to);
    // A child, which is followed, takes over, and lets go of the connection to make another.
    let child: u32 = actor.order("fork").parse().expect("a process id");
    let childs = actor.connect(to);
    actor.order("close");
    let (seen, of_child) = (trace.connection(ends), trace.connection(childs));
    for (connection, pid) in [(&seen, child), (&of_child, child)] {
        assert_eq!(connection.pid, pid, "{connection:#?}");
        assert!(connection.host_pid.is_some_and(|host| host != pid), "{connection:#?}");
        assert!(connection.exe.as_deref().is_some_and(|exe| exe.ends_with("/actor")), "{connection:#?}");
    }
    // The trace ends with its processes.
    actor.end();
    let trace = trace.await_end();
    trace.assert_nothing_lost();
    assert!(trace.stderr.contains("all traced processes have ended"), "{}", trace.stderr);
    assert!(trace.stderr.contains("PIDs are those of this PID namespace"), "{}", trace.stderr);
}

#[test]
fn from_a_pid_namespace_of_its_own_the_node_goes_by_the_hosts_pids() {
    let container = Container::new();
    let trace = Tracer::start(container.enter(&trace(&[])));
    let (mut actor, own, host) = actor_in(&container);
    let to = actor.listen();
    let ends = actor.connect(to);
    actor.order("close");
    let mut pair = Pair::new(Family::V4);
    pair.close_client();
    pair.release_server();
    let (inside, outside) = (trace.connection(ends), trace.connection(pair.client_ends()));
    assert_eq!((inside.pid, inside.host_pid), (own, Some(host)), "{inside:#?}");
    assert_eq!((outside.pid, outside.host_pid), (0, Some(std::process::id())), "{outside:#?}");
    // What was started waits for it.
    let tracer = child_of(trace.pid()).expect("the tracer itself");
    kill(Pid::from_raw(tracer.cast_signed()), Signal::SIGTERM).expect("it runs");
    trace.await_end().assert_nothing_lost();
}

#[test]
fn the_program_of_the_image_starts_with_fewer_rights_than_its_file_has_and_says_which() {
    let arguments = ["trace", "-d", "1", "--detail", "connections"];
    let exit = Nobody::with_image(USUAL, &USUAL[..2]).conntracer(&arguments);
    assert!(exit.status.success() && exit.stderr.contains("needs CAP_SYS_PTRACE"), "{exit:#?}");
    let exit = Nobody::with_image(USUAL, USUAL).conntracer(&arguments);
    assert!(exit.status.success() && !exit.stderr.contains("needs CAP_SYS_PTRACE"), "{exit:#?}");
}
