//! HTTP heads to facts: method, status, version, host, and what is said of keeping the connection. Nothing else of the bytes
//! goes further: no path, no query, no other header, no body.

use std::{mem::MaybeUninit, rc::Rc};

use httparse::{Header, ParserConfig, Request, Response, Status};
use tracer_ebpf::http::{HEAD_LEN, may_be_head};

use crate::track::record::{HttpHead, HttpMethod, HttpVersion, KeepAlive};

/// Longest host kept, in bytes, port included.
const MAX_HOST: usize = 255;
/// Most tokens of the Connection header that are kept, and the longest.
const MAX_TOKENS: usize = 8;
const MAX_TOKEN: usize = 64;
/// Most headers that so many bytes can hold: a name of one letter, a colon and a line end.
const MAX_HEADERS: usize = HEAD_LEN / 3;
/// Of the last facts, so many are kept for heads that say the same.
const RECENT: usize = 16;

/// How HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The interim status after which no other comes: the connection goes on with another protocol.
const SWITCHING_PROTOCOLS: u16 = 101;

/// Reads heads. Those that say the same share their facts.
#[derive(Default)]
pub struct Heads {
    recent: [Option<Rc<HttpHead>>; RECENT],
    /// The place of the oldest.
    oldest: usize,
}

impl Heads {
    /// What the head says that a message begins with. `None` if it begins with none.
    pub fn read(&mut self, message: &[u8]) -> Option<Rc<HttpHead>> {
        let head = read(message)?;
        if let Some(known) = self.recent.iter().flatten().find(|known| ***known == head) {
            return Some(Rc::clone(known));
        }
        let head = Rc::new(head);
        self.recent[self.oldest] = Some(Rc::clone(&head));
        self.oldest = (self.oldest + 1) % RECENT;
        Some(head)
    }
}

/// What the head says that a message begins with, of which the first bytes are at hand. Of a head that is cut, what its whole lines
/// say. `None` if it begins with none.
pub fn read(message: &[u8]) -> Option<HttpHead> {
    let message = &message[..message.len().min(HEAD_LEN)];
    if !may_be_head(*message.first_chunk()?) {
        return None;
    }
    if message.starts_with(&PREFACE[..message.len().min(PREFACE.len())]) {
        return Some(HttpHead { version: Some(HttpVersion::V2), ..HttpHead::default() });
    }
    if message.starts_with(b"HTTP/") { read_responses(message) } else { read_request(message) }
}

fn read_request(message: &[u8]) -> Option<HttpHead> {
    Some(read_lines(message, parse_request)?.0)
}

/// Reads a response and, if it is an interim one, those that follow it: what counts is the last.
fn read_responses(mut message: &[u8]) -> Option<HttpHead> {
    let (mut last, mut length) = read_lines(message, parse_response)?;
    while last.status.is_some_and(is_interim) {
        message = message.get(length..)?;
        match read_lines(message, parse_response) {
            Some(next) => (last, length) = next,
            None => break,
        }
    }
    Some(last)
}

/// A head, and its length if it is whole.
type Parsed = (HttpHead, Status<usize>);

/// Reads a head by `parse`; of one that is cut, the whole lines. Returns its length too.
fn read_lines(message: &[u8], parse: fn(&[u8]) -> Option<Parsed>) -> Option<(HttpHead, usize)> {
    match parse(message)? {
        (head, Status::Complete(length)) => Some((head, length)),
        (start, Status::Partial) => {
            let lines = message.iter().rposition(|byte| *byte == b'\n').map(|last| &message[..=last]);
            let of_lines = lines.and_then(|lines| parse(&[lines, b"\r\n"].concat()));
            Some((of_lines.map_or(start, |(head, _)| head), message.len()))
        }
    }
}

fn parse_request(message: &[u8]) -> Option<Parsed> {
    let mut room = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = Request::new(&mut []);
    let status = config().parse_request_with_uninit_headers(&mut request, message, &mut room).ok()?;
    let head = HttpHead {
        method: Some(method(request.method?)?),
        version: request.version.and_then(version),
        host: values(request.headers, "host").next().and_then(host),
        ..of_headers(request.headers)
    };
    Some((head, status))
}

fn parse_response(message: &[u8]) -> Option<Parsed> {
    let mut room = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = Response::new(&mut []);
    let status = config().parse_response_with_uninit_headers(&mut response, message, &mut room).ok()?;
    let head = HttpHead {
        status: Some(response.code.filter(|code| (100..=999).contains(code))?),
        version: response.version.and_then(version),
        ..of_headers(response.headers)
    };
    Some((head, status))
}

/// Whether a final response follows this one.
fn is_interim(status: u16) -> bool {
    (100..200).contains(&status) && status != SWITCHING_PROTOCOLS
}

/// A header that is wrong does not hide the others.
fn config() -> ParserConfig {
    let mut config = ParserConfig::default();
    config.ignore_invalid_headers_in_requests(true).ignore_invalid_headers_in_responses(true);
    config.allow_obsolete_multiline_headers_in_responses(true);
    config
}

fn method(text: &str) -> Option<HttpMethod> {
    HttpMethod::ALL.iter().copied().find(|method| method.as_str() == text)
}

fn version(minor: u8) -> Option<HttpVersion> {
    match minor {
        0 => Some(HttpVersion::V1_0),
        1 => Some(HttpVersion::V1_1),
        _ => None,
    }
}

/// What both directions say in the same headers.
fn of_headers(headers: &[Header]) -> HttpHead {
    let connection = values(headers, "connection").flat_map(elements).filter_map(token).take(MAX_TOKENS).collect();
    HttpHead { connection, keep_alive: keep_alive(headers), ..HttpHead::default() }
}

/// The values of all headers of that name.
fn values<'h>(headers: &'h [Header], name: &'h str) -> impl Iterator<Item = &'h str> {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.filter_map(|header| str::from_utf8(header.value).ok())
}

/// The elements of a list.
fn elements(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim_ascii).filter(|element| !element.is_empty())
}

/// A token (RFC 9110 5.6.2) in lower case, unless it is too long to be one that means something.
fn token(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (text.len() <= MAX_TOKEN && text.bytes().all(allowed)).then(|| text.to_ascii_lowercase())
}

/// A host name or address with a port or without; `None` if it is anything else.
fn host(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    ((1..=MAX_HOST).contains(&text.len()) && text.bytes().all(allowed)).then(|| text.to_owned())
}

/// The numbers of the Keep-Alive header. `None` without one, or if it says neither.
fn keep_alive(headers: &[Header]) -> Option<KeepAlive> {
    let mut said = KeepAlive::default();
    for (name, value) in values(headers, "keep-alive").flat_map(elements).filter_map(|element| element.split_once('='))
    {
        let number = value.trim_ascii().trim_matches('"').parse().ok();
        match name.trim_ascii() {
            name if name.eq_ignore_ascii_case("timeout") => said.timeout_s = said.timeout_s.or(number),
            name if name.eq_ignore_ascii_case("max") => said.max = said.max.or(number),
            _ => {}
        }
    }
    (said != KeepAlive::default()).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &str) -> HttpHead {
        read(text.as_bytes()).unwrap_or_else(|| panic!("no head: {text:?}"))
    }

    fn tokens(tokens: &[&str]) -> Vec<String> {
        tokens.iter().copied().map(str::to_owned).collect()
    }

    #[test]
    fn a_request_tells_method_version_host_and_connection() {
        let text = "GET /a?b=c HTTP/1.1\r\nHost: Example.org:8080\r\nAccept: */*\r\nConnection: Keep-Alive, Upgrade\r\n\r\nbody";
        let expected = HttpHead {
            method: Some(HttpMethod::Get),
            version: Some(HttpVersion::V1_1),
            host: Some("Example.org:8080".to_owned()),
            connection: tokens(&["keep-alive", "upgrade"]),
            ..HttpHead::default()
        };
        assert_eq!(head(text), expected);
    }

    #[test]
    fn every_method_is_read_and_no_other() {
        for method in HttpMethod::ALL {
            assert_eq!(head(&format!("{} / HTTP/1.0\r\n\r\n", method.as_str())).method, Some(*method));
        }
        for text in [
            "BREW /pot HTTP/1.1\r\n\r\n",
            "get / HTTP/1.1\r\n\r\n",
            "GET / HTTP/3.0\r\n\r\n",
            "GET key\r\n\r\n",
            "GET",
            "",
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_response_tells_status_version_connection_and_keep_alive() {
        let text = "HTTP/1.0 404 Not Found\r\nConnection: close\r\nConnection: X-Other\r\nKeep-Alive: timeout=5, max=\"100\"\r\n\r\n";
        let expected = HttpHead {
            status: Some(404),
            version: Some(HttpVersion::V1_0),
            connection: tokens(&["close", "x-other"]),
            keep_alive: Some(KeepAlive { timeout_s: Some(5), max: Some(100) }),
            ..HttpHead::default()
        };
        assert_eq!(head(text), expected);
        assert!(head(text).has_token("close"));
    }

    #[test]
    fn a_keep_alive_header_without_numbers_says_nothing() {
        for value in ["", "timeout", "timeout=soon", "timeout=-1", "timeout=4294967296", "colour=5"] {
            assert_eq!(head(&format!("HTTP/1.1 200 OK\r\nKeep-Alive: {value}\r\n\r\n")).keep_alive, None, "{value:?}");
        }
    }

    #[test]
    fn of_interim_responses_and_the_final_one_the_final_one_counts() {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let proceed = "HTTP/1.1 100 Continue\r\n\r\n";
        let last = "HTTP/1.1 201 Created\r\nConnection: close\r\n\r\n";
        assert_eq!(head(&[interim, proceed, last].concat()), head(last));
        assert_eq!(head(&[interim, proceed].concat()).status, Some(100));
        assert_eq!(head(&[proceed, "HTTP/1.1 2"].concat()).status, Some(100));
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n";
        assert_eq!(head(&[switch, last].concat()).status, Some(101));
    }

    #[test]
    fn of_requests_that_come_together_the_first_counts() {
        let text = "POST /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: b\r\n\r\n";
        assert_eq!((head(text).method, head(text).host.as_deref()), (Some(HttpMethod::Post), Some("a")));
    }

    #[test]
    fn a_head_that_is_cut_tells_what_its_whole_lines_say() {
        let text = "GET /a HTTP/1.1\r\nConnection: close\r\nHost: example.org\r\nCookie: a=b";
        assert_eq!(head(text).host.as_deref(), Some("example.org"));
        // A name that is cut is another one.
        let cut = head(&text[..text.find(".org").expect("it is there")]);
        assert_eq!((cut.host.as_deref(), cut.connection), (None, tokens(&["close"])));
        let first_line = head("GET /a-long-path");
        assert_eq!((first_line.method, first_line.version), (Some(HttpMethod::Get), None));
        assert_eq!(head("HTTP/1.1 200").status, Some(200));
        assert_eq!(head("HTTP/1.1 200 OK\r\nConnection: close\r\n\r").connection, tokens(&["close"]));
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(HEAD_LEN));
        assert_eq!((head(&long).method, head(&long).host), (Some(HttpMethod::Get), None));
    }

    #[test]
    fn http_2_is_known_by_its_preface() {
        let http2 = HttpHead { version: Some(HttpVersion::V2), ..HttpHead::default() };
        assert_eq!(read(&[PREFACE, b"\0\0\x12\x04\0"].concat()), Some(http2.clone()));
        assert_eq!(read(&PREFACE[..8]), Some(http2));
        assert_eq!(read(b"PRI * HTTP/1.1\r\n\r\n"), None);
    }

    #[test]
    fn a_host_that_is_none_and_tokens_that_are_none_are_not_kept() {
        let of = |name: &str, value: &str| head(&format!("GET / HTTP/1.1\r\n{name}: {value}\r\n\r\n"));
        for host in ["user:secret@example.org", "a b", "a/b", "", "caf\u{e9}", &"x".repeat(MAX_HOST + 1)] {
            assert_eq!(of("Host", host).host, None, "{host:?}");
        }
        for host in ["[::1]:80", "10.0.0.1", &"x".repeat(MAX_HOST)] {
            assert_eq!(of("Host", host).host.as_deref(), Some(host));
        }
        for token in ["a b", "\"close\"", "a=b", &"x".repeat(MAX_TOKEN + 1)] {
            assert_eq!(of("Connection", token).connection, tokens(&[]), "{token:?}");
        }
        let many = ["close"; MAX_TOKENS + 1].join(", ");
        assert_eq!(of("Connection", &many).connection.len(), MAX_TOKENS);
    }

    #[test]
    fn a_header_that_is_wrong_does_not_hide_the_others() {
        let text = "GET / HTTP/1.1\r\nWrong header: a\r\n folded\r\nHost: a\r\n\r\n";
        assert_eq!(head(text).host.as_deref(), Some("a"));
        let text = "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nConnection: close\r\n\r\n";
        assert_eq!(head(text).connection, tokens(&["close"]));
    }

    #[test]
    fn as_many_headers_as_there_is_room_for_are_read() {
        let mut text = "GET / HTTP/1.1\n".to_owned();
        while text.len() + 3 + 8 <= HEAD_LEN {
            text.push_str("a:\n");
        }
        text.push_str("Host: b\n");
        assert_eq!(head(&text).host.as_deref(), Some("b"));
    }

    #[test]
    fn heads_that_say_the_same_share_their_facts() {
        let mut heads = Heads::default();
        let first = heads.read(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").expect("a head");
        let other = heads.read(b"GET /b HTTP/1.1\r\nHost: b\r\n\r\n").expect("a head");
        let again = heads.read(b"GET /c HTTP/1.1\r\nCookie: a=b\r\nHost: a\r\n\r\n").expect("a head");
        assert!(Rc::ptr_eq(&first, &again) && first != other);
        for number in 0..2 * RECENT {
            heads.read(format!("GET / HTTP/1.1\r\nHost: {number}\r\n\r\n").as_bytes()).expect("a head");
        }
        assert_eq!(heads.recent.iter().flatten().count(), RECENT);
    }

    /// Pieces of heads, and what is none.
    fn nearly_a_head() -> impl Strategy<Value = Vec<u8>> {
        const STARTS: [&str; 5] =
            ["GET / HTTP/1.1\r\n", "POST ", "HTTP/1.1 200 OK\r\n", "HTTP/1.0 100\r\n\r\n", "PRI * HTTP/2.0\r\n"];
        const PARTS: [&str; 10] = [
            "Host: a\r\n",
            "Connection: close,",
            "Keep-Alive: timeout=",
            "\r\n",
            "\n",
            "\n\r",
            ": ",
            " ",
            "HTTP/1.1 ",
            "1",
        ];
        let part = prop_oneof![
            proptest::sample::select(&PARTS[..]).prop_map(|part| part.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..9),
        ];
        (proptest::sample::select(&STARTS[..]), prop::collection::vec(part, 0..40))
            .prop_map(|(start, parts)| [start.as_bytes(), &parts.concat()].concat())
    }

    fn is_bounded(head: &HttpHead) -> bool {
        let printable = |text: &String| text.bytes().all(|byte| byte.is_ascii_graphic());
        head.host.iter().all(|host| host.len() <= MAX_HOST && printable(host))
            && head.connection.len() <= MAX_TOKENS
            && head.connection.iter().all(|token| token.len() <= MAX_TOKEN && printable(token))
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_bounded_head_or_none(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
            prop_assert!(read(&bytes).is_none_or(|head| is_bounded(&head)));
        }

        #[test]
        fn nearly_heads_are_bounded_heads_or_none(bytes in nearly_a_head()) {
            prop_assert!(read(&bytes).is_none_or(|head| is_bounded(&head)));
        }

        /// Wherever the message is cut, nothing of what is not to be kept is in the facts.
        #[test]
        fn path_query_other_headers_and_body_never_survive(
            response in any::<bool>(),
            before in 0..4usize,
            folded in any::<bool>(),
            cut in 0..1200usize,
        ) {
            const SECRET: &str = "sEcReT";
            let start = if response {
                format!("HTTP/1.1 200 {SECRET}\r\n")
            } else {
                format!("POST /{SECRET}?{SECRET}={SECRET}#{SECRET} HTTP/1.1\r\n")
            };
            let mut headers = vec![
                format!("Cookie: {SECRET}={SECRET}\r\n"),
                format!("Authorization: Basic {SECRET}\r\n"),
                format!("X-{SECRET}: a\r\n"),
                if folded { format!("X-Folded: a\r\n {SECRET}\r\n") } else { format!("{SECRET} {SECRET}\r\n") },
            ];
            headers.insert(before, "Host: example.org\r\nConnection: close\r\nKeep-Alive: timeout=5\r\n".to_owned());
            let text = format!("{start}{}\r\n{SECRET}", headers.concat());
            let said = format!("{:?}", read(&text.as_bytes()[..cut.min(text.len())]));
            prop_assert!(!said.to_lowercase().contains(&SECRET.to_lowercase()), "{}", said);
        }
    }
}
