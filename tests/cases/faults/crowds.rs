//! Very many at once.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use harness::{
    Ends, Family, Line, Namespace, Tracer,
    echo::{answer, ask},
    listen, parse_lines, resident_kib, run,
};
use socket2::{Domain, Socket, Type};

use super::{live_and_let_die, measured};

/// Connections between two addresses and to one port: fewer than there are ports to connect from.
const EACH: usize = 25_000;

fn allow_open_files(count: usize) {
    run(&format!("prlimit --pid {} --nofile={count}:{count}", std::process::id()));
}

fn listener_at(last: usize) -> TcpListener {
    let address = SocketAddr::from((Ipv4Addr::new(127, 0, 1, u8::try_from(last).expect("few")), 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&address.into()).and_then(|()| socket.listen(4_096)).expect("a listener");
    socket.into()
}

/// Attaches while so many connections are open, both ends of each, then closes them.
fn attach_to(connections: usize) {
    allow_open_files(2 * connections + 1_000);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("out.ndjson");
    Namespace::run(|namespace| {
        namespace.set("ipv4/ip_local_port_range", "10000 60999");
        let mut held = Vec::new();
        for (place, count) in (1..).zip(shares(connections)) {
            let listener = listener_at(place);
            let to = listener.local_addr().expect("local address");
            for _ in 0..count {
                held.push(TcpStream::connect(to).expect("connect"));
                held.push(listener.accept().expect("accept").0);
            }
        }
        let began = Instant::now();
        let most = (4 * connections).max(65_536).to_string();
        let args = ["--max-connections", &most, "--output", file.to_str().expect("UTF-8")];
        let trace = Tracer::trace(&[&["-p", &std::process::id().to_string()], &args[..]].concat());
        let took = began.elapsed();
        let memory = resident_kib(trace.pid());
        let ends: HashSet<_> = held.iter().map(Ends::of).collect();
        drop(held);
        let end = trace.stop();
        assert!(end.status.success(), "{}", end.stderr);

        let lines = parse_lines(&std::fs::read_to_string(&file).expect("the output"));
        let mut adopted = HashSet::new();
        let mut told = HashSet::new();
        for line in &lines {
            match line {
                Line::Open(open) if open.preexisting => assert!(adopted.insert(Ends::new(open.local, open.remote))),
                Line::Connection(c) => assert!(told.insert(Ends::new(c.local, c.remote)), "twice: {c:#?}"),
                _ => {}
            }
        }
        measured(&format!(
            "{} sockets open at the attach: ready after {:.1} s, {memory} KiB; {} adopted, {} told; {}",
            2 * connections,
            took.as_secs_f64(),
            ends.intersection(&adopted).count(),
            ends.intersection(&told).count(),
            losses(&lines)
        ));
        assert!(ends.is_subset(&adopted), "all are adopted");
        assert!(ends.is_subset(&told), "all ends are told");
        assert_eq!(losses(&lines), "nothing lost");
    });
}

fn shares(connections: usize) -> impl Iterator<Item = usize> {
    (0..connections.div_ceil(EACH)).map(move |place| EACH.min(connections - place * EACH))
}

/// What the summary says was lost, in words.
#[track_caller]
fn losses(lines: &[Line]) -> String {
    let Some(Line::Summary(summary)) = lines.last() else { panic!("no summary: {:?}", lines.last()) };
    let each = summary.losses.iter().map(|loss| format!("{} {}", loss.count, loss.cause));
    let all = each.collect::<Vec<_>>().join(", ");
    if all.is_empty() { "nothing lost".to_owned() } else { format!("lost: {all}") }
}

#[test]
fn thousands_of_connections_that_are_open_at_the_attach_are_adopted_and_their_ends_told() {
    attach_to(1_000);
}

#[test]
#[ignore = "takes minutes: cargo xtask faults"]
fn a_hundred_thousand_sockets_that_are_open_at_the_attach_are_adopted_and_their_ends_told() {
    attach_to(50_000);
}

#[test]
fn short_processes_with_a_connection_each_are_all_told() {
    crowd_of_processes(100);
}

#[test]
#[ignore = "takes long: cargo xtask faults"]
fn two_thousand_short_processes_with_a_connection_each_are_all_told() {
    crowd_of_processes(2_000);
}

/// So many processes, each of which connects once and ends.
fn crowd_of_processes(processes: usize) {
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let trace = Tracer::trace(&["--port", &to.port().to_string(), "--role", "client", "--no-findings"]);
    let began = Instant::now();
    let script =
        format!("for ((i = 0; i < {processes}; i++)); do (exec 3<>/dev/tcp/127.0.0.1/{}) & done; wait", to.port());
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..processes {
                drop(listener.accept().expect("accept"));
            }
        });
        assert!(Command::new("bash").args(["-c", &script]).status().expect("bash").success());
    });
    let took = began.elapsed();
    thread::sleep(Duration::from_millis(300));
    let trace = trace.stop();
    trace.assert_nothing_lost();
    let pids: HashSet<_> = trace.connections.iter().map(|connection| connection.pid).collect();
    measured(&format!(
        "{processes} short processes with a connection each in {:.1} s: {} connections of {} processes told",
        took.as_secs_f64(),
        trace.connections.len(),
        pids.len()
    ));
    assert_eq!((trace.connections.len(), pids.len()), (processes, processes));
    assert!(trace.connections.iter().all(|connection| connection.comm == "bash"), "each by its name");
}

/// An emulated processor makes a few hundred a second. In a machine whose clock counts instructions (`--count-instructions`) a second is a
/// thousand million of them, however long they take.
#[test]
#[ignore = "takes a minute: cargo xtask faults"]
fn a_minute_of_up_to_5_000_new_connections_a_second_is_all_told() {
    const CLIENTS: u32 = 2;
    const EACH_A_SECOND: u32 = 5_000 / CLIENTS;
    const LASTS: Duration = Duration::from_secs(60);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("out.ndjson");
    Namespace::run(|namespace| {
        // So many would run out of ports otherwise.
        namespace.set("ipv4/tcp_tw_reuse", "1");
        namespace.set("ipv4/ip_local_port_range", "10000 60999");
        let listeners: Vec<_> = (1..=CLIENTS as usize).map(listener_at).collect();
        let trace = Tracer::trace(&["--output", file.to_str().expect("UTF-8"), "--no-findings"]);
        let began = Instant::now();
        let client = |listener: &TcpListener| {
            let to = listener.local_addr().expect("local address");
            let mut made = 0;
            while began.elapsed() < LASTS {
                live_and_let_die(listener, to);
                made += 1;
                thread::sleep((Duration::from_secs(1) * made / EACH_A_SECOND).saturating_sub(began.elapsed()));
            }
            u64::from(made)
        };
        let made: u64 = thread::scope(|scope| {
            let clients: Vec<_> = listeners.iter().map(|listener| scope.spawn(move || client(listener))).collect();
            clients.into_iter().map(|client| client.join().expect("a client")).sum()
        });
        let rate = made as f64 / began.elapsed().as_secs_f64();
        let memory = resident_kib(trace.pid());
        let end = trace.stop();
        assert!(end.status.success(), "{}", end.stderr);
        let last = parse_lines(&last_line(&file));
        let Some(Line::Summary(summary)) = last.last() else { panic!("no summary") };
        measured(&format!(
            "{made} connections in a minute, {rate:.0} a second, both ends traced, {memory} KiB: {} ends told; {}",
            summary.connections,
            losses(&last)
        ));
        assert_eq!(summary.losses, []);
        assert!(summary.connections >= 2 * made, "{} ends of {made} connections", summary.connections);
    });
}

/// Of a file that may be larger than the memory.
fn last_line(file: &Path) -> String {
    let lines = BufReader::new(File::open(file).expect("the output")).lines();
    lines.last().expect("lines").expect("text")
}

#[test]
#[ignore = "takes a minute: cargo xtask faults"]
fn a_minute_of_as_many_exchanges_as_the_machine_can_make_is_all_told() {
    const CLIENTS: usize = 2;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("out.ndjson");
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let args = ["--port", &to.port().to_string(), "--output", file.to_str().expect("UTF-8"), "--no-findings"];
    let trace = Tracer::trace(&args);
    let began = Instant::now();
    let client = || {
        let mut client = TcpStream::connect(to).expect("connect");
        client.set_nodelay(true).expect("no delay");
        let ends = Ends::of(&client);
        let mut made = 0_u64;
        while began.elapsed() < Duration::from_secs(60) {
            ask(&mut client, 100);
            made += 100;
        }
        (ends, made)
    };
    let made: Vec<(Ends, u64)> = thread::scope(|scope| {
        scope.spawn(|| answer(&listener, CLIENTS));
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    let all: u64 = made.iter().map(|(_, made)| made).sum();
    let rate = all as f64 / began.elapsed().as_secs_f64();
    let memory = resident_kib(trace.pid());
    let end = trace.stop();
    assert!(end.status.success(), "{}", end.stderr);
    let text = std::fs::read_to_string(&file).expect("the output");
    let told = text.lines().filter(|line| line.contains(r#""type":"exchange""#)).count() as u64;
    // To take all of them apart would last longer than the trace.
    let others: Vec<_> = text.lines().filter(|line| !line.contains(r#""type":"exchange""#)).collect();
    let others = parse_lines(&others.join("\n"));
    measured(&format!(
        "{all} exchanges in a minute, {rate:.0} a second, both ends traced, {memory} KiB: {told} told; {}",
        losses(&others)
    ));
    assert_eq!((losses(&others).as_str(), told), ("nothing lost", 2 * all));
    for (ends, count) in made.into_iter().flat_map(|(ends, made)| [(ends, made), (ends.flipped(), made)]) {
        let is_its = |line: &&Line| matches!(line, Line::Connection(c) if Ends::new(c.local, c.remote) == ends);
        let Some(Line::Connection(connection)) = others.iter().find(is_its) else { panic!("no record of {ends:?}") };
        assert_eq!(connection.exchanges, Some(count), "{connection:#?}");
    }
}
