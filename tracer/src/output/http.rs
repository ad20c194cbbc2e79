//! What an exchange's HTTP heads say together, for people and as an object.

use super::{
    escape::json_string,
    line::Put as _,
    ndjson::{array, optional},
    number::decimal,
};
use crate::track::record::{Exchange, HttpHead, HttpVersion, KeepAlive};

/// The heads of an exchange that has any.
pub(super) struct Http<'e> {
    request: Option<&'e HttpHead>,
    response: Option<&'e HttpHead>,
}

impl<'e> Http<'e> {
    /// `None` if no head was seen.
    #[inline]
    pub fn of(exchange: &'e Exchange) -> Option<Self> {
        let Exchange { request, response, .. } = exchange;
        if request.is_none() && response.is_none() {
            return None;
        }
        Some(Self { request: request.as_deref(), response: response.as_deref() })
    }

    /// What the first says that says anything.
    fn told<T>(heads: [Option<&'e HttpHead>; 2], field: impl Fn(&'e HttpHead) -> Option<T>) -> Option<T> {
        heads.into_iter().flatten().find_map(field)
    }

    /// The response's, or the request's while there is none.
    fn version(&self) -> Option<&'static str> {
        Self::told([self.response, self.request], |head| head.version).map(|version| match version {
            HttpVersion::V1_0 => "1.0",
            HttpVersion::V1_1 => "1.1",
            HttpVersion::V2 => "2",
        })
    }

    fn keep_alive(&self) -> Option<KeepAlive> {
        Self::told([self.response, self.request], |head| head.keep_alive)
    }

    /// The tokens of both Connection headers, each once.
    fn tokens(&self) -> Vec<&'e str> {
        let mut tokens: Vec<&str> = Vec::new();
        for token in [self.request, self.response].into_iter().flatten().flat_map(|head| &head.connection) {
            if !tokens.contains(&token.as_str()) {
                tokens.push(token);
            }
        }
        tokens
    }

    /// Whose Connection header asks to close.
    fn close_asked(&self) -> Option<&'static str> {
        let asks = |head: Option<&HttpHead>| head.is_some_and(HttpHead::asks_to_close);
        match (asks(self.request), asks(self.response)) {
            (false, false) => None,
            (true, false) => Some("request"),
            (false, true) => Some("response"),
            (true, true) => Some("both"),
        }
    }

    /// `GET 200`, `GET 200, close asked`, `HTTP/2`
    pub fn words(&self) -> String {
        let method = self.request.and_then(|head| head.method).map(|method| method.as_str().to_owned());
        let status = self.response.and_then(|head| head.status).map(|status| status.to_string());
        let mut words = [method, status].into_iter().flatten().collect::<Vec<_>>().join(" ");
        if words.is_empty() {
            words = format!("HTTP/{}", self.version().unwrap_or("?"));
        }
        if self.close_asked().is_some() {
            words.push_str(", close asked");
        }
        words
    }

    /// The object.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { request, response } = self;
        out.literal(br#"{"method":"#);
        optional(request.and_then(|head| head.method), out, |method, out| json_string(method.as_str(), out));
        out.literal(br#","status":"#);
        optional(response.and_then(|head| head.status), out, decimal);
        out.literal(br#","version":"#);
        optional(self.version(), out, json_string);
        out.literal(br#","host":"#);
        optional(request.and_then(|head| head.host.as_deref()), out, json_string);
        out.literal(br#","connection_header":"#);
        array(&self.tokens(), out, |token, out| json_string(token, out));
        out.literal(br#","close_asked":"#);
        optional(self.close_asked(), out, json_string);
        out.literal(br#","keep_alive":"#);
        optional(self.keep_alive(), out, |KeepAlive { timeout_s, max }, out| {
            out.literal(br#"{"timeout_s":"#);
            optional(timeout_s, out, decimal);
            out.literal(br#","max":"#);
            optional(max, out, decimal);
            out.literal(b"}");
        });
        out.literal(b"}");
    }
}
