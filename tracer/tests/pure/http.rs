//! HTTP heads, from outside: which exchange has which, and what the outputs and a recording say.

use std::io::Cursor;

use crate::support::*;
use tracer::{
    output::{
        Output,
        ndjson::Ndjson,
        recording::{BYTE_ORDER, Header, Reader, Writer},
        text::Text,
    },
    stage::{event::Event, http},
    track::record::{Exchange, HttpHead, HttpMethod, HttpVersion, Record},
};

/// Method and status of each exchange.
fn told(records: &[Record]) -> Vec<(Option<HttpMethod>, Option<u16>)> {
    let told = |exchange: &&Exchange| {
        let Exchange { request, response, .. } = exchange;
        (request.as_ref().and_then(|head| head.method), response.as_ref().and_then(|head| head.status))
    };
    exchanges(records).iter().map(told).collect()
}

/// A client that asks three times, the second time without a head, and is not answered in the end.
fn client() -> Vec<Event> {
    let mut client = Traffic::new(opened(7, 10 * S));
    client.sends(11 * S, 100).head(11 * S, true, request(HttpMethod::Post));
    client.receives(12 * S, 10).head(12 * S, false, response(100, false));
    client.sends(13 * S, 1_000).receives(14 * S, 500).head(14 * S, false, response(201, false));
    client.sends(15 * S, 100).head(15 * S, true, request(HttpMethod::Get));
    client.closes(20 * S);
    client.events
}

#[test]
fn each_exchange_has_the_heads_of_its_own_messages() {
    let expected = [(Some(HttpMethod::Post), Some(100)), (None, Some(201)), (Some(HttpMethod::Get), None)];
    assert_eq!(told(&records(client())), expected);
}

#[test]
fn a_server_receives_requests_and_sends_responses() {
    let mut server = Traffic::new(accepted(7, 10 * S));
    server.receives(11 * S, 100).head(11 * S, false, request(HttpMethod::Get));
    server.sends(12 * S, 10).head(12 * S, true, response(200, true)).closes(13 * S);
    let records = records(server.events);
    assert_eq!(told(&records), [(Some(HttpMethod::Get), Some(200))]);
    let response = exchanges(&records)[0].response.as_ref().expect("a response");
    assert!(response.has_token("close"));
}

#[test]
fn a_head_from_the_wrong_side_is_none() {
    let mut client = Traffic::new(opened(7, 10 * S));
    client.sends(11 * S, 100).head(11 * S, true, response(200, false));
    client.receives(12 * S, 10).head(12 * S, false, request(HttpMethod::Get)).closes(13 * S);
    assert_eq!(told(&records(client.events)), [(None, None)]);
}

#[test]
fn the_heads_of_a_connection_older_than_the_trace_wait_until_it_is_known() {
    let mut client = Traffic::preexisting(7);
    client.sends(11 * S, 100).head(11 * S, true, request(HttpMethod::Put));
    client.receives(12 * S, 10).head(12 * S, false, response(204, false)).closes(13 * S);
    assert_eq!(told(&records(client.events)), [(Some(HttpMethod::Put), Some(204))]);
}

#[test]
fn who_wants_no_exchanges_keeps_no_heads() {
    let mut correlator = tracer::track::Correlator::new(CLOCK, LIMITS);
    correlator.put_out_exchanges(false);
    let mut records = Vec::new();
    for event in &client() {
        correlator.apply(event, &mut |record| records.push(record.clone()));
    }
    assert!(exchanges(&records).is_empty() && connections(&records).len() == 1);
}

fn written(mut output: impl Output, records: &[Record]) -> String {
    let mut out = Vec::new();
    for record in records {
        output.record(record, &mut out);
    }
    String::from_utf8(out).expect("text")
}

#[test]
fn people_see_method_and_status_and_that_a_close_was_asked_for() {
    let mut client = Traffic::new(opened(7, 10 * S));
    client.sends(11 * S, 100).head(11 * S, true, request(HttpMethod::Get));
    client.receives(12 * S, 10).head(12 * S, false, response(200, true));
    let http2 = HttpHead { version: Some(HttpVersion::V2), ..HttpHead::default() };
    let mut bursts = Traffic::new(opened(8, 10 * S));
    bursts.sends(11 * S, 100).head(11 * S, true, http2).receives(12 * S, 10).sends(13 * S, 10);
    let text =
        written(Text::new(false, true), &records(client.events.into_iter().chain(bursts.events).collect::<Vec<_>>()));
    let lines: Vec<_> = text.lines().filter(|line| line.contains("cold") || line.contains("warm")).collect();
    assert!(lines[0].contains("  GET 200, close asked"), "{text}");
    assert!(lines[1].contains("  HTTP/2"), "{text}");
    let quiet = written(Text::new(false, false), &records(client_and_stop()));
    assert!(!quiet.contains("POST"), "{quiet}");
}

fn client_and_stop() -> Vec<Event> {
    client().into_iter().chain([stop(30 * S)]).collect()
}

#[test]
fn neither_outputs_nor_recordings_hold_more_of_a_head_than_its_facts() {
    const SECRET: &str = "sEcReT";
    let ask = format!(
        "POST /{SECRET}?{SECRET}={SECRET} HTTP/1.1\r\nHost: example.org\r\nCookie: {SECRET}\r\nX-{SECRET}: a\r\n\r\n{SECRET}"
    );
    let answer = format!("HTTP/1.1 200 {SECRET}\r\nSet-Cookie: {SECRET}\r\nConnection: close\r\n\r\n{SECRET}");
    let read = |text: &str| http::read(text.as_bytes()).expect("a head");
    let mut client = Traffic::new(opened(7, 10 * S));
    client.sends(11 * S, 100).head(11 * S, true, read(&ask));
    client.receives(12 * S, 10).head(12 * S, false, read(&answer)).closes(13 * S);

    let mut writer = Writer::new(Vec::new(), &header()).expect("memory");
    for event in &client.events {
        writer.push(event).expect("memory");
    }
    writer.flush().expect("memory");
    let recording = writer.into_inner();
    let read_back: Vec<Event> = Reader::open(Cursor::new(&recording)).expect("a recording").flatten().collect();
    assert_eq!(read_back, client.events);

    let records = records(read_back);
    assert_eq!(told(&records), [(Some(HttpMethod::Post), Some(200))]);
    let outputs = [
        written(Text::new(false, false), &records),
        written(Text::new(false, true), &records),
        written(Ndjson::new(true), &records),
        String::from_utf8_lossy(&recording).into_owned(),
    ];
    for output in outputs {
        assert!(!output.to_lowercase().contains(&SECRET.to_lowercase()), "{output}");
    }
}

fn header() -> Header {
    Header {
        tool_version: "0.1.0".into(),
        created_at: "2026-11-21T03:14:33Z".into(),
        began_at: CLOCK.began_at,
        kernel: "6.12.0".into(),
        host: "host".into(),
        boot_to_wall_ns: CLOCK.boot_to_wall_ns,
        tick_ns: CLOCK.tick_ns,
        offsets: Default::default(),
        byte_order: BYTE_ORDER.into(),
    }
}
