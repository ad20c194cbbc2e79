//! The HTTP heads of a connection: each waits for its exchange to end.

use std::rc::Rc;

use super::record::{HttpHead, HttpVersion};

/// A connection's heads. Most connections have none, so it is kept small.
#[derive(Default)]
pub(super) struct Http(Option<Box<Heads>>);

/// The heads of the present exchange and of the next: a request passes before the exchange that it begins is told.
#[derive(Default)]
struct Heads {
    exchanges: [Pair; 2],
    /// The connection's HTTP/2, if it is that: all that it carries is.
    http2: Option<Rc<HttpHead>>,
}

/// The heads of one exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pair {
    index: u32,
    /// Of the request.
    pub request: Option<Rc<HttpHead>>,
    /// Of the response.
    pub response: Option<Rc<HttpHead>>,
}

impl Http {
    /// Takes in a head of the exchange with this number, from the side that asks or from the one that answers. One that is not of
    /// that side says nothing.
    pub fn see(&mut self, index: u32, asks: bool, head: &Rc<HttpHead>) {
        let is_http2 = head.version == Some(HttpVersion::V2);
        let is_of_its_side = if asks { head.method.is_some() || is_http2 } else { head.status.is_some() };
        if !is_of_its_side {
            return;
        }
        let heads = self.0.get_or_insert_default();
        if is_http2 {
            heads.http2 = Some(Rc::clone(head));
        } else if let Some(pair) = heads.pair(index) {
            pair.see(asks, head);
        }
    }

    /// The number of the exchange that a head belongs to which was seen in a TLS library, when so many exchanges were answered:
    /// an answer's first byte passes before the library has it in the clear, an ask's after it.
    pub fn index_of(&self, asks: bool, answered: u32) -> u32 {
        let newest = self.0.as_deref().map(|heads| &heads.exchanges[1]).filter(|pair| pair.request.is_some());
        match (asks, newest) {
            (true, Some(newest)) if newest.response.is_some() => answered.max(newest.index.saturating_add(1)),
            (true, _) => answered,
            (false, Some(newest)) => newest.index,
            (false, None) => answered.saturating_sub(1),
        }
    }

    /// The heads of the exchange with this number.
    pub fn of(&self, index: u32) -> Pair {
        let Some(heads) = self.0.as_deref() else { return Pair::default() };
        if let Some(http2) = &heads.http2 {
            return Pair { index, request: Some(Rc::clone(http2)), response: None };
        }
        heads.exchanges.iter().rfind(|pair| pair.index == index).cloned().unwrap_or_default()
    }
}

impl Heads {
    /// The place for an exchange's heads; `None` if it is over.
    fn pair(&mut self, index: u32) -> Option<&mut Pair> {
        let [older, newer] = &mut self.exchanges;
        if index > newer.index {
            *older = std::mem::replace(newer, Pair { index, ..Pair::default() });
        }
        [newer, older].into_iter().find(|pair| pair.index == index)
    }
}

impl Pair {
    /// A request that follows another without an answer was sent ahead: the first is the exchange's. An interim response is
    /// followed by the one that counts.
    fn see(&mut self, asks: bool, head: &Rc<HttpHead>) {
        let place = if asks { &mut self.request } else { &mut self.response };
        let is_interim = |head: &Rc<HttpHead>| head.status.is_some_and(|status| status < 200);
        if place.as_ref().is_none_or(is_interim) {
            *place = Some(Rc::clone(head));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::HttpMethod, *};

    fn request(host: &str) -> Rc<HttpHead> {
        Rc::new(HttpHead { method: Some(HttpMethod::Get), host: Some(host.to_owned()), ..HttpHead::default() })
    }

    fn response(status: u16) -> Rc<HttpHead> {
        Rc::new(HttpHead { status: Some(status), ..HttpHead::default() })
    }

    fn told(http: &Http, index: u32) -> (Option<String>, Option<u16>) {
        let Pair { request, response, .. } = http.of(index);
        (request.and_then(|head| head.host.clone()), response.and_then(|head| head.status))
    }

    #[test]
    fn the_heads_of_the_present_exchange_and_the_next_are_kept_apart() {
        let mut http = Http::default();
        for index in 0..5 {
            http.see(index, true, &request(&index.to_string()));
            if index > 0 {
                assert_eq!(told(&http, index - 1), (Some((index - 1).to_string()), Some(200 + index as u16 - 1)));
            }
            http.see(index, false, &response(200 + index as u16));
            assert_eq!(told(&http, index), (Some(index.to_string()), Some(200 + index as u16)));
        }
        assert_eq!(told(&http, 2), (None, None), "it is over");
        http.see(2, true, &request("late"));
        assert_eq!(told(&http, 2), (None, None));
        assert_eq!(told(&http, 9), (None, None));
    }

    #[test]
    fn an_answer_without_a_request_is_told_as_such() {
        let mut http = Http::default();
        http.see(0, true, &request("a"));
        http.see(0, false, &response(100));
        http.see(1, false, &response(201));
        assert_eq!((told(&http, 0), told(&http, 1)), ((Some("a".to_owned()), Some(100)), (None, Some(201))));
    }

    #[test]
    fn the_first_request_counts_and_the_final_response() {
        let mut http = Http::default();
        http.see(0, true, &request("first"));
        http.see(0, true, &request("ahead"));
        for status in [100, 103, 404, 200] {
            http.see(0, false, &response(status));
        }
        assert_eq!(told(&http, 0), (Some("first".to_owned()), Some(404)));
    }

    #[test]
    fn a_head_of_the_other_side_says_nothing() {
        let mut http = Http::default();
        http.see(0, false, &request("a"));
        http.see(0, true, &response(200));
        assert_eq!(told(&http, 0), (None, None));
    }

    #[test]
    fn heads_from_a_library_are_put_to_the_exchange_that_they_begin_or_answer() {
        let mut http = Http::default();
        // The answer is told when its first byte has passed: after the request, and before its own head.
        for (answered, host, status) in [(0, "a", 200), (1, "b", 201), (1, "c", 202)] {
            http.see(http.index_of(true, answered), true, &request(host));
            http.see(http.index_of(false, answered + 1), false, &response(status));
        }
        let told: Vec<_> = (1..3).map(|index| told(&http, index)).collect();
        assert_eq!(told, [(Some("b".to_owned()), Some(201)), (Some("c".to_owned()), Some(202))]);
        assert_eq!((Http::default().index_of(false, 3), Http::default().index_of(true, 3)), (2, 3));
    }

    #[test]
    fn all_exchanges_of_http_2_are_of_that() {
        let mut http = Http::default();
        http.see(1, true, &Rc::new(HttpHead { version: Some(HttpVersion::V2), ..HttpHead::default() }));
        for index in [0, 1, 7] {
            let Pair { request, response, .. } = http.of(index);
            assert_eq!((request.and_then(|head| head.version), response), (Some(HttpVersion::V2), None));
        }
    }
}
