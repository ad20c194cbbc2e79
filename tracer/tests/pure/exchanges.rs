//! Exchanges and TLS, from outside: what comes out of which events.

use std::collections::HashMap;

use crate::support::*;
use proptest::{prelude::*, sample::Index};
use tracer::{
    stage::event::{Event, OpenSocket, UserEvent},
    track::{
        Correlator, Limits,
        record::{Bound, Closer, Exchange, Hello, How, HttpMethod, Overhead, Parts, Record, TlsFailed, TlsFailure},
    },
};
use tracer_ebpf::{
    DetailedRecord, ExchangeRecord, SocketRecord, TlsRecord,
    exchange::Exchanges,
    flag, kind,
    tls::handshake::{self, Handshake, phase},
};
use zerocopy::{FromBytes, FromZeros};

/// Index, idle before, first byte, duration, bytes out, bytes in.
type Figures = (u32, Option<u64>, Option<u64>, Option<u64>, Option<u64>, Option<u64>);

fn figures(exchange: &Exchange) -> Figures {
    let Exchange { index, idle_before, first_byte, duration, bytes_out, bytes_in, .. } = *exchange;
    (index, idle_before, first_byte, duration, bytes_out, bytes_in)
}

/// A keep-alive client's: three exchanges, the last answer in two parts.
fn keep_alive() -> Vec<Event> {
    let mut traffic = Traffic::new(opened(7, 10 * S));
    traffic.sends(11 * S, 100).receives(11 * S + 90 * MS, 1_000);
    traffic.sends(14 * S, 110).receives(14 * S + 30 * MS, 2_000);
    traffic.sends(15 * S, 60).sends(15 * S + MS, 60).receives(15 * S + 20 * MS, 500).receives(15 * S + 25 * MS, 500);
    traffic.closes(20 * S);
    traffic.events
}

#[test]
fn what_may_have_passed_while_detail_was_lowered_is_not_told_as_if_it_had_been_seen() {
    let overhead = Overhead { percent: 7.0, limit: 5.0, counts_programs: true };
    let change = |at, lowered| user(UserEvent::Detail { at, lowered, overhead });
    let mut events = keep_alive();
    let second = events.iter().enumerate().filter(|(_, event)| matches!(event, Event::Exchange(_))).nth(1);
    let second = second.expect("the second answer").0;
    events.splice(second..second, [change(12 * S, true), change(13 * S, false)]);
    events.push(stop(30 * S));
    let records = records(events);
    let told: Vec<_> = exchanges(&records).iter().map(|exchange| figures(exchange)).collect();
    // The first may have gone on unseen, and so may what was before the second. Bytes that passed unseen are counted with later ones.
    let expected: [Figures; 1] = [(2, Some(S - 30 * MS), Some(20 * MS), Some(25 * MS), None, None)];
    assert_eq!(told, expected);
    let losses: Vec<_> = summary(&records).losses.iter().map(|loss| (loss.cause.as_str(), loss.count)).collect();
    assert_eq!(losses, [("detail_lowered", 2)]);
    let changes = records.iter().filter(|record| matches!(record, Record::Detail(_)));
    assert_eq!(changes.count(), 2);

    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert_eq!(connection.exchanges, None);
    // By the kernel's own ticks.
    assert_eq!(connection.idle_before_close, Some(5 * S));
    assert!(connection.confidence.iter().any(|remark| remark.field == "exchanges" && remark.bound == Bound::Unknown));
}

#[test]
fn a_keep_alive_client_has_a_cold_and_then_warm_exchanges() {
    let records = records(keep_alive());
    let told = exchanges(&records);
    let expected: [Figures; 3] = [
        (0, Some(S - 12_300_000), Some(90 * MS), Some(90 * MS), Some(100), Some(1_000)),
        (1, Some(3 * S - 90 * MS), Some(30 * MS), Some(30 * MS), Some(110), Some(2_000)),
        (2, Some(S - 30 * MS), Some(20 * MS), Some(25 * MS), Some(120), Some(1_000)),
    ];
    assert_eq!(told.iter().map(|exchange| figures(exchange)).collect::<Vec<_>>(), expected);
    assert_eq!(told.iter().map(|exchange| exchange.cold).collect::<Vec<_>>(), [Some(true), Some(false), Some(false)]);
    assert!(told.iter().all(|exchange| !exchange.open && !exchange.stale && exchange.confidence.is_empty()));
    let setup = told[0].setup.as_deref().expect("a cold one");
    assert_eq!((setup.connect, setup.handshake, setup.total), (Some(12_300_000), None, Some(12_300_000)));
    assert!(told[1].setup.is_none());

    let [connection] = connections(&records)[..] else { panic!("one connection") };
    let together = connection.exchanges.expect("counted");
    assert_eq!((together.count, together.stale), (3, false));
    // To the nanosecond, though the kernel's ticks say 5 s.
    assert_eq!(connection.idle_before_close, Some(5 * S - 25 * MS));
    assert_eq!(together.max_idle, connection.idle_before_close);
    let group = summary(&records).groups[0].exchanges.expect("counted");
    assert_eq!((group.count, group.cold, group.warm), (3, 1, 2));
    let near = |time: Option<u64>, exact: u64| time.expect("known").abs_diff(exact) <= exact / 100;
    assert!(near(group.cold_median, 102_300_000) && near(group.cold_first_byte_median, 90 * MS));
    assert!(near(group.warm_median, 20 * MS), "{group:?}");
}

#[test]
fn an_exchange_comes_before_its_connection_and_after_its_opening() {
    let order: Vec<_> = records(keep_alive())
        .iter()
        .map(|record| match record {
            Record::Open(_) => 'o',
            Record::Exchange(_) => 'x',
            Record::Connection(_) => 'c',
            _ => 's',
        })
        .collect();
    assert_eq!(order, ['o', 'x', 'x', 'x', 'c', 's']);
}

#[test]
fn a_server_s_exchange_is_its_service_time() {
    let mut traffic = Traffic::new(accepted(7, 10 * S));
    traffic.receives(10 * S + MS, 300).sends(10 * S + 51 * MS, 4_000).sends(10 * S + 53 * MS, 4_000).closes(12 * S);
    let records = records(traffic.events);
    let [exchange] = exchanges(&records)[..] else { panic!("one exchange") };
    let expected = (0, Some(MS), Some(50 * MS), Some(52 * MS), Some(8_000), Some(300));
    assert_eq!(figures(exchange), expected);
    assert_eq!((exchange.cold, exchange.setup.is_some()), (Some(true), false), "a server pays no setup");
}

#[test]
fn a_greeting_is_an_exchange_with_an_empty_ask() {
    let mut traffic = Traffic::new(opened(7, 10 * S));
    traffic.receives(10 * S + 52_300_000, 80).sends(11 * S, 20).receives(11 * S + 5 * MS, 30).closes(12 * S);
    let records = records(traffic.events);
    let [greeting, next] = exchanges(&records)[..] else { panic!("two exchanges") };
    assert!(greeting.greeting && !next.greeting);
    assert_eq!(figures(greeting), (0, Some(0), Some(40 * MS), Some(40 * MS), Some(0), Some(80)));
    assert_eq!(figures(next), (1, Some(S - 52_300_000), Some(5 * MS), Some(5 * MS), Some(20), Some(30)));
}

#[test]
fn an_answer_to_what_was_asked_before_the_trace_is_no_greeting() {
    let mut traffic = Traffic::preexisting(7);
    traffic.receives(11 * S, 80).sends(12 * S, 20).receives(12 * S + 5 * MS, 30).closes(13 * S);
    let adopted = user(UserEvent::Adopted(open_socket(7, 10 * S)));
    let records = records([adopted].into_iter().chain(traffic.events));
    let [answer, next] = exchanges(&records)[..] else { panic!("two exchanges") };
    assert!(!answer.greeting && !next.greeting, "{answer:#?}");
    assert_eq!((answer.cold, answer.began_at, answer.first_byte), (None, None, None));
}

#[test]
fn an_ask_that_was_never_answered_is_an_exchange_without_an_answer() {
    let mut traffic = Traffic::new(opened(7, 10 * S));
    traffic.sends(11 * S, 100).receives(11 * S + MS, 10).sends(12 * S, 50).closes(13 * S);
    let records = records(traffic.events);
    let [_, unanswered] = exchanges(&records)[..] else { panic!("two exchanges") };
    assert_eq!(figures(unanswered), (1, Some(S - MS), None, None, Some(50), Some(0)));
    assert!(!unanswered.stale, "the local side gave up");
}

#[test]
fn an_ask_on_a_connection_that_the_peer_had_closed_is_stale() {
    let open = opened(7, 10 * S);
    let mut traffic = Traffic::new(open);
    traffic.sends(11 * S, 100).receives(11 * S + MS, 10);
    let [peer_closed, released, ended] = closed_by_peer(open, 16 * S, 2 * S);
    traffic.lifecycle(peer_closed).sends(17 * S, 70).lifecycle(released).lifecycle(ended);
    let records = records(traffic.events);
    let [good, stale] = exchanges(&records)[..] else { panic!("two exchanges") };
    assert!(!good.stale && stale.stale && stale.confidence.is_empty());
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert!(connection.exchanges.expect("counted").stale);
    // Before the peer closed, not before the stale ask.
    assert_eq!(connection.idle_before_close, Some(5 * S - MS));
    assert_eq!(summary(&records).groups[0].exchanges.map(|group| group.stale), Some(1));
}

#[test]
fn an_unanswered_ask_that_is_reset_was_stale_unless_the_connection_was_new() {
    let run_with = |unacknowledged: u8, asks_before: bool, at: u64| {
        let mut traffic = Traffic::new(SocketRecord { unacknowledged, ..opened(7, 10 * S) });
        if asks_before {
            traffic.sends(10 * S + 20 * MS, 100).receives(10 * S + 21 * MS, 10);
        }
        traffic.sends(at, 100).is_reset(at + 10 * MS);
        let records = records(traffic.events);
        let last = exchanges(&records).pop().expect("an exchange").clone();
        (last.stale, last.confidence.first().map(|note| (note.field, note.bound)))
    };
    let run = |asks_before, at| run_with(1, asks_before, at);
    let guessed = Some(("stale", Bound::Estimate));
    assert_eq!(run_with(0, true, 20 * S), (false, None), "it was acknowledged: the peer broke off a slow answer");
    assert_eq!(run(true, 20 * S), (true, guessed));
    assert_eq!(run(false, 20 * S), (true, guessed), "it had waited in a pool");
    assert_eq!(run(false, 10 * S + 13 * MS), (false, None), "it had just been made");
}

/// An ask at 20 s on a connection that had waited, and the local close so long after it.
fn given_up(waited: u64, silent_doublings: u8) -> Traffic {
    let open = opened(7, 10 * S);
    let mut traffic = Traffic::new(open);
    traffic.sends(10 * S + 20 * MS, 100).receives(10 * S + 21 * MS, 10).sends(20 * S, 100);
    let [released, _] = closed_locally(open, 20 * S + waited);
    traffic.lifecycle(SocketRecord { unacknowledged: silent_doublings, ..released });
    traffic
}

#[test]
fn an_ask_that_was_given_up_was_stale_if_nothing_was_acknowledged() {
    let is_stale = |waited, doublings| {
        let records = records(given_up(waited, doublings).events);
        exchanges(&records).pop().expect("an exchange").stale
    };
    // 2048 ticks of 4 ms are 8.2 s.
    assert!(is_stale(10 * S, 12), "most of the time");
    assert!(!is_stale(10 * S, 11), "half of the time was after an acknowledgment");
    assert!(!is_stale(10 * S, 0), "all was acknowledged: the peer takes its time");
    assert!(!is_stale(S - 1, 12), "an acknowledgment may be under way");
}

#[test]
fn what_was_let_go_of_is_not_asked_any_more_though_tcp_goes_on() {
    let records = records(given_up(10 * S, 12).events);
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert!(connection.open && connection.exchanges.expect("counted").stale);
    assert!(!exchanges(&records).pop().expect("an exchange").open);
}

#[test]
fn what_is_open_at_the_stop_is_completed_by_the_kernel_s_counts() {
    let mut traffic = Traffic::new(opened(7, 10 * S));
    traffic.sends(11 * S, 100).receives(11 * S + 20 * MS, 10);
    let present = |sent_idle, received_idle| {
        user(UserEvent::Present(OpenSocket {
            bytes_sent: Some(100),
            bytes_received: Some(600),
            sent_idle: Some(sent_idle),
            received_idle: Some(received_idle),
            ..open_socket(7, 20 * S)
        }))
    };
    let run = |present: Event| {
        let events = traffic.events.iter().cloned();
        records(events.chain([present, stop(21 * S)]))
    };
    let answering = run(present(9 * S, 8 * S));
    let [exchange] = exchanges(&answering)[..] else { panic!("one exchange") };
    assert!(exchange.open);
    assert_eq!(figures(exchange), (0, Some(S - 12_300_000), Some(20 * MS), Some(S), Some(100), Some(600)));
    assert_eq!(exchange.confidence[0].field, "duration_ms");

    // The client has sent something since it was answered: another exchange, not answered yet.
    let waiting = run(present(2 * S, 8 * S));
    let [first, second] = exchanges(&waiting)[..] else { panic!("two exchanges") };
    assert!(!first.open && second.open);
    assert_eq!(figures(first), (0, Some(S - 12_300_000), Some(20 * MS), Some(S), None, Some(600)));
    assert_eq!(figures(second), (1, Some(6 * S), None, None, None, None));
    let [connection] = connections(&waiting)[..] else { panic!("one connection") };
    assert_eq!(connection.exchanges.map(|together| together.count), Some(2));
}

#[test]
fn a_first_ask_without_an_answer_is_known_at_the_stop() {
    let present = user(UserEvent::Present(OpenSocket {
        bytes_sent: Some(40),
        bytes_received: Some(0),
        sent_idle: Some(3 * S),
        received_idle: None,
        ..open_socket(7, 20 * S)
    }));
    let events = Traffic::new(opened(7, 10 * S)).events.into_iter().chain([present, stop(20 * S)]);
    let records = records(events);
    let [exchange] = exchanges(&records)[..] else { panic!("one exchange") };
    assert_eq!((exchange.cold, exchange.open, exchange.first_byte), (Some(true), true, None));
    assert_eq!((exchange.bytes_out, exchange.bytes_in), (Some(40), Some(0)));
    assert_eq!(exchange.confidence[0].field, "began_at");
}

#[test]
fn a_lost_exchange_leaves_the_one_before_without_an_end() {
    let mut events = keep_alive();
    let second = |event: &Event| matches!(event, Event::Exchange(record) if record.index == 1);
    events.retain(|event| !second(event));
    let records = records(events);
    let told = exchanges(&records);
    assert_eq!(told.iter().map(|exchange| exchange.index).collect::<Vec<_>>(), [0, 2]);
    assert_eq!((told[0].duration, told[0].bytes_in), (None, None));
    assert_eq!((told[0].confidence[0].field, told[0].confidence[0].bound), ("duration_ms", Bound::Unknown));
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert_eq!(connection.exchanges.map(|together| together.count), Some(3), "counted all the same");
}

#[test]
fn a_socket_older_than_the_trace_is_neither_cold_nor_warm_at_first() {
    let mut traffic = Traffic::preexisting(7);
    traffic.sends(11 * S, 100).receives(11 * S + MS, 10).sends(12 * S, 100).receives(12 * S + MS, 10).closes(16 * S);
    let adopted = user(UserEvent::Adopted(open_socket(7, 10 * S)));
    // Its events may come before it is listed.
    let late = traffic.events.split_off(1);
    let early = traffic.events;
    let records = records(early.into_iter().chain([adopted]).chain(late));
    let told: Vec<_> = exchanges(&records).into_iter().map(|exchange| (exchange.cold, exchange.idle_before)).collect();
    assert_eq!(told, [(None, None), (Some(false), Some(S - MS))]);
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert_eq!(connection.exchanges.map(|together| together.count), Some(2));
    assert_eq!((connection.confidence[0].field, connection.confidence[0].bound), ("exchanges", Bound::Lower));
    assert!(summary(&records).losses.is_empty());
}

#[test]
fn events_that_belong_to_no_connection_are_counted() {
    let lost: Vec<_> = keep_alive().into_iter().filter(|event| matches!(event, Event::Exchange(_))).collect();
    let records = records(lost);
    assert!(exchanges(&records).is_empty());
    let losses = &summary(&records).losses;
    assert_eq!((losses[0].cause.as_str(), losses[0].count), ("unmatched", 3));
}

#[test]
fn an_answer_that_its_connection_told_already_is_not_lost_when_its_event_comes_late() {
    let mut events = keep_alive();
    let is_last = |event: &Event| matches!(event, Event::Exchange(record) if record.index == 2);
    let last: Vec<_> = events.extract_if(.., |event| is_last(event)).collect();
    assert_eq!(last.len(), 1);
    let records = records(events.into_iter().chain(last));
    assert_eq!(exchanges(&records).iter().map(|exchange| exchange.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(summary(&records).losses.is_empty(), "{:?}", summary(&records).losses);
}

#[test]
fn an_answer_that_no_record_told_is_lost_when_its_event_comes_late() {
    let events = keep_alive();
    let is_exchange = |event: &Event| matches!(event, Event::Exchange(_));
    let (answers, mut lives): (Vec<_>, Vec<_>) = events.into_iter().partition(is_exchange);
    // Of the connection's events only those remain that know of no exchange.
    for event in &mut lives {
        if let Event::Detailed(record) = event {
            record.exchanges = Exchanges::new_zeroed();
        }
    }
    let records = records(lives.into_iter().chain(answers));
    let losses = &summary(&records).losses;
    assert_eq!((losses[0].cause.as_str(), losses[0].count), ("unmatched", 3));
}

#[test]
fn detail_connections_knows_no_exchanges() {
    let open = opened(7, 10 * S);
    let records = records(sockets([open]).into_iter().chain(sockets(closed_locally(open, 16 * S))));
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert!(connection.exchanges.is_none() && connection.tls.is_none());
    assert!(summary(&records).groups[0].exchanges.is_none());
}

/// A handshake that began 100 ms after the connection and took 200 ms.
fn done(flags: u8) -> Handshake {
    let started_at = 10 * S + 100 * MS;
    Handshake {
        started_at,
        ended_at: started_at + 200 * MS,
        cpu: 12 * MS,
        runqueue: 3 * MS,
        phase: phase::DONE,
        flags,
        ..Handshake::new_zeroed()
    }
}

fn hello(resumed: bool) -> Event {
    user(UserEvent::Hello {
        at: 10 * S + 150 * MS,
        id: 7,
        hello: Hello {
            version: Some(0x0304),
            cipher: Some(0x1301),
            sni: Some("api.example".into()),
            alpn_offered: Some(vec!["h2".into()]),
            versions_offered: Some(vec![0x0304, 0x0303]),
            resumed: Some(resumed),
            ..Hello::default()
        }
        .into(),
    })
}

#[test]
fn a_tls_handshake_is_told_in_parts_and_paid_by_the_first_exchange() {
    for resumed in [false, true] {
        let mut traffic = Traffic::new(opened(7, 10 * S));
        traffic.events.push(hello(resumed));
        traffic.shakes_hands(done(0)).sends(11 * S, 500).receives(11 * S + 92 * MS, 900).closes(12 * S);
        let records = records(traffic.events);
        let [connection] = connections(&records)[..] else { panic!("one connection") };
        let tls = connection.tls.as_deref().expect("TLS");
        let parts = Parts { cpu: Some(12 * MS), runqueue: Some(3 * MS), wait: Some(185 * MS) };
        assert_eq!((tls.handshake, tls.parts, tls.failed), (Some(200 * MS), parts, None));
        assert_eq!((tls.hello.resumed, tls.hello.sni.as_deref()), (Some(resumed), Some("api.example")));
        assert_eq!((tls.retried, tls.mid_stream), (Some(false), Some(false)));
        let [exchange] = exchanges(&records)[..] else { panic!("one exchange") };
        let setup = exchange.setup.as_deref().expect("a cold one");
        assert_eq!((setup.handshake, setup.total, setup.parts), (Some(200 * MS), Some(212_300_000), parts));
        assert_eq!(exchange.idle_before, Some(700 * MS), "since the handshake");
        assert_eq!(summary(&records).groups[0].exchanges.map(|group| group.handshake), Some(200 * MS));
    }
}

#[test]
fn a_handshake_of_many_threads_has_bounds_and_one_without_times_has_none() {
    let notes = |flags| {
        let mut traffic = Traffic::new(opened(7, 10 * S));
        traffic.shakes_hands(done(flags)).closes(12 * S);
        let records = records(traffic.events);
        let [connection] = connections(&records)[..] else { panic!("one connection") };
        let notes: Vec<_> = connection.confidence.iter().map(|note| (note.field, note.bound)).collect();
        (connection.tls.as_deref().expect("TLS").parts, notes)
    };
    let (parts, bounds) = notes(handshake::flag::THREADS_CHANGED);
    assert!(parts.cpu.is_some());
    let expected = [("tls.cpu_ms", Bound::Lower), ("tls.runqueue_ms", Bound::Lower), ("tls.wait_ms", Bound::Upper)];
    assert_eq!(bounds, expected);
    assert_eq!(notes(handshake::flag::CPU_UNKNOWN), (Parts::default(), vec![("tls.cpu_ms", Bound::Unknown)]));
}

#[test]
fn a_failed_handshake_says_how_by_whom_and_when() {
    let started_at = 10 * S + 100 * MS;
    let failed = |handshake: Handshake, end: fn(&mut Traffic)| {
        let mut traffic = Traffic::new(opened(7, 10 * S));
        traffic.shakes_hands(handshake);
        end(&mut traffic);
        let records = records(traffic.events);
        let [connection] = connections(&records)[..] else { panic!("one connection") };
        let tls = connection.tls.as_deref().expect("TLS");
        assert_eq!(tls.handshake, None);
        tls.failed.expect("it failed")
    };
    let alert = Handshake {
        started_at,
        ended_at: started_at + 30 * MS,
        phase: phase::FAILED,
        alert_level: 2,
        alert_description: 48,
        ..Handshake::new_zeroed()
    };
    let close: fn(&mut Traffic) = |traffic| _ = traffic.closes(12 * S);
    let failure = |how, by, after| TlsFailure { how, by, after: Some(after) };
    assert_eq!(failed(alert, close), failure(TlsFailed::Alert(48), Closer::Peer, 30 * MS));
    let own = Handshake { flags: handshake::flag::ALERT_FROM_CLIENT, ..alert };
    assert_eq!(failed(own, close), failure(TlsFailed::Alert(48), Closer::Local, 30 * MS));
    let begun = Handshake { started_at, phase: phase::CLIENT_HELLO, ..Handshake::new_zeroed() };
    let reset: fn(&mut Traffic) = |traffic| _ = traffic.is_reset(11 * S);
    assert_eq!(failed(begun, reset), failure(TlsFailed::Closed(How::Rst), Closer::Peer, 900 * MS));
    assert_eq!(failed(begun, close), failure(TlsFailed::Closed(How::Fin), Closer::Local, 1_900 * MS));
}

#[test]
fn tls_that_begins_in_mid_stream_is_no_part_of_the_first_exchange_s_setup() {
    let mut traffic = Traffic::new(opened(7, 10 * S));
    traffic.receives(10 * S + 50 * MS, 80);
    traffic.shakes_hands(done(handshake::flag::MID_STREAM)).sends(11 * S, 500).receives(11 * S + MS, 9).closes(12 * S);
    let records = records(traffic.events);
    let [greeting, _] = exchanges(&records)[..] else { panic!("two exchanges") };
    let setup = greeting.setup.as_deref().expect("a cold one");
    assert_eq!((setup.handshake, setup.total), (None, Some(12_300_000)));
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert_eq!(connection.tls.as_deref().and_then(|tls| tls.mid_stream), Some(true));
}

#[test]
fn what_the_kernel_labels_is_remarked_on() {
    let open = SocketRecord { flags: flag::KERNEL_TLS | flag::MPTCP | flag::FAST_OPEN, ..opened(7, 10 * S) };
    let mut traffic = Traffic::new(open);
    traffic.sends(11 * S, 1).receives(11 * S + MS, 1).closes(12 * S);
    let records = records(traffic.events);
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    let fields: Vec<_> = connection.confidence.iter().map(|note| note.field).collect();
    assert_eq!(fields, ["exchanges", "connect_ms", "exchanges", "idle_before_close_ms"]);
}

#[test]
fn how_many_exchanges_multipath_tcp_moves_past_the_hooks_is_not_known() {
    let exchanges = |flags| {
        let mut traffic = Traffic::new(SocketRecord { flags, ..opened(7, 10 * S) });
        traffic.sends(11 * S, 1).receives(11 * S + MS, 1).closes(12 * S);
        let records = records(traffic.events);
        let [connection] = connections(&records)[..] else { panic!("one connection") };
        connection.exchanges.map(|exchanges| exchanges.count)
    };
    assert_eq!(exchanges(flag::MPTCP), None);
    assert_eq!(exchanges(0), Some(1));
}

/// The events of one connection, in order: some exchanges at random, TLS or not, an end or none.
fn any_connection(id: u64) -> impl Strategy<Value = Vec<Event>> {
    let steps = prop::collection::vec((any::<bool>(), 1..3 * S, 0..10_000u64), 0..12);
    (steps, any::<bool>(), 0..4, 1..20 * S).prop_map(move |(steps, tls, manner, opened_at)| {
        let open = if id.is_multiple_of(2) { opened(id, opened_at) } else { accepted(id, opened_at) };
        let mut traffic = Traffic::new(open);
        let mut at = open.established_at;
        if tls {
            traffic.shakes_hands(Handshake {
                started_at: at + 1,
                ended_at: at + 5,
                phase: phase::DONE,
                ..Handshake::new_zeroed()
            });
            let hello = Hello { sni: Some(id.to_string()), ..Hello::default() };
            traffic.events.push(user(UserEvent::Hello { at: at + 3, id, hello: hello.into() }));
        }
        for (sends, later, bytes) in steps {
            at += later;
            _ = if sends { traffic.sends(at, bytes) } else { traffic.receives(at, bytes) };
        }
        match manner {
            0 => _ = traffic.closes(at + S),
            1 => _ = traffic.is_reset(at + S),
            2 => {
                let [peer_closed, released, ended] = closed_by_peer(open, at + S, 2 * S);
                traffic.lifecycle(peer_closed).sends(at + 2 * S, 7).lifecycle(released).lifecycle(ended);
            }
            _ => {}
        }
        traffic.events
    })
}

/// Many connections' events, each with what becomes of it on its way and where it lands among the others.
fn any_stream() -> impl Strategy<Value = Vec<(Event, bool, bool, Index)>> {
    (1..=12u64).map(any_connection).collect::<Vec<_>>().prop_flat_map(|connections| {
        let fate = |event| (Just(event), prop::bool::weighted(0.2), prop::bool::weighted(0.2), any::<Index>());
        connections.concat().into_iter().map(fate).collect::<Vec<_>>()
    })
}

fn read<T: FromBytes>(bytes: &[u8]) -> T {
    T::read_from_bytes(&bytes[..size_of::<T>()]).unwrap_or_else(|_| unreachable!("its size"))
}

/// Bytes that only the kind makes an event.
fn any_garbage() -> impl Strategy<Value = Event> {
    // A third zeros, a third ones, as `prop_oneof!` would make them; that takes ten times as long, for millions of bytes.
    let byte = (0..3 * 256u16).prop_map(|number| match number / 256 {
        small @ (0 | 1) => small as u8,
        _ => number as u8,
    });
    let bytes = prop::collection::vec(byte, size_of::<DetailedRecord>());
    (bytes, 0..6u64, 0..4u64, 0..8u32).prop_map(|(bytes, id, opened_at, what)| match what {
        0..4 => {
            let mut record: DetailedRecord = read(&bytes);
            let kind = [kind::OPENED, kind::PEER_CLOSED, kind::RELEASED, kind::ENDED][what as usize];
            (record.socket.id, record.socket.kind, record.socket.opened_at) = (id, kind, opened_at);
            Event::Detailed(Box::new(record))
        }
        4 => Event::Exchange(ExchangeRecord { id, kind: kind::ANSWERED, ..read(&bytes) }),
        5 => Event::Tls(TlsRecord { id, kind: kind::TLS, ..read(&bytes) }),
        6 => {
            let record: ExchangeRecord = read(&bytes);
            let head = if bytes[1] > 100 { request(HttpMethod::Get) } else { response(bytes[0].into(), true) };
            user(UserEvent::Http {
                at: record.at,
                id,
                index: Some(record.index),
                sent: bytes[2] > 100,
                head: head.into(),
            })
        }
        _ => {
            let (at, sent_idle) = (u64::from(bytes[0]) << 50, Some(u64::from(bytes[1]) << 56));
            let socket = OpenSocket { sent_idle, received_idle: Some(u64::MAX), ..open_socket(id, at) };
            user(if bytes[2] > 100 { UserEvent::Present(socket) } else { UserEvent::Adopted(socket) })
        }
    })
}

/// How often each exchange was told; the order on each connection must be that of the indexes.
fn times_told(records: &[Record]) -> HashMap<(u64, u32, u32), u32> {
    let (mut told, mut last) = (HashMap::new(), HashMap::new());
    for exchange in exchanges(records) {
        let id = exchange.connection;
        *told.entry((id.socket, id.life, exchange.index)).or_insert(0) += 1;
        if let Some(before) = last.insert(id, exchange.index) {
            assert!(before < exchange.index, "{before} and then {}", exchange.index);
        }
    }
    told
}

proptest! {
    #[test]
    fn in_order_every_exchange_is_told_once_and_all_bytes_are_accounted_for(
        connections_events in (1..=6u64).map(any_connection).collect::<Vec<_>>(),
    ) {
        let events: Vec<Event> = connections_events.concat();
        let mut expected = HashMap::new();
        for event in &events {
            if let Event::Detailed(record) = event {
                expected.insert(record.socket.id, record.exchanges);
            }
            if let Event::Exchange(record) = event {
                let counted: &mut tracer_ebpf::exchange::Exchanges = expected.get_mut(&record.id).expect("opened");
                counted.count = counted.count.max(record.index + 1);
            }
        }
        let records = records(events.into_iter().chain([stop(100 * S)]));
        prop_assert!(times_told(&records).values().all(|times| *times == 1));
        for connection in connections(&records) {
            let mine = || exchanges(&records).into_iter().filter(|exchange| exchange.connection == connection.id);
            let now = expected[&connection.id.socket];
            prop_assert_eq!(connection.exchanges.map(|together| together.count), Some(now.count));
            prop_assert_eq!(mine().count() as u32, now.count);
            if !connection.open {
                let sum = |bytes: fn(&Exchange) -> Option<u64>| mine().map(|exchange| bytes(exchange).unwrap_or(0)).sum();
                let passed: (u64, u64) = (sum(|exchange| exchange.bytes_out), sum(|exchange| exchange.bytes_in));
                prop_assert_eq!(passed, (now.sent, now.received));
            }
        }
        prop_assert!(summary(&records).losses.is_empty());
    }

    #[test]
    fn in_any_order_every_connection_is_told_once_and_no_exchange_twice(stream in any_stream()) {
        let mut placed: Vec<(usize, Event)> = Vec::new();
        let mut seen = HashMap::new();
        for (event, lost, duplicated, place) in stream {
            for (is_there, place) in [(!lost, place.index(1000)), (duplicated, place.index(997))] {
                if is_there {
                    if let Event::Detailed(record) = &event {
                        seen.insert(record.socket.id, ());
                    }
                    placed.push((place, event.clone()));
                }
            }
        }
        placed.sort_by_key(|(place, _)| *place);
        let records = records(placed.into_iter().map(|(_, event)| event).chain([stop(100 * S)]));
        let mut told = HashMap::new();
        for connection in connections(&records) {
            *told.entry(connection.id.socket).or_insert(0) += 1;
        }
        prop_assert!(told.values().all(|times| *times == 1));
        prop_assert_eq!(told.len(), seen.len());
        prop_assert!(times_told(&records).values().all(|times| *times == 1));
    }

    #[test]
    fn garbage_neither_panics_nor_grows_nor_repeats_an_exchange(
        events in prop::collection::vec(any_garbage(), 0..200),
        max_connections in 1..10usize,
    ) {
        let limits = Limits { max_connections, max_processes: 3, max_groups: 3 };
        let mut correlator = Correlator::new(CLOCK, limits);
        let mut records = Vec::new();
        for event in &events {
            correlator.apply(event, &mut |record| records.push(record.clone()));
            prop_assert!(correlator.live() <= max_connections);
        }
        correlator.finish(&mut |record| records.push(record.clone()));
        // What was dropped for want of room may come again: no memory is left of it.
        let dropped = summary(&records).losses.iter().any(|loss| loss.cause == "table_full");
        prop_assert!(dropped || times_told(&records).values().all(|times| *times == 1));
    }
}
