//! Many threads wait in one call: more than return probes can follow. Nothing that they wait for is lost, or it is counted.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use harness::{Backend, Ends, Family, Namespace, Role, Trace, Tracer, listen, while_waiting};

/// The kernel follows the returns of ten calls, or of twice as many as it has processors if those are more.
const THREADS: usize = 24;

/// A kernel that lacks what kprobes hook best.
const RETURN_PROBES: &[&str] = &["--without-hook", "security_sock_graft", "--without-hook", "skb_consume_udp"];

crate::on_both_backends! {
    connections_that_many_threads_wait_to_accept_are_all_seen
    answers_that_many_threads_wait_for_are_all_seen
    an_answer_is_received_when_it_is_taken_not_when_it_is_looked_at
}

fn connections_that_many_threads_wait_to_accept_are_all_seen(trace: &Tracer) {
    for family in [Family::V4, Family::V6] {
        for ends in accept_on_many_threads(family, || {}) {
            assert_eq!(trace.connection(ends).role, Some(Role::Server));
        }
    }
}

/// Connects to as many threads as wait for it, after `then`, and closes; returns the servers' ends.
fn accept_on_many_threads(family: Family, then: impl FnOnce()) -> Vec<Ends> {
    let listeners: Vec<_> = (0..THREADS).map(|_| listen(family)).collect();
    let accept = |listener: &TcpListener| listener.accept().expect("accept").0;
    let calls = listeners.iter().map(|listener| move || accept(listener));
    let mut clients = Vec::new();
    let servers = while_waiting(libc::SYS_accept4, calls, || {
        then();
        let connect = |listener: &TcpListener| TcpStream::connect(listener.local_addr().expect("address"));
        clients.extend(listeners.iter().map(|listener| connect(listener).expect("connect")));
    });
    servers.iter().map(Ends::of).collect()
}

fn answers_that_many_threads_wait_for_are_all_seen(trace: &Tracer) {
    for server in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        for connected in [true, false] {
            let label = format!("{}-{connected}", if server.is_ipv6() { 6 } else { 4 });
            Namespace::run(|_| ask_on_many_threads(&Server::start(server), &label, connected));
            for name in (0..THREADS).map(|number| name(number, &label)) {
                let lookup = trace.lookup_where(&name, |lookup| lookup.name == name);
                assert!(lookup.latency_ms.is_some() && !lookup.failed, "{lookup:?}");
            }
        }
    }
}

fn name(number: usize, label: &str) -> String {
    format!("n{number}-{label}.waiting.test")
}

/// Each thread asks for a name of its own, and all wait before the first is answered.
fn ask_on_many_threads(server: &Server, label: &str, connected: bool) {
    let sockets: Vec<_> =
        (0..THREADS).map(|number| server.asked(&name(number, label), connected).expect("ask")).collect();
    answer_many_threads(server, &sockets, connected, || {});
}

/// Answers all questions when every thread waits for its answer, and after `then`.
fn answer_many_threads(server: &Server, sockets: &[UdpSocket], connected: bool, then: impl FnOnce()) {
    // Before the threads wait: the server's own calls could be missed as well.
    let questions: Vec<_> = sockets.iter().map(|_| server.question().expect("a question")).collect();
    let receive = |socket: &UdpSocket| {
        let mut answer = [0; 512];
        if connected { socket.recv(&mut answer) } else { socket.recv_from(&mut answer).map(|(length, _)| length) }
    };
    let calls = sockets.iter().map(|socket| move || receive(socket).expect("an answer"));
    while_waiting(libc::SYS_recvfrom, calls, || {
        then();
        questions.iter().for_each(|question| server.answer(question).expect("answer"));
    });
}

fn an_answer_is_received_when_it_is_taken_not_when_it_is_looked_at(trace: &Tracer) {
    const RESTS: Duration = Duration::from_millis(200);
    Namespace::run(|_| {
        for (server, name) in [(Ipv4Addr::LOCALHOST.into(), "peek-4.test"), (Ipv6Addr::LOCALHOST.into(), "peek-6.test")]
        {
            let server = Server::start(server);
            let socket = server.asked(name, true).expect("ask");
            server.answer(&server.question().expect("a question")).expect("answer");
            let mut answer = [0; 512];
            let seen = socket.peek(&mut answer).expect("an answer");
            thread::sleep(RESTS);
            assert_eq!(socket.recv(&mut answer).expect("the same"), seen);
            let lookup = trace.lookup_where(name, |lookup| lookup.name == name);
            assert!(lookup.latency_ms.is_some_and(|ms| ms >= RESTS.as_millis() as f64), "{lookup:?}");
        }
    });
}

#[test]
fn a_connection_that_a_thread_waited_for_since_before_the_trace_is_seen() {
    for backend in [Backend::Auto, Backend::Kprobe] {
        let mut trace = None;
        let servers = accept_on_many_threads(Family::V4, || trace = Some(trace_this_process(backend, &[])));
        let trace = trace.expect("it was started").stop();
        trace.assert_nothing_lost();
        for ends in servers {
            assert_eq!(trace.connection(ends).role, Some(Role::Server), "{backend:?}");
        }
    }
}

#[test]
fn an_accept_that_a_return_probe_does_not_follow_is_counted() {
    let trace = trace_this_process(Backend::Kprobe, RETURN_PROBES);
    let all = accept_on_many_threads(Family::V4, || {});
    let trace = trace.stop();
    assert_backend(&trace, "inet_csk_accept", "kretprobe");
    let servers = trace.connections.iter().filter(|connection| connection.role == Some(Role::Server));
    let seen = servers.filter(|server| all.contains(&Ends::new(server.local, server.remote))).count();
    assert_seen_or_counted(&trace, seen);
}

#[test]
fn an_answer_that_a_return_probe_does_not_follow_is_counted() {
    for server in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let trace = trace_this_process(Backend::Kprobe, RETURN_PROBES);
        Namespace::run(|_| ask_on_many_threads(&Server::start(server), "returns", true));
        let trace = trace.stop();
        for hook in ["udp_recvmsg", "udpv6_recvmsg"] {
            assert_backend(&trace, hook, "kretprobe");
        }
        assert_seen_or_counted(&trace, trace.lookups.iter().filter(|lookup| lookup.latency_ms.is_some()).count());
    }
}

/// Some of what so many threads waited for is missing, and exactly that is counted.
#[track_caller]
fn assert_seen_or_counted(trace: &Trace, seen: usize) {
    trace.assert_lost_only(&["call_missed"]);
    assert!(seen < THREADS, "return probes have followed all {THREADS} threads, so this shows nothing");
    let counted = missed(trace)..=missed(trace) + trace.skipped();
    assert!(counted.contains(&((THREADS - seen) as u64)), "{seen} seen, {counted:?} counted");
}

fn missed(trace: &Trace) -> u64 {
    trace.summary().losses.iter().filter(|loss| loss.cause == "call_missed").map(|loss| loss.count).sum()
}

#[track_caller]
fn assert_backend(trace: &Trace, hook: &str, backend: &str) {
    let found = trace.hooks().iter().find(|found| found.name == hook).and_then(|found| found.backend.as_deref());
    assert_eq!(found, Some(backend), "{hook}");
}

#[test]
fn an_answer_to_a_thread_that_waited_before_the_trace_is_counted_by_kprobes() {
    Namespace::run(|_| {
        let server = Server::start(Ipv4Addr::LOCALHOST.into());
        let sockets: Vec<_> = (0..3).map(|_| server.asked("early.test", true).expect("ask")).collect();
        let mut trace = None;
        answer_many_threads(&server, &sockets, true, || trace = Some(trace_this_process(Backend::Kprobe, &[])));
        let trace = trace.expect("it was started").stop();
        trace.assert_lost_only(&["call_missed"]);
        assert_eq!(missed(&trace), 3, "{:#?}", trace.lookups);
    });
}

/// Without other processes, whose calls could be missed as well.
fn trace_this_process(backend: Backend, args: &[&str]) -> Tracer {
    let own = std::process::id().to_string();
    Tracer::trace_by(backend, &[&["-p", &own], args].concat())
}

/// A DNS server that answers when it is told to, in the namespace of its thread.
struct Server(UdpSocket);

impl Server {
    #[track_caller]
    fn start(address: IpAddr) -> Self {
        Self(UdpSocket::bind((address, 53)).expect("port 53 of a namespace of one's own"))
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// A socket through which this thread has asked for a name's IPv4 addresses.
    fn asked(&self, name: &str, connected: bool) -> io::Result<UdpSocket> {
        let server = self.address()?;
        let socket = UdpSocket::bind((server.ip(), 0))?;
        let question = question(name);
        if connected {
            socket.connect(server)?;
            socket.send(&question)?;
        } else {
            socket.send_to(&question, server)?;
        }
        Ok(socket)
    }

    /// Takes a question.
    fn question(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        let mut message = [0; 512];
        let (length, client) = self.0.recv_from(&mut message)?;
        Ok((message[..length].to_vec(), client))
    }

    /// Answers it: there is no such address.
    fn answer(&self, (question, client): &(Vec<u8>, SocketAddr)) -> io::Result<()> {
        const ANSWERS_NO_ERROR: [u8; 2] = [0x81, 0x80];
        let mut message = question.clone();
        message[2..4].copy_from_slice(&ANSWERS_NO_ERROR);
        self.0.send_to(&message, client).map(drop)
    }
}

fn question(name: &str) -> Vec<u8> {
    const RECURSION_DESIRED: u8 = 1;
    const TYPE_A_CLASS_IN: [u8; 4] = [0, 1, 0, 1];
    let mut message = vec![7, 7, RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a label"));
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(TYPE_A_CLASS_IN);
    message
}
