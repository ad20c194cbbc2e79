//! Which process a connection belongs to.

use harness::{Actor, Closer, Ends, Family, How, Tracer, listen};

crate::on_both_backends! {
    a_connection_belongs_to_the_process_whatever_thread_connects
    a_forked_child_that_closes_last_releases_the_connection
    a_worker_that_was_passed_an_accepted_socket_owns_it
}

fn a_connection_belongs_to_the_process_whatever_thread_connects(trace: &Tracer) {
    let listener = listen(Family::V4);
    let mut actor = Actor::new();
    let to = listener.local_addr().expect("local address");
    let answer = actor.order(&format!("connect-on-thread {to}"));
    let (local, tid) = answer.split_once(' ').expect("address and thread");
    let ends = Ends::new(local.parse().expect("an address"), to);
    let tid: u32 = tid.parse().expect("a thread id");
    assert_ne!(tid, actor.pid());
    let open = trace.open(ends);
    let server = listener.accept().expect("accept");
    actor.order("close");
    drop(server);

    assert_eq!((open.pid, open.tid, open.comm.as_str()), (actor.pid(), Some(tid), "actor"), "not the thread's name");
    let connection = trace.connection(ends);
    assert_eq!((connection.pid, connection.comm.as_str()), (actor.pid(), "actor"));
}

fn a_forked_child_that_closes_last_releases_the_connection(trace: &Tracer) {
    let listener = listen(Family::V4);
    let mut actor = Actor::new();
    let ends = actor.connect(listener.local_addr().expect("local address"));
    let (server, _) = listener.accept().expect("accept");
    let child = actor.become_another("fork");
    // The parent has closed its copy or is about to; the connection lives on in the child.
    actor.order("send 12");
    actor.order("close");
    drop(server);

    let connection = trace.connection(ends);
    assert_eq!(connection.pid, child, "the one that let go of it: {connection:#?}");
    assert_eq!(connection.close().closer, Closer::Local);
    connection.assert_bytes(12, 0);
    let note = connection.confidence.iter().find(|note| note.field == "pid");
    assert!(note.is_some(), "it says that the opener was another: {connection:#?}");
}

fn a_worker_that_was_passed_an_accepted_socket_owns_it(trace: &Tracer) {
    let mut actor = Actor::new();
    let worker = actor.become_another("prepare-worker");
    let to = actor.listen();
    let client = std::net::TcpStream::connect(to).expect("connect");
    let ends = Ends::of(&client).flipped();
    actor.order("accept");
    let answered = actor.become_another("pass-to-worker");
    assert_eq!(answered, worker);
    actor.order("send 3");
    actor.order("close");

    drop(client);
    let connection = trace.connection(ends);
    assert_eq!(connection.pid, worker, "{connection:#?}");
    connection.assert_ended(Closer::Local, How::Fin);
    connection.assert_bytes(3, 0);
}
