//! What people see.

use insta::assert_snapshot;
use tracer::{
    output::{Output, text::Text},
    stage::event::{Event, OpenSocket, UserEvent},
    track::record::{Hook, Record},
};
use tracer_ebpf::{
    SocketRecord, flag, kind, tcp_state,
    tls::handshake::{Handshake, phase},
};
use zerocopy::FromZeros;

use crate::support::*;

fn text(colour: bool, records: &[Record]) -> String {
    written(Text::new(colour, false), records)
}

fn written(mut writer: Text, records: &[Record]) -> String {
    let mut out = Vec::new();
    for record in records {
        writer.record(record, &mut out);
    }
    String::from_utf8(out).expect("UTF-8")
}

fn hook(name: &str, backend: Option<&str>) -> Hook {
    Hook {
        name: name.into(),
        backend: backend.map(Into::into),
        reason: backend.is_none().then(|| "no such function in this kernel".into()),
        without: backend.is_none().then(|| "retransmits".into()),
    }
}

/// One of everything that can happen to a connection.
fn a_night() -> Vec<Event> {
    let after = |id: u64| id * 10 * S;
    let mut events = vec![
        user(UserEvent::Hooks(vec![hook("tcp_connect", Some("fentry")), hook("tcp_retransmit_skb", None)])),
        identity(1234, "curl"),
        user(UserEvent::Adopted(OpenSocket { local: ([10, 0, 0, 2], 39_999).into(), ..open_socket(90, 2 * S) })),
        user(UserEvent::Adopted(OpenSocket {
            state: tcp_state::CLOSE_WAIT,
            local: ([10, 0, 0, 2], 39_998).into(),
            ..open_socket(91, 2 * S)
        })),
    ];
    let mut add = |records: &[SocketRecord]| events.extend(sockets(records.iter().copied()));
    let open = |id| opened(id, after(id));
    let drop = |id, error: i32, flags| {
        let ended = ending(open(id), after(id) + 6 * S, tcp_state::ESTABLISHED, tcp_state::CLOSE);
        let (at, flags, error) = (ended.at, ended.flags | flags, error.cast_unsigned());
        SocketRecord { kind: kind::ENDED, ended_at: at, released_at: at + 400 * MS, flags, error, ..ended }
    };
    add(&[open(1)]);
    add(&closed_locally(open(1), after(1) + 6 * S));
    add(&[accepted(2, after(2))]);
    add(&closed_by_peer(accepted(2, after(2)), after(2) + 6 * S, 30 * S));
    add(&[failed(3, after(3), 310_000, libc::ECONNREFUSED)]);
    add(&[failed(4, after(4), 127 * S, libc::ETIMEDOUT)]);
    add(&[failed(5, after(5), 3 * S, libc::EHOSTUNREACH)]);
    add(&[failed(6, after(6), 3 * S, 0)]);
    add(&[open(7), drop(7, libc::ECONNRESET, flag::RST_RECEIVED)]);
    add(&[open(8), drop(8, 0, flag::RST_SENT)]);
    add(&[open(9), drop(9, libc::ETIMEDOUT, 0)]);
    add(&[open(10)]);
    add(&closed_locally(open(10), after(10) + 6 * S).map(|record| SocketRecord {
        flags: record.flags | flag::PROCESS_EXITED,
        sent_idle_ticks: 0,
        ..record
    }));
    let ipv6 = |open: SocketRecord| SocketRecord {
        remote_address: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        comm: *b"\x1b]0;evil\n\xff\0\0\0\0\0\0",
        tgid: 66,
        opener_tgid: 66,
        ..open
    };
    add(&[ipv6(open(11))]);
    add(&closed_by_peer(open(12), after(12) + 6 * S, 100)[..1]);
    add(&[SocketRecord { kind: kind::CONNECTING, established_at: 0, ..open(13) }]);
    events.push(user(UserEvent::Lost { at: after(14), place: "kernel".into(), cause: "ring_full".into(), count: 3 }));
    events.push(user(UserEvent::Present(OpenSocket {
        local: ([10, 0, 0, 2], 39_999).into(),
        ..open_socket(90, after(14))
    })));
    events.push(stop(after(14)));
    events
}

#[test]
fn a_line_for_each_way_to_end_and_a_table() {
    assert_snapshot!(text(false, &records(a_night())));
}

#[test]
fn colours_are_codes_around_the_same_text() {
    let records = records([failed(1, 2 * S, MS, libc::ECONNREFUSED)].map(Event::Socket));
    assert_snapshot!(text(true, &records).escape_debug().to_string().replace("\\n", "\n"));
}

#[test]
fn an_empty_trace_has_a_summary() {
    assert_eq!(text(false, &records([stop(61 * S)])), "\n0 connections in 1.00 min, 0 still open\n");
}

#[test]
fn a_connect_that_failed_at_once_took_no_time() {
    let unreachable =
        SocketRecord { flags: flag::FINISHED | flag::NO_SYN, ..failed(1, 2 * S, 2_000, libc::ENETUNREACH) };
    let text = text(false, &records([unreachable].map(Event::Socket)));
    assert!(text.lines().next().is_some_and(|line| line.ends_with("  unreachable (ENETUNREACH)")), "{text}");
}

/// A TLS client that uses a connection again, one that writes to a dead one, and a server that is at work at the stop.
fn exchanges_of_a_night() -> Vec<Event> {
    let mut client = Traffic::new(opened(1, 10 * S));
    client.shakes_hands(Handshake {
        started_at: 10 * S + 12_300_000,
        ended_at: 10 * S + 227_100_000,
        cpu: 12 * MS,
        runqueue: 300_000,
        phase: phase::DONE,
        ..Handshake::new_zeroed()
    });
    client.sends(11 * S, 400).receives(11 * S + 92 * MS, 5_000);
    client.sends(14 * S, 400).receives(14 * S + 31 * MS, 5_000).closes(16 * S);
    let mut dead = Traffic::new(opened(2, 20 * S));
    dead.sends(21 * S, 100).receives(21 * S + 40 * MS, 900);
    let [peer_closed, released, ended] = closed_by_peer(opened(2, 20 * S), 26 * S, 4 * S);
    dead.lifecycle(peer_closed).sends(30 * S, 100).lifecycle(released).lifecycle(ended);
    let mut server = Traffic::new(accepted(3, 40 * S));
    server.receives(40 * S + MS, 300).sends(40 * S + 51 * MS, 8_000);
    let events = [identity(1234, "curl")].into_iter().chain(client.events).chain(dead.events).chain(server.events);
    events.chain([stop(50 * S)]).collect()
}

#[test]
fn each_exchange_has_a_line_of_its_phases_if_asked_for() {
    assert_snapshot!(written(Text::new(false, true), &records(exchanges_of_a_night())));
}

#[test]
fn without_being_asked_exchanges_show_in_the_summary_alone() {
    let all = records(exchanges_of_a_night());
    let quiet = written(Text::new(false, false), &all);
    let verbose = written(Text::new(false, true), &all);
    let left: Vec<_> =
        verbose.lines().filter(|line| !line.contains("first byte") && !line.contains("no answer")).collect();
    assert_eq!(quiet.lines().collect::<Vec<_>>(), left);
}
