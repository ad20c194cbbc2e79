//! Lookups in the event stream: what they name, and what people and programs read of them.

use std::net::SocketAddr;

use tracer::{
    output::{Output, text::Text},
    stage::{
        dns::{DnsAnswer, DnsMessage},
        event::{Event, UserEvent},
        getaddrinfo::Resolved,
    },
    track::record::{Lookup, LookupWay, Record},
};
use tracer_ebpf::{SocketRecord, flag};

use crate::support::*;

/// The process of [`opened`] asks for a name.
fn query(at: u64, name: &str) -> DnsMessage {
    DnsMessage {
        at,
        pid: 1234,
        tid: 1235,
        process_started_at: 77,
        comm: "curl".into(),
        netns: 4_026_531_840,
        local_port: 5353,
        server: SocketAddr::from(([10, 0, 0, 53], 53)),
        tcp: false,
        id: 7,
        name: name.into(),
        record_type: "A".into(),
        answer: None,
    }
}

fn answered(query: DnsMessage, at: u64, rcode: &str, addresses: &[[u8; 4]]) -> DnsMessage {
    let addresses = addresses.iter().map(|address| (*address).into()).collect();
    DnsMessage { at, answer: Some(DnsAnswer { rcode: rcode.into(), truncated: false, addresses, ttl: 60 }), ..query }
}

fn dns(message: DnsMessage) -> Event {
    user(UserEvent::Dns(message))
}

/// The address of [`opened`] looked up, in 7 ms.
fn looked_up(at: u64) -> [Event; 2] {
    let query = query(at, "example.org");
    [dns(query.clone()), dns(answered(query, at + 7 * MS, "NOERROR", &[[10, 0, 0, 1]]))]
}

/// The same by `getaddrinfo`, without a question.
fn resolved(at: u64, outcome: &str, addresses: &[[u8; 4]]) -> Event {
    user(UserEvent::Resolved(Resolved {
        began_at: at,
        at: at + 7 * MS,
        pid: 1234,
        tid: 1235,
        process_started_at: 77,
        comm: "curl".into(),
        name: "host.test".into(),
        record_type: None,
        outcome: outcome.into(),
        addresses: addresses.iter().map(|address| (*address).into()).collect(),
    }))
}

fn lookups(records: &[Record]) -> Vec<&Lookup> {
    fn pick(record: &Record) -> Option<&Lookup> {
        match record {
            Record::Lookup(lookup) => Some(lookup),
            _ => None,
        }
    }
    records.iter().filter_map(pick).collect()
}

fn names_and_costs(records: &[Record]) -> Vec<Option<(&str, u64)>> {
    let connections = connections(records).into_iter();
    connections.map(|c| c.looked_up.as_ref().map(|looked_up| (&*looked_up.name, looked_up.cost))).collect()
}

#[test]
fn a_connection_and_its_opening_go_by_the_name_that_was_looked_up() {
    let events = looked_up(2 * S).into_iter().chain(sockets([opened(1, 3 * S), opened(2, 4 * S)]));
    let records = records(events);
    assert_eq!(names_and_costs(&records), [Some(("example.org", 7 * MS)), Some(("example.org", 0))]);
    assert_eq!(opens(&records)[0].looked_up, connections(&records)[0].looked_up);
}

#[test]
fn a_server_and_a_connection_before_the_lookup_have_no_name() {
    let mut events = sockets([opened(1, S)]);
    events.extend(looked_up(2 * S));
    events.extend(sockets([accepted(2, 3 * S)]));
    assert_eq!(names_and_costs(&records(events)), [None, None]);
}

#[test]
fn a_connect_without_a_route_does_not_pay_for_the_lookup() {
    let unreachable =
        SocketRecord { flags: flag::FINISHED | flag::NO_SYN, ..failed(1, 3 * S, 2_000, libc::ENETUNREACH) };
    let events = looked_up(2 * S).into_iter().chain(sockets([unreachable, opened(2, 4 * S)]));
    assert_eq!(names_and_costs(&records(events)), [Some(("example.org", 0)), Some(("example.org", 7 * MS))]);
}

#[test]
fn a_lookup_is_reported_with_its_process() {
    let records = records([identity(1234, "curl")].into_iter().chain(looked_up(2 * S)));
    let lookups = lookups(&records);
    let [lookup] = lookups.as_slice() else { panic!("{lookups:?}") };
    assert_eq!((lookup.process.exe.as_deref(), lookup.tid), (Some("/usr/bin/curl"), 1235));
    assert_eq!((lookup.latency, lookup.rcode.as_deref(), lookup.failed()), (Some(7 * MS), Some("NOERROR"), false));
}

#[test]
fn a_call_of_getaddrinfo_is_a_lookup_and_names_a_connection() {
    let called = resolved(2 * S, "NOERROR", &[[10, 0, 0, 1]]);
    let records = records([identity(1234, "curl"), called].into_iter().chain(sockets([opened(1, 3 * S)])));
    assert_eq!(names_and_costs(&records), [Some(("host.test", 7 * MS))]);
    let lookups = lookups(&records);
    let [lookup] = lookups.as_slice() else { panic!("{lookups:?}") };
    assert_eq!(
        (lookup.process.exe.as_deref(), lookup.tid, lookup.way),
        (Some("/usr/bin/curl"), 1235, LookupWay::GetAddrInfo)
    );
    assert_eq!((lookup.latency, lookup.rcode.as_deref(), lookup.failed()), (Some(7 * MS), Some("NOERROR"), false));
}

#[test]
fn a_call_of_getaddrinfo_that_asked_a_server_is_no_second_lookup() {
    let [question, answer] = looked_up(2 * S);
    let called = resolved(2 * S - MS, "NOERROR", &[[10, 0, 0, 1]]);
    let Event::User(called) = called else { panic!("{called:?}") };
    let UserEvent::Resolved(called) = *called else { panic!("{called:?}") };
    let called = user(UserEvent::Resolved(Resolved { at: 2 * S + 8 * MS, ..called }));
    let records = records([question, answer, called].into_iter().chain(sockets([opened(1, 3 * S), opened(2, 4 * S)])));
    let paid = [Some(("example.org", 9 * MS)), Some(("example.org", 0))];
    assert_eq!(names_and_costs(&records), paid, "by the server's name, for as long as the thread waited");
    assert!(matches!(lookups(&records)[..], [Lookup { way: LookupWay::Port53 { .. }, .. }]));
}

#[test]
fn a_lookup_without_an_answer_is_given_up_when_time_has_passed() {
    let given_up_before = |event: Event| {
        let records = records([dns(query(2 * S, "lost.test")), event, stop(100 * S)]);
        let lost = records.iter().position(|record| matches!(record, Record::Lookup(lookup) if lookup.failed()));
        let open = records.iter().position(|record| matches!(record, Record::Open(_)));
        lost.expect("reported") < open.expect("reported")
    };
    assert!(given_up_before(Event::Socket(opened(1, 40 * S))));
    assert!(!given_up_before(Event::Socket(opened(1, 20 * S))), "it may still be answered; the stop ends it");
}

#[test]
fn an_answer_that_nobody_asked_for_is_counted() {
    let records = records([dns(answered(query(2 * S, "evil.test"), 2 * S, "NOERROR", &[[10, 0, 0, 1]]))]);
    let losses: Vec<_> = summary(&records).losses.iter().map(|loss| (loss.cause.as_str(), loss.count)).collect();
    assert_eq!(losses, [("dns_unasked", 1)]);
}

#[test]
fn a_lookup_is_part_of_what_the_first_exchange_paid_and_shows_in_its_line() {
    let mut client = Traffic::new(opened(1, 3 * S));
    client.sends(4 * S, 100).receives(4 * S + 40 * MS, 900).sends(5 * S, 100).receives(5 * S + 30 * MS, 900);
    client.closes(6 * S);
    let records = records(looked_up(2 * S).into_iter().chain(client.events));
    let exchanges: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Exchange(exchange) => Some(exchange),
            _ => None,
        })
        .collect();
    let [cold, warm] = exchanges.as_slice() else { panic!("{exchanges:?}") };
    let setup = cold.setup.as_deref().expect("a cold one");
    assert_eq!((setup.dns, setup.total), (Some(7 * MS), setup.connect.map(|connect| connect + 7 * MS)));
    assert!(warm.setup.is_none());
    for exchange in &exchanges {
        assert_eq!(exchange.looked_up.as_ref().map(|looked_up| &*looked_up.name), Some("example.org"));
    }
    let group = summary(&records).groups[0].exchanges.expect("in detail exchanges");
    assert_eq!(group.dns, 7 * MS);
    let (mut writer, mut out) = (Text::new(false, true), Vec::new());
    writer.record(&Record::Exchange((*cold).clone()), &mut out);
    let line = String::from_utf8(out).expect("UTF-8");
    assert!(line.contains("cold  dns 7.0  tcp 12.3 "), "{line}");
}

/// One lookup of each kind: answered, failed, repeated, lost.
fn lookups_of_a_night() -> Vec<Record> {
    let mut events = looked_up(2 * S).to_vec();
    let gone = DnsMessage { id: 8, ..query(3 * S, "gone\u{1b}.test") };
    events.extend([dns(gone.clone()), dns(answered(gone, 3 * S + 12 * MS, "NXDOMAIN", &[]))]);
    let slow = DnsMessage { id: 9, ..query(4 * S, "slow.test") };
    let again = DnsMessage { at: 9 * S, ..slow.clone() };
    events.extend([dns(slow), dns(again.clone()), dns(answered(again, 9 * S + MS, "NOERROR", &[[10, 0, 0, 1]]))]);
    events.push(dns(DnsMessage { id: 10, ..query(10 * S, "lost.test") }));
    events.extend([resolved(11 * S, "NOERROR", &[[10, 0, 0, 1]]), resolved(12 * S, "EAI_NONAME", &[])]);
    events.push(stop(50 * S));
    records(events).into_iter().filter(|record| matches!(record, Record::Lookup(_))).collect()
}

fn text(verbose: bool) -> String {
    let (mut writer, mut out) = (Text::new(false, verbose), Vec::new());
    for record in lookups_of_a_night() {
        writer.record(&record, &mut out);
    }
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn people_see_failed_and_repeated_lookups_only() {
    insta::assert_snapshot!(text(false));
}

#[test]
fn people_who_ask_for_it_see_every_lookup() {
    insta::assert_snapshot!(text(true));
}
