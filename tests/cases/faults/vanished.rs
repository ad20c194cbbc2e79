//! What is traced, or what it lives in, goes away.

use std::fs;

use harness::{Actor, Cgroup, Family, Namespace, Pair, Tracer, eventually, listen};

use super::measured;

#[test]
fn a_cgroup_that_is_removed_while_it_is_traced_leaves_an_orderly_trace() {
    let group = Cgroup::new("faults-removed");
    let listener = listen(Family::V4);
    let mut actor = Actor::new();
    group.take(actor.pid());
    let trace = Tracer::trace(&["--cgroup", group.path().to_str().expect("UTF-8")]);
    let ends = actor.connect(listener.local_addr().expect("local address"));
    trace.open(ends);
    actor.kill();
    let path = group.path().to_owned();
    eventually("the group to be empty", || fs::remove_dir(&path).ok());
    let seen = trace.connection(ends);
    assert!(seen.close().process_exited, "{seen:#?}");
    // One of the same name is another group, and who is in it is not traced.
    fs::create_dir(&path).expect("a group of that name");
    let mut other = Actor::new();
    fs::write(path.join("cgroup.procs"), other.pid().to_string()).expect("a process in the other group");
    let unseen = other.connect(listener.local_addr().expect("local address"));
    other.kill();
    let trace = if trace.has_ended() { trace.await_end() } else { trace.stop() };
    trace.assert_nothing_lost();
    assert_eq!(trace.connections.len(), 1, "{trace:#?}");
    assert_eq!(trace.connections_of(unseen).len(), 0, "{trace:#?}");
    measured("a cgroup removed while it was traced: nothing lost");
}

#[test]
fn a_network_namespace_that_is_deleted_with_connections_in_it_leaves_them_told() {
    let trace = Tracer::trace(&[]);
    let (number, open, closed) = Namespace::run(|namespace| {
        let mut pair = Pair::new(Family::V4);
        pair.exchange(10, 20).close_client();
        pair.release_server();
        let open = Pair::new(Family::V4);
        (namespace.number(), open.client_ends(), pair.client_ends())
        // The open one's sockets go now, and with the thread the last of what the namespace is kept for.
    });
    for ends in [open, closed] {
        for ends in [ends, ends.flipped()] {
            let seen = trace.connection_where("an end in the namespace", |connection| {
                connection.netns == Some(number) && (connection.local, connection.remote) == (ends.local, ends.remote)
            });
            assert!(!seen.open && seen.close.is_some(), "{seen:#?}");
        }
    }
    trace.stop().assert_nothing_lost();
    measured("a network namespace deleted with connections in it: nothing lost");
}
