//! Makes a connection over loopback, with known bytes and pauses, traces it as any other, and holds what is told against the truth.

use std::{
    cell::RefCell,
    fmt::Debug,
    fs, io,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::RangeInclusive,
    os::unix::fs::MetadataExt as _,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::report::{Check, SelfTest};
use crate::{
    cli,
    command::{Opened, live::Session},
    findings::finding::Finding,
    output::{Output, units},
    stage::sink::Sink,
    target::selection::Selection,
    track::record::{Closer, Connection, Exchange, How, Nanos, Record, Role},
};

/// Bytes of each request and each response.
const REQUEST: usize = 1_000;
const RESPONSE: usize = 3_000;
/// Requests.
const ROUNDS: usize = 2;
/// From a request to the response.
const THINK: Duration = Duration::from_millis(30);
/// From a response to the next request.
const REST: Duration = Duration::from_millis(300);
/// From the last response to the client's close.
const IDLE: Duration = Duration::from_millis(700);
/// Longest wait for a step of the conversation, and for the connection's end to be told.
const PATIENCE: Duration = Duration::from_secs(5);
/// The kernel keeps some times by its tick, 10 ms at most; a busy machine is late.
const SLACK: Duration = Duration::from_millis(30);
/// A connection or two, and a few exchanges.
const FEW: u32 = 1_024;

/// Runs it, which takes about a second beside the time to attach.
///
/// # Errors
/// If tracing cannot begin, or the connection cannot be made.
pub async fn run(options: &cli::Doctor) -> Result<SelfTest> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on loopback")?;
    let port = listener.local_addr().context("cannot listen on loopback")?.port();
    let target = cli::Target { pid: vec![std::process::id()], ..cli::Target::default() };
    let filter = cli::Filter { port: vec![port], ..cli::Filter::default() };
    let live = cli::Live {
        backend: options.backend,
        without_hook: options.without_hook.clone(),
        ssl: cli::Ssl::Off,
        ring_size: 1,
        max_connections: FEW,
        ..cli::Live::by_default()
    };
    let seen = Seen::default();
    let opened = Opened { output: Box::new(seen.clone()), sink: Sink::nowhere(), findings: None };
    let began = Instant::now();
    let mut session = Session::begin(Selection::new(&target, &filter)?, &live, || Ok(opened))?;
    let attach_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let conversation = tokio::task::spawn_blocking(move || converse(&listener));
    let truth = session.until(conversation).await?;
    let truth = truth.context("interrupted")?.context("the conversation broke off")?;
    let truth = truth.context("cannot have a connection over loopback")?;
    session.linger(PATIENCE).await?;
    session.end()?;
    let checks = check(&truth, &seen.0.borrow());
    Ok(SelfTest { passed: checks.iter().all(|check| check.right), checks, attach_ms })
}

/// What came out, in one line.
pub fn summary(test: &SelfTest) -> String {
    let wrong: Vec<_> = test.checks.iter().filter(|check| !check.right).collect();
    match wrong.first() {
        None => format!("{} fields of a connection over loopback are right", test.checks.len()),
        Some(Check { record, field, expected, found, .. }) => format!(
            "{} of {} fields of a connection over loopback are wrong: {field} of the {record} is {found}, not {expected}{}",
            wrong.len(),
            test.checks.len(),
            if wrong.len() > 1 { ", and others" } else { "" }
        ),
    }
}

/// Keeps what is told.
#[derive(Clone, Default)]
struct Seen(Rc<RefCell<Vec<Record>>>);

impl Output for Seen {
    fn record(&mut self, record: &Record, _: &mut Vec<u8>) {
        if matches!(record, Record::Connection(_) | Record::Exchange(_)) {
            self.0.borrow_mut().push(record.clone());
        }
    }

    fn finding(&mut self, _: &Finding, _: &mut Vec<u8>) {}

    fn wants_exchanges(&self) -> bool {
        true
    }
}

/// What the application itself knows of the connection.
struct Truth {
    client: SocketAddr,
    server: SocketAddr,
    connect: Duration,
    /// From before each request to after its response.
    rounds: Vec<Duration>,
    /// From before the last request to after the close: no idle time is longer.
    last_round_to_close: Duration,
}

fn converse(listener: &TcpListener) -> io::Result<Truth> {
    let server = listener.local_addr()?;
    thread::scope(|scope| {
        let serving = scope.spawn(|| serve(listener));
        let truth = ask(server);
        let served = serving.join().map_err(|_| io::Error::other("the serving thread broke off"))?;
        truth.and_then(|truth| served.map(|()| truth))
    })
}

fn ask(server: SocketAddr) -> io::Result<Truth> {
    let before = Instant::now();
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    let connect = before.elapsed();
    stream.set_read_timeout(Some(PATIENCE))?;
    let client = stream.local_addr()?;
    let (mut rounds, mut last) = (Vec::new(), Instant::now());
    for round in 0..ROUNDS {
        if round > 0 {
            thread::sleep(REST);
        }
        last = Instant::now();
        stream.write_all(&[b'?'; REQUEST])?;
        stream.read_exact(&mut [0; RESPONSE])?;
        rounds.push(last.elapsed());
    }
    thread::sleep(IDLE);
    drop(stream);
    Ok(Truth { client, server, connect, rounds, last_round_to_close: last.elapsed() })
}

fn serve(listener: &TcpListener) -> io::Result<()> {
    let mut stream = accept(listener)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    for _ in 0..ROUNDS {
        stream.read_exact(&mut [0; REQUEST])?;
        thread::sleep(THINK);
        stream.write_all(&[b'!'; RESPONSE])?;
    }
    // The client's close.
    stream.read(&mut [0]).map(drop)
}

/// Takes the connection. It is not waited for in vain: the client may have failed.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let give_up = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < give_up => {
                thread::sleep(Duration::from_millis(1));
            }
            accepted => {
                let (stream, _) = accepted?;
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
        }
    }
}

fn check(truth: &Truth, seen: &[Record]) -> Vec<Check> {
    let mut checks = Checks(Vec::new());
    for (role, name, local, remote) in
        [(Role::Client, "client", truth.client, truth.server), (Role::Server, "server", truth.server, truth.client)]
    {
        let is_it = |connection: &&Connection| (connection.local, connection.remote) == (local, remote);
        let connections: Vec<_> = seen
            .iter()
            .filter_map(|record| if let Record::Connection(connection) = record { Some(connection) } else { None })
            .filter(is_it)
            .collect();
        checks.of(name).same(
            "id",
            "one record",
            &format!("{} records", connections.len()).replace("1 records", "one record"),
        );
        if let [connection] = connections.as_slice() {
            check_connection(truth, role, connection, &mut checks.of(name));
            let is_its = |exchange: &&Exchange| exchange.connection == connection.id;
            let exchanges = seen
                .iter()
                .filter_map(|record| if let Record::Exchange(exchange) = record { Some(exchange) } else { None })
                .filter(is_its);
            for (exchange, took) in exchanges.zip(&truth.rounds) {
                let name = format!("{name}'s exchange {}", exchange.index);
                check_exchange(role, exchange, *took, &mut checks.of(&name));
            }
        }
    }
    checks.0
}

fn check_connection(truth: &Truth, role: Role, found: &Connection, checks: &mut ChecksOf<'_>) {
    let (closer, sent, received) = match role {
        Role::Client => (Closer::Local, REQUEST, RESPONSE),
        Role::Server => (Closer::Peer, RESPONSE, REQUEST),
    };
    let netns = fs::metadata("/proc/self/ns/net").ok().and_then(|namespace| u32::try_from(namespace.ino()).ok());
    let all = |bytes: usize| Some((ROUNDS * bytes) as u64);
    checks.same("role", &Some(role), &found.role);
    checks.same("pid", &std::process::id(), &found.process.numbers().0);
    checks.same("netns", &netns, &found.netns);
    checks.same("preexisting", &false, &found.preexisting);
    checks.same("open", &false, &found.open);
    checks.same("bytes_sent", &all(sent), &found.bytes_sent);
    checks.same("bytes_received", &all(received), &found.bytes_received);
    checks.same("syn_retransmits", &Some(0), &found.syn_retransmits);
    checks.same("exchanges", &u32::try_from(ROUNDS).ok(), &found.exchanges.map(|exchanges| exchanges.count));
    checks.same("closer", &Some(closer), &found.close.as_ref().map(|close| close.closer));
    checks.same("how", &Some(How::Fin), &found.close.as_ref().map(|close| close.how));
    checks.within("idle_before_close_ms", IDLE..=truth.last_round_to_close, found.idle_before_close);
    if role == Role::Client {
        checks.within("connect_ms", Duration::ZERO..=truth.connect, found.connect);
    }
}

fn check_exchange(role: Role, found: &Exchange, took: Duration, checks: &mut ChecksOf<'_>) {
    let (out, back) = match role {
        Role::Client => (REQUEST, RESPONSE),
        Role::Server => (RESPONSE, REQUEST),
    };
    checks.same("cold", &Some(found.index == 0), &found.cold);
    checks.same("stale", &false, &found.stale);
    checks.same("bytes_out", &Some(out as u64), &found.bytes_out);
    checks.same("bytes_in", &Some(back as u64), &found.bytes_in);
    checks.within("first_byte_ms", THINK..=took, found.first_byte);
    checks.within("duration_ms", THINK..=took, found.duration);
}

/// What was looked at.
struct Checks(Vec<Check>);

impl Checks {
    /// What is to come is of this record.
    fn of<'c>(&'c mut self, record: &'c str) -> ChecksOf<'c> {
        ChecksOf { checks: &mut self.0, record }
    }
}

/// What was looked at of one record.
struct ChecksOf<'c> {
    checks: &'c mut Vec<Check>,
    record: &'c str,
}

impl ChecksOf<'_> {
    fn same<T: PartialEq + Debug + ?Sized>(&mut self, field: &'static str, expected: &T, found: &T) {
        self.add(field, words(expected), words(found), expected == found);
    }

    fn within(&mut self, field: &'static str, expected: RangeInclusive<Duration>, found: Option<Nanos>) {
        let (least, most) = (*expected.start(), *expected.end());
        let right = found.map(Duration::from_nanos);
        let right = right.is_some_and(|found| (least.saturating_sub(SLACK)..=most + SLACK).contains(&found));
        let shown = |time: Duration| units::duration(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let expected = format!("{} to {}", shown(least), shown(most));
        self.add(field, expected, found.map_or_else(|| "not known".to_owned(), units::duration), right);
    }

    fn add(&mut self, field: &'static str, expected: String, found: String, right: bool) {
        self.checks.push(Check { record: self.record.to_owned(), field, expected, found, right });
    }
}

/// A value as a word: `Some(Client)` is `client`.
fn words(value: &(impl Debug + ?Sized)) -> String {
    let text = format!("{value:?}");
    let bare = text.strip_prefix("Some(").and_then(|text| text.strip_suffix(')')).unwrap_or(&text);
    if bare == "None" { "not known".to_owned() } else { bare.trim_matches('"').to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_seen_is_told_as_wrong() {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let truth = Truth {
            client: address(40_000),
            server: address(80),
            connect: Duration::from_millis(1),
            rounds: vec![THINK; ROUNDS],
            last_round_to_close: IDLE,
        };
        let checks = check(&truth, &[]);
        assert!(checks.iter().all(|check| !check.right), "{checks:?}");
        let test = SelfTest { passed: false, checks, attach_ms: 0 };
        let told = "2 of 2 fields of a connection over loopback are wrong: id of the client is 0 records, not one record, and others";
        assert_eq!(summary(&test), told);
    }

    #[test]
    fn a_time_is_right_up_to_the_slack_and_wrong_beyond() {
        let mut checks = Checks(Vec::new());
        let bounds = || IDLE..=IDLE + THINK;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).ok();
        for found in [nanos(IDLE), nanos(IDLE - SLACK), nanos(IDLE - 2 * SLACK), nanos(IDLE + THINK + 2 * SLACK), None]
        {
            checks.of("client").within("idle_before_close_ms", bounds(), found);
        }
        let right: Vec<_> = checks.0.iter().map(|check| check.right).collect();
        assert_eq!(right, [true, true, false, false, false]);
        assert_eq!((&*checks.0[4].expected, &*checks.0[4].found), ("700 ms to 730 ms", "not known"));
    }

    #[test]
    fn a_conversation_is_as_long_as_it_says() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let truth = converse(&listener).unwrap();
        assert_eq!((truth.rounds.len(), truth.server), (ROUNDS, listener.local_addr().unwrap()));
        assert!(truth.rounds.iter().all(|took| *took >= THINK) && truth.last_round_to_close >= IDLE);
    }
}
