//! A connection whose exchanges are known: what was sent and received at both ends, and between which two moments each
//! byte passed.

use std::{
    io::{IoSlice, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    pair::{Ends, Family, Pair, unread},
    record::{Connection, Exchange, Role},
    span::{Range, Span},
};

/// Bytes that passed at one end.
#[derive(Clone, Copy, Debug)]
struct Passed {
    sent: bool,
    at: Span,
    bytes: u64,
    /// It was sent to a server that had closed.
    stale: bool,
}

/// What an exchange must be reported as.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Expected {
    pub greeting: bool,
    /// It began when the server had closed already.
    pub stale: bool,
    pub idle_before: Range,
    /// `None`: it was never answered.
    pub first_byte: Option<Range>,
    pub duration: Option<Range>,
    pub bytes_out: u64,
    pub bytes_in: u64,
}

/// What passed at the two ends of a connection, whoever holds them.
pub struct Log {
    client: End,
    server: End,
    /// The server sends no more.
    server_closed: bool,
}

/// What passed at one end.
struct End {
    ready: Span,
    passed: Vec<Passed>,
    /// When bytes came that nobody took.
    left_unread: Option<Span>,
}

impl Log {
    /// Of a connection whose client and server were ready for data at these moments.
    pub fn new([client, server]: [Span; 2]) -> Self {
        let end = |ready| End { ready, passed: Vec::new(), left_unread: None };
        Self { client: end(client), server: end(server), server_closed: false }
    }

    fn end(&mut self, role: Role) -> &mut End {
        if role == Role::Client { &mut self.client } else { &mut self.server }
    }

    /// That end sends so many bytes in this call.
    pub fn send(&mut self, role: Role, bytes: usize, call: impl FnOnce()) {
        let (at, ()) = Span::of(call);
        self.sent(role, bytes, at);
    }

    /// That end takes so many bytes in this call.
    pub fn take(&mut self, role: Role, bytes: usize, call: impl FnOnce()) {
        let (at, ()) = Span::of(call);
        self.taken(role, bytes, at);
    }

    /// That end has sent so many bytes in a call.
    pub fn sent(&mut self, role: Role, bytes: usize, at: Span) {
        let stale = role == Role::Client && self.server_closed;
        self.end(role).passed.push(Passed { sent: true, at, bytes: bytes as u64, stale });
    }

    /// That end has taken so many bytes in a call.
    pub fn taken(&mut self, role: Role, bytes: usize, at: Span) {
        self.end(role).passed.push(Passed { sent: false, at, bytes: bytes as u64, stale: false });
    }

    /// That end sends so many bytes in this call, and the other does not take them.
    pub fn send_in_vain(&mut self, role: Role, bytes: usize, call: impl FnOnce()) {
        self.send(role, bytes, call);
        let at = self.end(role).passed.last().map(|sent| sent.at);
        self.end(if role == Role::Client { Role::Server } else { Role::Client }).left_unread = at;
    }

    /// The server has announced that it sends no more.
    pub fn server_closes(&mut self) {
        self.server_closed = true;
    }

    /// Whether data has passed at that end, so that the hooks know when.
    pub fn has_passed(&self, role: Role) -> bool {
        !self.of(role).passed.is_empty()
    }

    /// How long that end has been idle when it closes. The kernel counts from the handshake, which is before the accept, and
    /// bytes that nobody took; where data has passed, the hooks tell, who see what is taken.
    pub fn idle(&self, role: Role, closing: Span) -> Range {
        let end = self.of(role);
        let handshake = Span { before: self.client.ready.before, after: end.ready.after };
        let last = end.passed.last().map(|last| last.at);
        last.or(end.left_unread).unwrap_or(handshake).until(closing)
    }

    /// Bytes sent and taken at that end.
    pub fn bytes(&self, role: Role) -> (u64, u64) {
        let sum =
            |sent| self.of(role).passed.iter().filter(|passed| passed.sent == sent).map(|passed| passed.bytes).sum();
        (sum(true), sum(false))
    }

    /// The exchanges as that side must be reported to have had them.
    pub fn expected(&self, role: Role) -> Vec<Expected> {
        let end = self.of(role);
        exchanges(&end.passed, role, end.ready)
    }

    fn of(&self, role: Role) -> &End {
        if role == Role::Client { &self.client } else { &self.server }
    }
}

/// A connection of which all that passes is noted.
pub struct Talk {
    pub pair: Pair,
    pub log: Log,
}

impl Talk {
    /// A fresh connection.
    pub fn new(family: Family) -> Self {
        Self::of(Pair::new(family))
    }

    /// On this connection, which is fresh.
    pub fn of(pair: Pair) -> Self {
        // Small pieces must not wait for each other's acknowledgments.
        for end in [pair.client(), pair.server()] {
            end.set_nodelay(true).expect("TCP_NODELAY");
        }
        let log = Log::new(pair.ready());
        Self { pair, log }
    }

    /// The client sends, and the server takes it.
    pub fn ask(&mut self, bytes: usize) -> &mut Self {
        self.ask_by(bytes, |mut client| client.write_all(&vec![1; bytes]).expect("send"))
    }

    /// The same, sent in the manner of `send`.
    pub fn ask_by(&mut self, bytes: usize, send: impl FnOnce(&TcpStream)) -> &mut Self {
        self.log.send(Role::Client, bytes, || send(self.pair.client()));
        self.log.take(Role::Server, bytes, || take(self.pair.server(), bytes));
        self
    }

    /// The client sends what the server does not take; returns once it is there.
    pub fn ask_in_vain(&mut self, bytes: usize) -> &mut Self {
        self.log.send_in_vain(Role::Client, bytes, || unread(self.pair.client(), self.pair.server(), bytes));
        self
    }

    /// The server sends what the client does not take; returns once it is there.
    pub fn answer_in_vain(&mut self, bytes: usize) -> &mut Self {
        self.log.send_in_vain(Role::Server, bytes, || unread(self.pair.server(), self.pair.client(), bytes));
        self
    }

    /// The server sends, and the client takes it.
    pub fn answer(&mut self, bytes: usize) -> &mut Self {
        self.answer_by(
            bytes,
            |mut server| server.write_all(&vec![2; bytes]).expect("send"),
            |client| take(client, bytes),
        )
    }

    /// The same, sent and taken in these manners.
    pub fn answer_by(
        &mut self,
        bytes: usize,
        send: impl FnOnce(&TcpStream),
        take: impl FnOnce(&TcpStream),
    ) -> &mut Self {
        self.log.send(Role::Server, bytes, || send(self.pair.server()));
        self.log.take(Role::Client, bytes, || take(self.pair.client()));
        self
    }

    /// Nothing passes for a while.
    pub fn rest(&mut self, for_ms: u64) -> &mut Self {
        thread::sleep(Duration::from_millis(for_ms));
        self
    }

    /// The client closes, then the server. Returns how long nothing had passed at the client and at the server.
    pub fn close(&mut self) -> [Range; 2] {
        let (closing, ()) = Span::of(|| self.pair.close_client());
        self.pair.release_server();
        [Role::Client, Role::Server].map(|role| self.log.idle(role, closing))
    }

    /// Its ends as that side sees them.
    pub fn ends(&self, role: Role) -> Ends {
        if role == Role::Client { self.pair.client_ends() } else { self.pair.server_ends() }
    }

    /// The exchanges as that side must be reported to have had them.
    pub fn expected(&self, role: Role) -> Vec<Expected> {
        self.log.expected(role)
    }

    /// Fails unless these are that side's exchanges.
    #[track_caller]
    pub fn assert_exchanges(&self, connection: &Connection, exchanges: &[Exchange]) {
        let role = connection.role.expect("the role is known");
        let expected = self.expected(role);
        assert_eq!(connection.exchanges, Some(expected.len() as u64), "{expected:#?} {connection:#?}");
        assert_eq!(exchanges.len(), expected.len(), "{expected:#?} {exchanges:#?}");
        for (index, (expected, exchange)) in expected.iter().zip(exchanges).enumerate() {
            assert_exchange(expected, exchange);
            assert_eq!(exchange.cold, Some(index == 0), "{exchange:#?}");
        }
        let longest = |bound: fn(&Range) -> f64| {
            expected.iter().skip(1).map(|exchange| bound(&exchange.idle_before)).fold(0.0, f64::max)
        };
        let longest = Range(longest(|range| range.0), longest(|range| range.1));
        if expected.len() > 1 {
            let max_idle =
                connection.max_idle_ms.unwrap_or_else(|| panic!("the longest gap is known: {connection:#?}"));
            assert!(longest.holds(max_idle), "max_idle_ms {max_idle}, but it was {longest:?}: {connection:#?}");
        }
    }
}

#[track_caller]
fn assert_exchange(expected: &Expected, exchange: &Exchange) {
    assert_eq!(exchange.greeting, expected.greeting, "{expected:#?} {exchange:#?}");
    let bytes = (exchange.bytes_out, exchange.bytes_in);
    assert_eq!(bytes, (Some(expected.bytes_out), Some(expected.bytes_in)), "{expected:#?} {exchange:#?}");
    for (what, range, ms) in [
        ("idle_before_ms", Some(expected.idle_before), exchange.idle_before_ms),
        ("first_byte_ms", expected.first_byte, exchange.first_byte_ms),
        ("duration_ms", expected.duration, exchange.duration_ms),
    ] {
        // A greeting follows upon nothing.
        if expected.greeting && what == "idle_before_ms" {
            continue;
        }
        match (range, ms) {
            (Some(range), Some(ms)) => assert!(range.holds(ms), "{what} {ms}, but it was {range:?}: {exchange:#?}"),
            (None, None) => {}
            (None, Some(_)) if what == "duration_ms" => {}
            _ => panic!("{what} is {ms:?}, but it was {range:?}: {exchange:#?}"),
        }
    }
    assert_eq!(exchange.http, None, "no head was looked at");
}

/// The rule of the exchanges, written down a second time: the side that asks begins one after it was answered.
fn exchanges(passed: &[Passed], role: Role, ready: Span) -> Vec<Expected> {
    let is_ask = |passed: &Passed| passed.sent == (role == Role::Client);
    let mut exchanges: Vec<Expected> = Vec::new();
    let (mut asked, mut last) = (ready, ready);
    let mut answering = true;
    for now in passed {
        if (is_ask(now) && answering) || exchanges.is_empty() {
            let greeting = !is_ask(now);
            asked = if greeting { ready } else { now.at };
            let (idle_before, none) = (last.until(now.at), (None, None));
            let (first_byte, duration) = none;
            let stale = now.stale;
            exchanges.push(Expected { greeting, stale, idle_before, first_byte, duration, bytes_out: 0, bytes_in: 0 });
        }
        answering = !is_ask(now);
        let present = exchanges.last_mut().expect("one has begun");
        if answering {
            present.first_byte.get_or_insert(asked.until(now.at));
            present.duration = Some(asked.until(now.at));
        }
        *if now.sent { &mut present.bytes_out } else { &mut present.bytes_in } += now.bytes;
        last = now.at;
    }
    exchanges
}

fn take(mut from: &TcpStream, bytes: usize) {
    from.read_exact(&mut vec![0; bytes]).expect("receive");
}

/// Sends all of these at once, as many parts of one message.
pub fn send_parts(mut stream: &TcpStream, parts: &[&[u8]]) {
    let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let sent = stream.write_vectored(&slices).expect("sendmsg");
    assert_eq!(sent, parts.iter().map(|part| part.len()).sum::<usize>(), "all at once");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sent or received, from and to which millisecond, how many bytes.
    fn passed(list: &[(bool, u64, u64, u64)]) -> Vec<Passed> {
        let span = |before, after| Span { before: before * 1_000_000, after: after * 1_000_000 };
        let item = |&(sent, before, after, bytes)| Passed { sent, at: span(before, after), bytes, stale: false };
        list.iter().map(item).collect()
    }

    const READY: Span = Span { before: 0, after: 2_000_000 };

    #[test]
    fn an_ask_after_an_answer_begins_an_exchange() {
        let log = passed(&[(true, 10, 11, 100), (true, 12, 13, 1), (false, 30, 32, 7), (true, 100, 101, 5)]);
        let [first, second] = &exchanges(&log, Role::Client, READY)[..] else { panic!("two") };
        assert_eq!((first.bytes_out, first.bytes_in), (101, 7));
        assert_eq!(first.idle_before, Range(8.0, 11.0));
        assert_eq!(first.first_byte, Some(Range(19.0, 22.0)));
        assert_eq!((second.bytes_out, second.bytes_in), (5, 0));
        assert_eq!(second.idle_before, Range(68.0, 71.0));
        assert_eq!((second.first_byte, second.duration), (None, None));
    }

    #[test]
    fn a_server_is_asked_by_what_it_receives_and_may_greet() {
        let log = passed(&[(true, 10, 11, 20), (false, 50, 51, 3), (true, 60, 61, 4)]);
        let [greeting, exchange] = &exchanges(&log, Role::Server, READY)[..] else { panic!("two") };
        assert!(greeting.greeting && !exchange.greeting);
        assert_eq!(greeting.first_byte, Some(Range(8.0, 11.0)));
        assert_eq!((exchange.bytes_out, exchange.bytes_in), (4, 3));
        assert_eq!(exchange.first_byte, Some(Range(9.0, 11.0)));
    }
}
