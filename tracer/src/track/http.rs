//! The HTTP heads of a connection: each waits for its exchange to end.

use std::rc::Rc;

use super::{
    exchange::Turn,
    record::{HttpHead, HttpVersion},
    shared::Shared,
};

/// A connection's heads. Most connections have none, and those that have mostly have what others have too.
#[derive(Default)]
pub(super) struct Http(Option<Rc<Heads>>);

/// The heads of the newest exchange that has any, and of the one before it: a request passes before the exchange that it begins
/// is told, and so before the exchange before it is over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Heads {
    newest: Pair,
    before: Pair,
}

/// The heads of one exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    /// Of the request.
    pub request: Option<Rc<HttpHead>>,
    /// Of the response.
    pub response: Option<Rc<HttpHead>>,
}

impl Http {
    /// Takes in a head of the exchange with this number, from the side that asks or from the one that answers. One that is not of
    /// that side says nothing, nor does one of an exchange that is over.
    pub fn see(&mut self, turn: &mut Turn, index: u32, asks: bool, head: &Rc<HttpHead>, shared: &mut Shared<Heads>) {
        let is_of_its_side = if asks { head.method.is_some() || is_http2(head) } else { head.status.is_some() };
        if !is_of_its_side {
            return;
        }
        let known = self.0.as_deref();
        let mut heads = match known.zip(turn.newest_heads()) {
            Some((known, newest)) if index == newest => known.clone(),
            Some((known, newest)) if index.checked_sub(1) == Some(newest) => {
                Heads { newest: Pair::default(), before: known.newest.clone() }
            }
            Some((_, newest)) if index < newest => return,
            _ => Heads::default(),
        };
        heads.newest.see(asks, head);
        if !asks && turn.count() > index {
            // This one has been told, and with that the one before it. A server's library has the answer before that.
            heads.before = Pair::default();
        }
        if turn.note_heads(index) && known != Some(&heads) {
            self.0 = Some(shared.share(heads));
        }
    }

    /// The number of the exchange that a head belongs to which was seen in a TLS library, on its way out (`sent`) or in. An answer that comes
    /// in has had its first byte told before the library has it in the clear; all others are in the clear before that.
    pub fn index_of(&self, turn: &Turn, asks: bool, sent: bool) -> u32 {
        let count = turn.count();
        let Some((heads, newest)) = self.0.as_deref().zip(turn.newest_heads()) else {
            return if asks || sent { count } else { count.saturating_sub(1) };
        };
        let is_answered = heads.newest.response.as_ref().is_some_and(|head| !is_interim(head));
        match (asks, sent) {
            (true, _) | (false, true) if is_answered => count.max(newest.saturating_add(1)),
            (true, _) => count,
            (false, true) => count.max(newest),
            (false, false) => count.saturating_sub(1).max(newest),
        }
    }

    /// The heads of the exchange with this number.
    pub fn of(&self, turn: &Turn, index: u32) -> Pair {
        let Some(heads) = self.0.as_deref() else { return Pair::default() };
        if heads.newest.request.as_deref().is_some_and(is_http2) {
            // All that such a connection carries is that.
            return heads.newest.clone();
        }
        match turn.newest_heads() {
            Some(newest) if newest == index => heads.newest.clone(),
            Some(newest) if newest.checked_sub(1) == Some(index) => heads.before.clone(),
            _ => Pair::default(),
        }
    }
}

impl Pair {
    /// A request that follows another without an answer was sent ahead: the first is the exchange's. An interim response is
    /// followed by the one that counts.
    fn see(&mut self, asks: bool, head: &Rc<HttpHead>) {
        let place = if asks { &mut self.request } else { &mut self.response };
        if place.as_ref().is_none_or(|head| is_interim(head)) {
            *place = Some(Rc::clone(head));
        }
    }
}

/// Whether another answer follows this one.
fn is_interim(head: &HttpHead) -> bool {
    head.status.is_some_and(|status| status < 200)
}

fn is_http2(head: &HttpHead) -> bool {
    head.version == Some(HttpVersion::V2)
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::ExchangeRecord;
    use zerocopy::FromZeros;

    use super::{super::record::HttpMethod, *};

    fn request(host: &str) -> Rc<HttpHead> {
        Rc::new(HttpHead { method: Some(HttpMethod::Get), host: Some(host.to_owned()), ..HttpHead::default() })
    }

    fn response(status: u16) -> Rc<HttpHead> {
        Rc::new(HttpHead { status: Some(status), ..HttpHead::default() })
    }

    /// A connection's heads, and its present exchange.
    #[derive(Default)]
    struct Connection {
        turn: Turn,
        http: Http,
        shared: Shared<Heads>,
    }

    impl Connection {
        fn asks(&mut self, index: u32, host: &str) {
            self.http.see(&mut self.turn, index, true, &request(host), &mut self.shared);
        }

        /// Begins to answer, with a head or without.
        fn answers(&mut self, index: u32, status: Option<u16>) {
            let record = ExchangeRecord { index, ..ExchangeRecord::new_zeroed() };
            self.turn.answered(&record, |_, _| ());
            if let Some(status) = status {
                self.http.see(&mut self.turn, index, false, &response(status), &mut self.shared);
            }
        }

        fn told(&self, index: u32) -> (Option<String>, Option<u16>) {
            let Pair { request, response } = self.http.of(&self.turn, index);
            (request.and_then(|head| head.host.clone()), response.and_then(|head| head.status))
        }
    }

    #[test]
    fn the_heads_of_the_present_exchange_and_the_next_are_kept_apart() {
        let mut connection = Connection::default();
        let expected = |index: u32| (Some(index.to_string()), Some(200 + index as u16));
        for index in 0..300 {
            connection.asks(index, &index.to_string());
            if index > 0 {
                assert_eq!(connection.told(index - 1), expected(index - 1));
            }
            connection.answers(index, None);
            if index > 0 {
                assert_eq!(connection.told(index - 1), expected(index - 1), "it is reported now");
            }
            connection.answers(index, Some(200 + index as u16));
            assert_eq!(connection.told(index), expected(index));
        }
        connection.asks(200, "late");
        assert_eq!((connection.told(200), connection.told(400)), ((None, None), (None, None)));
    }

    #[test]
    fn an_answer_without_a_request_is_told_as_such() {
        let mut connection = Connection::default();
        connection.asks(0, "a");
        connection.answers(0, Some(100));
        assert_eq!(connection.told(0), (Some("a".to_owned()), Some(100)));
        connection.answers(1, Some(201));
        assert_eq!(connection.told(1), (None, Some(201)));
    }

    #[test]
    fn the_first_request_counts_and_the_final_response() {
        let mut connection = Connection::default();
        connection.asks(0, "first");
        connection.asks(0, "ahead");
        for status in [100, 103, 404, 200] {
            connection.answers(0, Some(status));
        }
        assert_eq!(connection.told(0), (Some("first".to_owned()), Some(404)));
    }

    #[test]
    fn heads_are_of_no_exchange_that_follows_without_any() {
        let mut connection = Connection::default();
        connection.asks(0, "a");
        connection.answers(0, Some(200));
        for index in 1..600 {
            connection.answers(index, None);
            assert_eq!(connection.told(index), (None, None), "{index}");
        }
        connection.asks(600, "b");
        assert_eq!((connection.told(600).0.as_deref(), connection.told(599).0), (Some("b"), None));
        // Many events were lost.
        connection.asks(5_000, "c");
        assert_eq!(connection.told(5_000), (None, None), "too far from what is known");
        connection.answers(5_000, Some(204));
        assert_eq!(connection.told(5_000), (None, Some(204)));
    }

    #[test]
    fn a_head_of_the_other_side_says_nothing() {
        let Connection { mut turn, mut http, mut shared } = Connection::default();
        http.see(&mut turn, 0, false, &request("a"), &mut shared);
        http.see(&mut turn, 0, true, &response(200), &mut shared);
        assert_eq!(http.of(&turn, 0), Pair::default());
    }

    #[test]
    fn heads_from_a_clients_library_are_put_to_the_exchange_that_they_begin_or_answer() {
        let mut connection = Connection::default();
        let index = |connection: &Connection, asks| connection.http.index_of(&connection.turn, asks, asks);
        for (number, host) in (0..).zip(["a", "b", "c"]) {
            assert_eq!(index(&connection, true), number);
            connection.asks(number, host);
            connection.answers(number, None);
            assert_eq!(index(&connection, false), number);
            connection.answers(number, Some(200));
        }
        connection.answers(3, None);
        assert_eq!(index(&Connection { turn: connection.turn, ..Connection::default() }, false), 3);
    }

    #[test]
    fn heads_from_a_servers_library_are_put_to_the_exchange_that_they_begin_or_answer_also_where_no_request_is_seen() {
        for sees_requests in [true, false] {
            let mut connection = Connection::default();
            let index = |connection: &Connection, asks| connection.http.index_of(&connection.turn, asks, !asks);
            for number in 0..4 {
                if sees_requests {
                    assert_eq!(index(&connection, true), number);
                    connection.asks(number, "a");
                }
                // It hands over its answer before its first byte has passed.
                assert_eq!(index(&connection, false), number);
                connection.http.see(&mut connection.turn, number, false, &response(200), &mut connection.shared);
                connection.answers(number, None);
            }
        }
    }

    #[test]
    fn heads_stay_until_their_exchange_is_told_though_the_next_answer_is_known_before() {
        let mut connection = Connection::default();
        for (number, host) in (0..).zip(["a", "b", "c"]) {
            connection.asks(number, host);
            connection.http.see(&mut connection.turn, number, false, &response(200), &mut connection.shared);
            if number > 0 {
                assert_eq!(connection.told(number - 1).1, Some(200), "it is told with the next");
            }
            connection.answers(number, None);
        }
    }

    #[test]
    fn a_request_is_of_the_next_exchange_though_the_answer_before_it_is_not_told_yet() {
        let mut connection = Connection::default();
        connection.asks(0, "a");
        // What is as short as an alert is told when something follows it.
        connection.http.see(&mut connection.turn, 0, false, &response(204), &mut connection.shared);
        assert_eq!(connection.http.index_of(&connection.turn, true, true), 1);
    }

    #[test]
    fn all_exchanges_of_http_2_are_of_that() {
        let Connection { mut turn, mut http, mut shared } = Connection::default();
        let preface = Rc::new(HttpHead { version: Some(HttpVersion::V2), ..HttpHead::default() });
        http.see(&mut turn, 1, true, &preface, &mut shared);
        for index in [0, 1, 7, 1_000] {
            let Pair { request, response } = http.of(&turn, index);
            assert_eq!((request.and_then(|head| head.version), response), (Some(HttpVersion::V2), None));
        }
    }

    #[test]
    fn connections_with_the_same_heads_share_them() {
        let (mut one, mut other) = (Connection::default(), Connection::default());
        let mut shared = Shared::default();
        for connection in [&mut one, &mut other] {
            connection.http.see(&mut connection.turn, 0, true, &request("a"), &mut shared);
        }
        assert!(Rc::ptr_eq(one.http.0.as_ref().expect("heads"), other.http.0.as_ref().expect("heads")));
    }
}
