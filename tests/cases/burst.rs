//! Many connections at once.

use std::{
    collections::{HashMap, HashSet},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
};

use harness::{Backend, Closer, Ends, Family, How, Line, Namespace, Tracer, listen, parse_lines};

const CLIENTS: usize = 4;
const CONNECTIONS: usize = 10_000;

#[test]
fn of_10_000_connections_in_a_burst_none_is_lost_nor_counted_lost() {
    Tracer::end_shared();
    for backend in [Backend::Auto, Backend::Kprobe] {
        // In a namespace of its own, where the kernel has room for all in TIME_WAIT, no port comes up again, so that
        // each connection can be told by its ends.
        Namespace::run(|namespace| {
            namespace.set("ipv4/tcp_tw_reuse", "0");
            burst(backend);
        });
    }
}

fn burst(backend: Backend) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("out.ndjson");
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let port = to.port().to_string();
    let trace = Tracer::trace_by(backend, &["--port", &port, "--output", file.to_str().expect("UTF-8")]);
    let made = churn(&listener, to);
    let end = trace.stop();

    assert!(end.status.success(), "{}", end.stderr);
    if preempts_in_hooks() {
        return assert_nothing_is_lost_in_silence(&file, to, &made);
    }
    let (mut clients, mut servers, mut summary) = (HashMap::new(), HashMap::new(), None);
    for line in parse_lines(&std::fs::read_to_string(&file).expect("the output")) {
        match line {
            Line::Connection(connection) => {
                assert_eq!(connection.close().how, How::Fin, "{connection:#?}");
                let ends = Ends::new(connection.local, connection.remote);
                let is_client = ends.remote == to;
                assert_eq!(connection.close().closer == Closer::Local, is_client, "{connection:#?}");
                let (seen, key) = if is_client { (&mut clients, ends) } else { (&mut servers, ends.flipped()) };
                if let Some(first) = seen.insert(key, connection.clone()) {
                    panic!("twice: {first:#?} {connection:#?}");
                }
            }
            Line::Summary(of_all) => summary = Some(of_all),
            Line::Loss(loss) => panic!("{loss:#?}"),
            Line::Open(_) | Line::Dns(_) => {}
        }
    }
    let summary = summary.expect("a summary");
    assert_eq!(summary.losses, []);
    assert_eq!(summary.connections, 2 * CONNECTIONS as u64);
    assert_eq!(clients.into_keys().collect::<HashSet<_>>(), made, "each client's connection once");
    assert_eq!(servers.into_keys().collect::<HashSet<_>>(), made, "each server's connection once");
}

/// A kernel that preempts tasks in a hook skips hooks however deep the tracer's further programs reach; Debian's 7.2 does,
/// and as emulated here far more often than a real machine. There, what is lost must be counted, and be next to nothing.
fn preempts_in_hooks() -> bool {
    let modes = std::fs::read_to_string("/sys/kernel/debug/sched/preempt").unwrap_or_default();
    modes.contains("(full)") || modes.contains("(lazy)")
}

fn assert_nothing_is_lost_in_silence(file: &Path, to: SocketAddr, made: &HashSet<Ends>) {
    /// Of 20,000 ends; 24 and 13 were skipped in the worst runs seen, with half as many programs.
    const NEXT_TO_NOTHING: u64 = 40;
    let (mut clients, mut servers, mut counted, mut wrong) = (HashSet::new(), HashSet::new(), 0, 0);
    for line in parse_lines(&std::fs::read_to_string(file).expect("the output")) {
        match line {
            Line::Connection(connection) => {
                let ends = Ends::new(connection.local, connection.remote);
                let is_client = ends.remote == to;
                let is_right = connection
                    .close
                    .as_ref()
                    .is_some_and(|close| close.how == How::Fin && (close.closer == Closer::Local) == is_client);
                let is_new = if is_client { clients.insert(ends) } else { servers.insert(ends.flipped()) };
                wrong += u64::from(!is_right || !is_new);
            }
            Line::Loss(loss) => {
                assert!(matches!(loss.cause.as_str(), "hook_skipped" | "end_unseen"), "{loss:#?}");
                counted += loss.count;
            }
            Line::Summary(_) | Line::Open(_) | Line::Dns(_) => {}
        }
    }
    let missing = made.difference(&clients).count() as u64 + made.difference(&servers).count() as u64;
    println!("a kernel that preempts: {missing} missing, {wrong} wrong, {counted} counted as lost, of 20,000");
    assert!(missing + wrong <= counted, "{missing} missing and {wrong} wrong, but {counted} counted as lost");
    assert!(counted <= NEXT_TO_NOTHING, "{counted} counted as lost");
}

/// Makes all connections, each with a port of its own, as fast as it goes: the client closes first.
fn churn(listener: &TcpListener, to: SocketAddr) -> HashSet<Ends> {
    thread::scope(|scope| {
        let connect = |_| Ends::of(&TcpStream::connect(to).expect("connect"));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(move || (0..CONNECTIONS / CLIENTS).map(connect).collect::<Vec<_>>()))
            .collect();
        for _ in 0..CONNECTIONS {
            let (server, _) = listener.accept().expect("accept");
            // Reads to the client's FIN, so that the client is the first to close.
            let mut server = server;
            std::io::copy(&mut server, &mut std::io::sink()).expect("the end");
        }
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    })
}
