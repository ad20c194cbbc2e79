//! The correlator, from outside: what comes out of which events.

use std::collections::HashMap;

use crate::support::*;
use proptest::{prelude::*, sample::Index};
use tracer::{
    stage::event::{Event, OpenSocket, UserEvent},
    track::{
        Correlator, Limits,
        record::{Bound, Closer, ConnectionId, Hook, How, Record, WallTime},
    },
};
use tracer_ebpf::{SocketRecord, flag, kind, tcp_state};
use zerocopy::{FromBytes, FromZeros};

#[test]
fn a_local_close_is_told_in_full() {
    let open = opened(7, 10 * S);
    let [released, ended] = closed_locally(open, 16 * S);
    let records = records([identity(1234, "curl")].into_iter().chain(sockets([open, released, ended])));
    let opens = opens(&records);
    assert_eq!(opens.len(), 1);
    assert!(opens[0].open && opens[0].close.is_none());
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert_eq!(connection.process.exe.as_deref(), Some("/usr/bin/curl"));
    assert_eq!(connection.connect, Some(12_300_000));
    assert_eq!(connection.lifetime, Some(6 * S + MS));
    // The smaller of the two gaps, 1250 ticks.
    assert_eq!(connection.idle_before_close, Some(5 * S));
    assert_eq!((connection.bytes_sent, connection.bytes_received), (Some(1_200), Some(34_000)));
    assert_eq!(connection.keepalive, Some(false));
    assert_eq!(connection.closed_at, Some(WallTime(1_795_230_000_000_000_000 + 16 * S + MS)));
    let close = connection.close.as_ref().expect("closed");
    assert_eq!((close.closer, close.how, close.unnoticed), (Closer::Local, How::Fin, None));
    assert!(!connection.open && connection.confidence.is_empty());
    let summary = summary(&records);
    assert_eq!((summary.connections, summary.open), (1, 0));
    assert_eq!(summary.groups[0].destination, "10.0.0.1:443");
}

#[test]
fn a_peer_close_is_unnoticed_until_the_release() {
    let open = opened(7, 10 * S);
    let records = records(sockets([open]).into_iter().chain(sockets(closed_by_peer(open, 20 * S, 30 * S))));
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    let close = connection.close.as_ref().expect("closed");
    assert_eq!((close.closer, close.how, close.unnoticed), (Closer::Peer, How::Fin, Some(30 * S)));
}

#[test]
fn a_peer_close_without_a_release_is_reported_at_the_stop_as_it_stands() {
    let open = opened(7, 10 * S);
    let [peer_closed, ..] = closed_by_peer(open, 20 * S, 0);
    let records = records(sockets([open, peer_closed]).into_iter().chain([stop(25 * S)]));
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    let close = connection.close.as_ref().expect("the peer closed");
    assert!(connection.open && connection.closed_at.is_none());
    assert_eq!((close.closer, close.unnoticed), (Closer::Peer, Some(5 * S)));
    assert_eq!((close.released_at, close.ended_at), (None, None));
}

#[test]
fn racing_snapshots_that_each_lack_the_others_time_make_one_connection() {
    let open = opened(7, 10 * S);
    let [released, ended] = closed_locally(open, 16 * S);
    let blind = SocketRecord { released_at: 0, tgid: 1, ..ended };
    for order in [[released, blind], [blind, released]] {
        let records = records(sockets([open]).into_iter().chain(sockets(order)));
        let [connection] = connections(&records)[..] else { panic!("one connection") };
        let close = connection.close.as_ref().expect("closed");
        assert!(close.released_at.is_some() && close.ended_at.is_some());
        // Who released it is the owner, whichever event is the later.
        assert_eq!(connection.process.pid, 1234);
    }
}

#[test]
fn failed_connects_are_connections_without_an_open() {
    let records = records(sockets([failed(7, 10 * S, 300_000, libc::ECONNREFUSED)]));
    assert!(opens(&records).is_empty());
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    let close = connection.close.as_ref().expect("failed");
    assert_eq!((close.closer, close.how, close.errno), (Closer::None, How::Refused, Some(111)));
    assert_eq!((connection.connect, connection.established), (Some(300_000), false));
    assert_eq!(summary(&records).groups[0].failed, 1);
}

#[test]
fn a_socket_that_connects_again_has_another_life() {
    let again = opened(7, 11 * S);
    let records =
        records(sockets([failed(7, 10 * S, MS, libc::ECONNREFUSED), again]).into_iter().chain([stop(12 * S)]));
    let ids: Vec<_> = connections(&records).iter().map(|connection| (connection.id, connection.open)).collect();
    let id = |life| ConnectionId { socket: 7, life };
    assert_eq!(ids, [(id(0), false), (id(1), true)]);
}

#[test]
fn a_life_whose_end_was_not_seen_is_finished_as_it_stands() {
    let records = records(sockets([opened(7, 10 * S), opened(7, 11 * S)]));
    let connections = connections(&records);
    assert_eq!(connections.len(), 2);
    assert!(!connections[0].open);
    assert_eq!(connections[0].confidence[0].field, "close");
}

#[test]
fn a_lost_opening_costs_the_open_record_only() {
    let records = records(sockets(closed_locally(opened(7, 10 * S), 16 * S)));
    assert_eq!((opens(&records).len(), connections(&records).len()), (0, 1));
}

#[test]
fn a_late_duplicate_is_not_reported_again() {
    let [released, ended] = closed_locally(opened(7, 10 * S), 16 * S);
    let records = records(sockets([opened(7, 10 * S), released, ended, released, ended, opened(7, 10 * S)]));
    assert_eq!((opens(&records).len(), connections(&records).len()), (1, 1));
}

#[test]
fn a_connect_under_way_is_open_at_the_stop_and_its_time_unknown() {
    let connecting =
        SocketRecord { kind: kind::CONNECTING, established_at: 0, syn_retransmits: 1, ..opened(7, 10 * S) };
    let records = records(sockets([connecting]).into_iter().chain([stop(13 * S)]));
    assert!(opens(&records).is_empty());
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert!(connection.open && !connection.established && connection.close.is_none());
    assert_eq!((connection.connect, connection.syn_retransmits), (None, Some(1)));
    assert_eq!(summary(&records).groups[0].failed, 0);
}

#[test]
fn an_adopted_socket_is_announced_and_joined_by_its_later_events() {
    let bare = SocketRecord { role: 0, ..opened(7, 0) };
    let bare = SocketRecord { opened_at: 0, established_at: 0, flags: flag::PREEXISTING, ..bare };
    let adopted = user(UserEvent::Adopted(open_socket(7, 5 * S)));
    let records = records([adopted.clone(), adopted].into_iter().chain(sockets(closed_locally(bare, 16 * S))));
    let opens = opens(&records);
    assert_eq!(opens.len(), 1);
    assert!(opens[0].preexisting);
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert!(connection.preexisting && connection.role.is_some() && connection.established);
    assert_eq!((connection.opened_at, connection.lifetime, connection.connect), (None, None, None));
    assert_eq!(connection.idle_before_close, Some(5 * S));
}

#[test]
fn adoption_and_the_opening_may_cross() {
    // sock_diag showed it before its OPENED event was read: still one connection, and its opening is known.
    let open = opened(7, 4 * S);
    let adopted = user(UserEvent::Adopted(open_socket(7, 5 * S)));
    for events in [[adopted.clone(), Event::Socket(open)], [Event::Socket(open), adopted.clone()]] {
        let records = records(events.into_iter().chain(sockets(closed_locally(open, 16 * S))).chain([adopted.clone()]));
        assert_eq!(opens(&records).len(), 1);
        let [connection] = connections(&records)[..] else { panic!("one connection") };
        assert!(!connection.preexisting && connection.opened_at.is_some());
    }
}

#[test]
fn present_states_fill_what_is_still_open_by_its_ends() {
    let present = |state| user(UserEvent::Present(OpenSocket { state, ..open_socket(99, 20 * S) }));
    let events = [Event::Socket(opened(7, 10 * S)), present(tcp_state::ESTABLISHED), stop(21 * S)];
    let records = records(events);
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert!(connection.open && connection.close.is_none());
    assert_eq!((connection.bytes_sent, connection.srtt), (Some(500), Some(9 * MS)));
    // Two seconds when it was looked at, one more until the stop.
    assert_eq!(connection.idle_before_close, Some(3 * S));
}

#[test]
fn a_connection_that_is_gone_at_the_stop_is_not_called_open() {
    // Its end was missed; only a survey of its namespace that does not show it can tell.
    let netns = opened(7, 0).netns;
    let survey = |netns| user(UserEvent::Surveyed { netns: vec![netns] });
    let present = user(UserEvent::Present(open_socket(99, 20 * S)));
    let run = |events: &[Event]| records([Event::Socket(opened(7, 10 * S))].into_iter().chain(events.to_vec()));

    let gone = run(&[survey(netns), stop(21 * S)]);
    let [connection] = connections(&gone)[..] else { panic!("one connection") };
    assert!(!connection.open && connection.close.is_none());
    assert_eq!(connection.confidence[0].field, "close");
    assert!(
        gone.iter().any(|record| matches!(record, Record::Loss(loss) if loss.cause == "end_unseen" && loss.count == 1))
    );

    for still_there in [run(&[present, survey(netns), stop(21 * S)]), run(&[survey(netns + 1), stop(21 * S)])] {
        let [connection] = connections(&still_there)[..] else { panic!("one connection") };
        assert!(connection.open);
    }
}

#[test]
fn without_the_release_hook_a_life_ends_with_tcp() {
    let hook = |backend: Option<&str>| Hook {
        name: "tcp_close".into(),
        backend: backend.map(Into::into),
        reason: None,
        without: None,
    };
    let ended = SocketRecord { released_at: 0, ..closed_locally(opened(7, 10 * S), 16 * S)[1] };
    let run = |backend| {
        let hooks = user(UserEvent::Hooks(vec![hook(backend)]));
        let next = Event::Socket(opened(8, 17 * S));
        let records = records([hooks, Event::Socket(opened(7, 10 * S)), Event::Socket(ended), next]);
        // What was put out before the next connection opened, not at the stop.
        records.iter().take_while(|record| !matches!(record, Record::Open(open) if open.id.socket == 8)).count()
    };
    assert_eq!(run(None), 2, "open and connection");
    assert_eq!(run(Some("fentry")), 1, "the release is still to come");
}

#[test]
fn a_socket_dead_since_before_the_trace_is_kept_for_at_least_as_long_as_it_was_watched() {
    let dead = OpenSocket { state: tcp_state::CLOSE_WAIT, ..open_socket(7, 5 * S) };
    let records = records([user(UserEvent::Adopted(dead)), stop(25 * S)]);
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    let close = connection.close.as_ref().expect("the peer closed");
    assert_eq!((close.closer, close.unnoticed), (Closer::Peer, Some(20 * S)));
    assert_eq!(connection.confidence[0].bound, Bound::Lower);
}

#[test]
fn a_passed_socket_belongs_to_who_releases_it() {
    let open = opened(7, 10 * S);
    let handed = closed_locally(SocketRecord { tgid: 55, ..open }, 16 * S);
    let records = records(sockets([open]).into_iter().chain(sockets(handed)));
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert_eq!((connection.process.pid, connection.opened_by), (55, Some(1234)));
    assert_eq!(connection.confidence[0].field, "pid");
}

#[test]
fn a_goodbye_right_before_the_end_makes_idle_a_lower_bound() {
    let goodbye = closed_locally(opened(7, 10 * S), 16 * S).map(|r| SocketRecord { sent_idle_ticks: 0, ..r });
    let records = records(sockets(goodbye));
    let [connection] = connections(&records)[..] else { panic!("one connection") };
    assert_eq!(connection.idle_before_close, Some(0));
    assert_eq!(
        (connection.confidence[0].field, connection.confidence[0].bound),
        ("idle_before_close_ms", Bound::Lower)
    );
}

#[test]
fn beyond_its_bound_the_table_drops_the_oldest_and_counts_it() {
    let limits = Limits { max_connections: 2, ..LIMITS };
    let records = records_within(limits, sockets((1..=5).map(|id| opened(id, id * S))));
    let sockets: Vec<_> = connections(&records).iter().map(|connection| connection.id.socket).collect();
    assert_eq!(sockets, [4, 5]);
    let losses = &summary(&records).losses;
    assert_eq!((losses[0].cause.as_str(), losses[0].count), ("table_full", 3));
    let emitted: u64 = records.iter().map(|record| if let Record::Loss(loss) = record { loss.count } else { 0 }).sum();
    assert_eq!(emitted, 3);
}

#[test]
fn where_memory_is_short_an_eighth_is_forgotten_the_oldest_first_and_counted() {
    let mut records = Vec::new();
    let mut correlator = Correlator::new(CLOCK, LIMITS);
    let mut emit = |record: &Record| records.push(record.clone());
    for event in sockets((1..=16).map(|id| opened(id, id * S))) {
        correlator.apply(&event, &mut emit);
    }
    assert!(correlator.make_room(&mut emit));
    correlator.finish(&mut emit);
    let sockets: Vec<_> = connections(&records).iter().map(|connection| connection.id.socket).collect();
    assert_eq!(sockets, (3..=16).collect::<Vec<_>>());
    let losses = &summary(&records).losses;
    assert_eq!((losses[0].cause.as_str(), losses[0].count), ("memory_full", 2));
}

#[test]
fn groups_beyond_their_bound_are_one() {
    let limits = Limits { max_groups: 2, ..LIMITS };
    let to = |port| SocketRecord { remote_port: port, ..opened(port.into(), 10 * S) };
    let records = records_within(limits, sockets([to(1), to(2), to(3), to(4)]));
    let summary = summary(&records);
    assert_eq!(summary.groups.len(), 2);
    assert_eq!(summary.other.as_ref().map(|other| other.connections), Some(2));
}

/// The events of one connection, in order.
fn any_connection(id: u64) -> impl Strategy<Value = Vec<SocketRecord>> {
    let manner = prop_oneof![Just(0), Just(1), Just(2), Just(3)];
    (manner, 1..1_000_000_000u64, 1..1_000_000_000u64).prop_map(move |(manner, opened_at, lived)| {
        let open = if id.is_multiple_of(2) { opened(id, opened_at) } else { accepted(id, opened_at) };
        let at = opened_at + 20 * MS + lived;
        match manner {
            0 => [&[open][..], &closed_locally(open, at)].concat(),
            1 => [&[open][..], &closed_by_peer(open, at, lived)].concat(),
            2 => vec![failed(id, opened_at, lived, libc::ETIMEDOUT)],
            _ => vec![open],
        }
    })
}

/// Many connections' events, each with what becomes of it on its way and where it lands among the others.
fn any_stream() -> impl Strategy<Value = Vec<(SocketRecord, bool, bool, Index)>> {
    let ids = 1..=20u64;
    ids.map(any_connection).collect::<Vec<_>>().prop_flat_map(|connections| {
        let fate = |record| (Just(record), prop::bool::weighted(0.2), prop::bool::weighted(0.2), any::<Index>());
        connections.concat().into_iter().map(fate).collect::<Vec<_>>()
    })
}

/// Bytes that only the kind makes an event.
fn any_garbage() -> impl Strategy<Value = SocketRecord> {
    let kinds = [kind::CONNECTING, kind::OPENED, kind::PEER_CLOSED, kind::RELEASED, kind::ENDED];
    (prop::collection::vec(any::<u8>(), 200), 0..8u64, prop::sample::select(kinds.to_vec()), 0..4u64).prop_map(
        |(bytes, id, kind, opened_at)| {
            let record = SocketRecord::read_from_bytes(&bytes).unwrap_or_else(|_| SocketRecord::new_zeroed());
            SocketRecord { id, kind, opened_at, ..record }
        },
    )
}

fn any_user_event() -> impl Strategy<Value = Event> {
    (0..8u64, any::<u64>(), any::<u8>(), any::<u64>(), 0..4).prop_map(|(cookie, at, state, idle, what)| {
        let socket = OpenSocket { state, sent_idle: Some(idle), ..open_socket(cookie, at) };
        user(match what {
            0 => UserEvent::Adopted(socket),
            1 => UserEvent::Present(socket),
            _ => UserEvent::Lost { at, place: "kernel".into(), cause: at.to_string(), count: at },
        })
    })
}

fn assert_ends_with_its_only_summary(records: &[Record]) {
    let summaries = records.iter().filter(|record| matches!(record, Record::Summary(_))).count();
    assert_eq!(summaries, 1);
    let told = u64::try_from(connections(records).len()).expect("few");
    assert_eq!(summary(records).connections, told);
}

proptest! {
    #[test]
    fn every_connection_is_reported_exactly_once(stream in any_stream()) {
        let mut placed: Vec<(usize, SocketRecord)> = Vec::new();
        let mut seen = HashMap::new();
        for (record, lost, duplicated, place) in stream {
            if !lost {
                *seen.entry(record.id).or_insert(0) += 1;
                placed.push((place.index(1000), record));
            }
            if duplicated {
                seen.entry(record.id).or_insert(1);
                placed.push((place.index(997), record));
            }
        }
        placed.sort_by_key(|(place, _)| *place);
        let records = records(placed.into_iter().map(|(_, record)| Event::Socket(record)).chain([stop(100 * S)]));
        let mut told = HashMap::new();
        for connection in connections(&records) {
            *told.entry(connection.id.socket).or_insert(0) += 1;
        }
        prop_assert!(told.values().all(|times| *times == 1));
        prop_assert_eq!(told.len(), seen.len());
        assert_ends_with_its_only_summary(&records);
    }

    #[test]
    fn garbage_neither_panics_nor_repeats_a_connection(
        events in prop::collection::vec(
            prop_oneof![4 => any_garbage().prop_map(Event::Socket), 1 => any_user_event()],
            0..200,
        ),
        max_connections in 1..10usize,
    ) {
        let limits = Limits { max_connections, max_processes: 3, max_groups: 3 };
        let records = records_within(limits, events);
        let mut told = HashMap::new();
        for connection in connections(&records) {
            *told.entry(connection.id).or_insert(0) += 1;
        }
        // What was dropped for want of room may come again: no memory is left of it.
        let dropped = summary(&records).losses.iter().any(|loss| loss.cause == "table_full");
        prop_assert!(dropped || told.values().all(|times| *times == 1));
        assert_ends_with_its_only_summary(&records);
    }
}
