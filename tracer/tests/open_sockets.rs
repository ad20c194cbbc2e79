//! Sockets that are open already, found on the running kernel: no privileges are needed for one's own.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process,
    time::Duration,
};

use tracer::{
    stage::event::OpenSocket,
    target::{open_sockets::snapshot, process::identity},
};
use tracer_ebpf::{role, tcp_state};

/// A connection with both ends in this process.
struct Pair {
    _listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    fn new(listen: &str, connect: &str) -> Self {
        let listener = TcpListener::bind(listen).expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let client = TcpStream::connect(format!("{connect}:{port}")).expect("connected");
        let (server, _) = listener.accept().expect("accepted");
        Self { _listener: listener, client, server }
    }

    /// Sends from one end and reads at the other.
    fn send(mut from: &TcpStream, mut to: &TcpStream, bytes: usize) {
        from.write_all(&vec![b'x'; bytes]).expect("sent");
        to.read_exact(&mut vec![0; bytes]).expect("received");
    }

    fn found(&self) -> (OpenSocket, OpenSocket) {
        (find(&self.client), find(&self.server))
    }
}

fn find(stream: &TcpStream) -> OpenSocket {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let local = canonical(stream.local_addr().expect("connected"));
    let remote = canonical(stream.peer_addr().expect("connected"));
    let snapshot = snapshot(Some(&[process::id()]));
    assert_eq!(snapshot.limitations, [] as [String; 0]);
    let mut found = snapshot.sockets.into_iter();
    found.find(|socket| (socket.local, socket.remote) == (local, remote)).expect("the socket is listed")
}

#[test]
fn both_ends_are_found_with_role_owner_and_bytes() {
    for (listen, connect) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]")] {
        let pair = Pair::new(listen, connect);
        Pair::send(&pair.client, &pair.server, 1_000);
        Pair::send(&pair.server, &pair.client, 70_000);
        let (client, server) = pair.found();
        let myself = identity(process::id()).expect("alive");
        for (end, expected_role, sent, received) in
            [(&client, role::CLIENT, 1_000, 70_000), (&server, role::SERVER, 70_000, 1_000)]
        {
            assert_eq!(end.role, expected_role, "{end:?}");
            assert_eq!((end.pid, end.process_started_at), (process::id(), myself.started_at));
            assert_eq!((end.bytes_sent, end.bytes_received), (Some(sent), Some(received)), "{end:?}");
            assert_eq!((end.state, end.retransmits), (tcp_state::ESTABLISHED, Some(0)));
            assert!(end.srtt.is_some_and(|nanos| nanos < 1_000_000_000), "{end:?}");
            assert!(end.cookie != 0 && end.netns != 0);
        }
        assert_ne!(client.cookie, server.cookie);
    }
}

#[test]
fn v4_mapped_addresses_are_shown_as_ipv4() {
    let pair = Pair::new("[::]:0", "127.0.0.1");
    let (_, server) = pair.found();
    assert!(server.local.is_ipv4() && server.remote.is_ipv4(), "{server:?}");
    assert_eq!(server.role, role::SERVER);
}

#[test]
fn idle_time_is_what_passed_since_the_last_payload() {
    let pair = Pair::new("127.0.0.1:0", "127.0.0.1");
    Pair::send(&pair.client, &pair.server, 10);
    std::thread::sleep(Duration::from_millis(300));
    let (client, server) = pair.found();
    for idle in [client.sent_idle, server.received_idle] {
        let millis = idle.expect("payload went") / 1_000_000;
        assert!((290..2_000).contains(&millis), "{millis} ms");
    }
    assert_eq!((client.received_idle, server.sent_idle), (None, None), "nothing went the other way");
}

#[test]
fn the_peers_fin_is_no_payload() {
    let pair = Pair::new("127.0.0.1:0", "127.0.0.1");
    Pair::send(&pair.client, &pair.server, 10);
    pair.client.shutdown(std::net::Shutdown::Write).expect("shut down");
    assert_eq!((&pair.server).read(&mut [0]).expect("end of file"), 0);
    let (client, server) = pair.found();
    assert_eq!((server.state, server.bytes_received), (tcp_state::CLOSE_WAIT, Some(10)));
    // The second comes with the acknowledgment of the FIN, which may be delayed.
    assert!(matches!(client.state, tcp_state::FIN_WAIT1 | tcp_state::FIN_WAIT2), "{client:?}");
    assert_eq!(client.bytes_sent, Some(10), "nor is one's own");
}

#[test]
fn keepalive_is_told_where_its_timer_runs() {
    let pair = Pair::new("127.0.0.1:0", "127.0.0.1");
    assert_eq!(pair.found().0.keepalive, None);
    rustix::net::sockopt::set_socket_keepalive(&pair.client, true).expect("set");
    assert_eq!(pair.found().0.keepalive, Some(true));
}

#[test]
fn listeners_and_connections_not_yet_accepted_are_left_out() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    let _client = TcpStream::connect(address).expect("connected");
    let all = snapshot(None).sockets;
    let at_listener: Vec<_> = all.iter().filter(|socket| socket.local == address).collect();
    assert!(at_listener.is_empty(), "{at_listener:?}");
    assert!(all.iter().any(|socket| socket.remote == address && socket.pid == process::id()));
}

#[test]
fn a_process_without_sockets_has_none() {
    let mut child = process::Command::new("sleep").arg("60").spawn().expect("sleep starts");
    let found = snapshot(Some(&[child.id()]));
    child.kill().and_then(|()| child.wait()).expect("ended");
    assert!(found.sockets.is_empty() && found.limitations.is_empty(), "{found:?}");
}

#[test]
fn a_process_that_is_gone_is_no_failure() {
    let found = snapshot(Some(&[u32::MAX]));
    assert!(found.sockets.is_empty() && found.limitations.is_empty(), "{found:?}");
}

/// Starts a connection to itself in a network namespace of its own, and says so.
const ELSEWHERE: &str = "
import socket, subprocess, sys
subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
listener = socket.create_server(('127.0.0.1', 4242))
client = socket.create_connection(('127.0.0.1', 4242))
server, _ = listener.accept()
client.sendall(b'x' * 123)
server.recv(200)
print('ready', flush=True)
sys.stdin.read()
";

#[test]
#[ignore = "needs root: enters another network namespace; the VM tests run it"]
fn sockets_in_another_network_namespace_are_found() {
    let mut command = process::Command::new("unshare");
    command.args(["--net", "python3", "-c", ELSEWHERE]);
    let piped = command.stdin(process::Stdio::piped()).stdout(process::Stdio::piped());
    let mut child = piped.spawn().expect("unshare starts");
    let ready = child.stdout.as_mut().expect("piped").read_exact(&mut [0; 6]);
    let here = find(&Pair::new("127.0.0.1:0", "127.0.0.1").client).netns;
    let found = snapshot(Some(&[child.id()]));
    drop(child.stdin.take());
    child.wait().expect("ended");
    ready.expect("the child got as far as ready");
    assert_eq!(found.limitations, [] as [String; 0]);
    let mut ends: Vec<_> = found.sockets.iter().map(|end| (end.role, end.bytes_sent, end.pid)).collect();
    ends.sort_unstable();
    assert_eq!(ends, [(role::CLIENT, Some(123), child.id()), (role::SERVER, Some(0), child.id())]);
    assert!(found.sockets.iter().all(|end| end.netns != here), "{found:?}");
}
