//! What the findings say of records: each rule with a case in which it holds, and with the unusual that it must not take for it.

use tracer::{
    findings::{
        Findings, When,
        finding::{Figure, Finding, Trust},
        known_timeouts::{KNOWN, Known},
    },
    output::{Output, diagnosis::TextDiagnosis, ndjson::Ndjson, text::Text},
    stage::event::{Event, UserEvent},
    track::{
        Limits,
        record::{CpuQuota, Hello, HttpMethod, Lookup, LookupWay, Process, Record, Throttling},
    },
};
use tracer_ebpf::{
    SocketRecord,
    tls::handshake::{Handshake, phase},
};
use zerocopy::FromZeros;

use crate::support::*;

/// When the correlator and the findings begin.
const BEGAN: u64 = 10 * S;

/// What is found in the events of these connections, told at the end.
fn found(connections: impl IntoIterator<Item = Traffic>) -> Vec<Finding> {
    found_in(&timeline(connections), When::AtTheEnd)
}

/// The events of several connections in the order of their times.
fn timeline(connections: impl IntoIterator<Item = Traffic>) -> Vec<Record> {
    let mut events: Vec<_> = connections.into_iter().flat_map(|traffic| traffic.events).collect();
    events.sort_by_key(time_of);
    let last = events.last().map_or(BEGAN, time_of);
    events.push(stop(last.max(BEGAN + 60 * S)));
    records(events)
}

fn time_of(event: &Event) -> u64 {
    match event {
        Event::Socket(record) => record.at,
        Event::Detailed(record) => record.socket.at,
        Event::Exchange(record) => record.at,
        Event::Tls(record) => record.at,
        Event::User(event) => match &**event {
            UserEvent::Http { at, .. } | UserEvent::Hello { at, .. } => *at,
            _ => 0,
        },
        Event::Process(_) => 0,
    }
}

fn found_in(records: &[Record], when: When) -> Vec<Finding> {
    let mut findings = Findings::new(when, CLOCK.wall(BEGAN));
    let mut told = Vec::new();
    for record in records {
        findings.observe(record, &mut |finding| told.push(finding));
    }
    assert!(told.len() >= findings.count());
    told
}

fn rules(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.rule).collect()
}

/// The only finding, which is of this rule.
fn only(mut findings: Vec<Finding>, rule: &str) -> Finding {
    assert_eq!(rules(&findings), [rule]);
    findings.remove(0)
}

fn figure(finding: &Finding, name: &str) -> Figure {
    let figure = finding.evidence.iter().find(|(known, _)| *known == name);
    figure.unwrap_or_else(|| panic!("no {name} in {finding:#?}")).1
}

fn count(finding: &Finding, name: &str) -> u64 {
    match figure(finding, name) {
        Figure::Count(count) => count,
        other => panic!("{name} is {other:?}"),
    }
}

fn ms(finding: &Finding, name: &str) -> u64 {
    match figure(finding, name) {
        Figure::Time(Some(time)) => time / MS,
        other => panic!("{name} is {other:?}"),
    }
}

/// A client's connection that is opened then, with as many exchanges, each of 2 ms, and a gap between them.
fn client(id: u64, opened_at: u64, exchanges: u64, gap: u64) -> (Traffic, u64) {
    let mut traffic = Traffic::new(opened(id, opened_at));
    let ready = opened_at + 12_300_000;
    let mut last = ready;
    for turn in 0..exchanges {
        let at = ready + MS + turn * gap;
        last = at + 2 * MS;
        traffic.sends(at, 100).receives(last, 200);
    }
    (traffic, last)
}

/// Connections with one exchange every `gap`, closed by this side `idle` after it.
fn closed_after(idle: impl Fn(u64) -> u64, gap: u64, connections: u64) -> Vec<Traffic> {
    let each = |n| {
        let (mut traffic, last) = client(n + 1, BEGAN + n * gap, 1, 0);
        traffic.closes(last + idle(n));
        traffic
    };
    (0..connections).map(each).collect()
}

#[test]
fn an_idle_timeout_of_ones_own_is_found_with_what_it_costs() {
    let finding = only(found(closed_after(|n| 5 * S + n * MS, 7 * S, 8)), "local-idle-timeout");
    assert!(ms(&finding, "idle_timeout_ms").abs_diff(5_000) < 50, "{finding:#?}");
    assert_eq!((count(&finding, "closes_at_timeout"), count(&finding, "closes")), (8, 8));
    assert_eq!((count(&finding, "exchanges"), count(&finding, "cold_by_timeout")), (8, 7));
    assert!(ms(&finding, "gap_ms_median").abs_diff(6_985) < 100, "{finding:#?}");
    assert!(ms(&finding, "keeps_99_ms") >= 6_900);
    assert_eq!(finding.cost.map(|cost| cost / MS), Some(86), "seven setups of 12.3 ms");
    assert!(finding.hint.as_deref().is_some_and(|hint| hint.contains("HttpURLConnection")), "{:?}", finding.hint);
    assert!(finding.advice.contains("8 s"), "{}", finding.advice);
    assert!(finding.examples.len() == 3 && finding.caveats.len() <= 1);
}

#[test]
fn a_pool_that_shrinks_and_is_not_missed_is_no_finding() {
    assert_eq!(
        rules(&found((0..8).map(|n| {
            let (mut traffic, _) = client(n + 1, BEGAN + n * MS, 3, S);
            traffic.closes(BEGAN + 20 * S);
            traffic
        }))),
        [""; 0]
    );
}

#[test]
fn a_pool_that_is_let_go_of_as_a_whole_shows_no_idle_timeout_though_it_is_missed() {
    let pool = |first: u64, at: u64, apart: u64| (0..6).map(move |n| client(first + n, at + n * apart, 3, 100 * MS));
    let is_found = |apart| {
        let gone = pool(1, BEGAN, apart).map(|(mut traffic, last)| {
            traffic.closes(last + 2 * S);
            traffic
        });
        let later = pool(11, BEGAN + 30 * S, MS).map(|(traffic, _)| traffic);
        rules(&found(gone.chain(later))).contains(&"local-idle-timeout")
    };
    assert!(!is_found(MS), "all were closed at one moment");
    assert!(is_found(2 * S));
}

#[test]
fn closes_at_random_times_are_no_idle_timeout() {
    let random = |n: u64| [900, 6_100, 2_300, 4_400, 3_100, 1_500, 5_200, 3_900][n as usize % 8] * MS;
    assert_eq!(rules(&found(closed_after(random, 7 * S, 8))), [""; 0]);
}

#[test]
fn an_idle_timeout_that_exchanges_come_long_after_is_not_to_blame() {
    // No idle connection is kept for a quarter of an hour.
    assert_eq!(rules(&found(closed_after(|_| 5 * S, 900 * S, 8))), [""; 0]);
}

#[test]
fn the_peers_idle_timeout_is_found() {
    let connections = (0..8).map(|n| {
        let open = opened(n + 1, BEGAN + n * 25 * S);
        let (mut traffic, last) = client(n + 1, BEGAN + n * 25 * S, 2, 100 * MS);
        for event in closed_by_peer(open, last + 20 * S, 3 * MS) {
            traffic.lifecycle(event);
        }
        traffic
    });
    let finding = only(found(connections), "peer-idle-timeout");
    assert!(ms(&finding, "idle_timeout_ms").abs_diff(20_000) < 100, "{finding:#?}");
    assert_eq!(count(&finding, "cold_by_timeout"), 7);
    assert!(finding.hint.as_deref().is_some_and(|hint| hint.contains("Tomcat")), "{:?}", finding.hint);
}

#[test]
fn one_exchange_a_connection_is_found_and_who_asked_for_it() {
    let once = |asks: bool| {
        found((0..10).map(|n| {
            let at = BEGAN + n * S;
            let mut traffic = Traffic::new(opened(n + 1, at));
            traffic.sends(at + 13 * MS, 100);
            if asks {
                let mut head = request(HttpMethod::Get);
                head.connection.push("close".into());
                traffic.head(at + 13 * MS, true, head);
            }
            traffic.receives(at + 15 * MS, 100).closes(at + 16 * MS);
            traffic
        }))
    };
    let finding = only(once(true), "no-reuse");
    assert_eq!((count(&finding, "connections"), count(&finding, "close_asked_local")), (10, 10));
    assert_eq!(figure(&finding, "exchanges_per_connection"), Figure::Ratio(Some(1.0)));
    assert_eq!(finding.confidence, Trust::High);
    assert!(finding.title.contains("this side asks to close"), "{}", finding.title);
    let finding = only(once(false), "no-reuse");
    assert_eq!((count(&finding, "close_asked_local"), finding.confidence), (0, Trust::Medium));
}

#[test]
fn downloads_and_rare_checks_on_connections_of_their_own_are_no_finding() {
    let downloads = (0..10).map(|n| {
        let at = BEGAN + n * 3 * S;
        let mut traffic = Traffic::new(opened(n + 1, at));
        traffic
            .sends(at + 13 * MS, 100)
            .receives(at + 20 * MS, 1_000)
            .receives(at + 2 * S, 1 << 20)
            .closes(at + 2 * S + MS);
        traffic
    });
    assert_eq!(rules(&found(downloads)), [""; 0]);
    assert_eq!(rules(&found(closed_after(|_| MS, 30 * S, 10))), [""; 0], "a check every 30 s");
}

#[test]
fn a_request_on_a_connection_that_the_peer_had_closed_is_found_with_the_time_it_cost() {
    let open = opened(1, BEGAN);
    let (mut traffic, last) = client(1, BEGAN, 3, S);
    let [peer_closed, released, ended] = closed_by_peer(open, last + 60 * S, 90 * S);
    let asked_at = last + 100 * S;
    let failed_at = asked_at + 10 * S;
    let released = SocketRecord { at: failed_at, released_at: failed_at, ..released };
    let ended = SocketRecord { at: failed_at + MS, released_at: failed_at, ended_at: failed_at + MS, ..ended };
    traffic.lifecycle(peer_closed).sends(asked_at, 100).lifecycle(released).lifecycle(ended);
    let (next, _) = client(2, failed_at + MS, 1, 0);
    let finding = only(found([traffic, next]), "stale-exchange");
    assert_eq!((count(&finding, "stale_exchanges"), count(&finding, "by_fin")), (1, 1));
    assert!(ms(&finding, "unnoticed_ms_median").abs_diff(40_000) < 500, "{finding:#?}");
    assert!(ms(&finding, "lost_until_failed_ms_median").abs_diff(10_000) < 100, "{finding:#?}");
    assert!(ms(&finding, "lost_until_answered_ms_median").abs_diff(10_016) < 150, "{finding:#?}");
    assert!(ms(&finding, "dead_after_ms").abs_diff(60_000) < 200, "{finding:#?}");
    assert!(ms(&finding, "alive_until_ms").abs_diff(998) < 10, "{finding:#?}");
}

#[test]
fn what_is_asked_long_after_is_no_second_try_and_the_advice_lies_between_alive_and_dead() {
    let open = opened(1, BEGAN);
    let (mut traffic, last) = client(1, BEGAN, 3, 58 * S);
    let [peer_closed, released, ended] = closed_by_peer(open, last + 60 * S, 90 * S);
    let asked_at = last + 100 * S;
    let released = SocketRecord { at: asked_at + MS, released_at: asked_at + MS, ..released };
    let ended =
        SocketRecord { at: asked_at + 2 * MS, released_at: asked_at + MS, ended_at: asked_at + 2 * MS, ..ended };
    traffic.lifecycle(peer_closed).sends(asked_at, 100).lifecycle(released).lifecycle(ended);
    let (next, _) = client(2, asked_at + 300 * S, 1, 0);
    let finding = only(found([traffic, next]), "stale-exchange");
    assert_eq!(figure(&finding, "lost_until_answered_ms_median"), Figure::Time(None));
    assert!(finding.cost.is_some_and(|cost| cost < 10 * MS), "{finding:#?}");
    assert!(finding.advice.contains("idle timeout below 59"), "{}", finding.advice);
}

#[test]
fn each_process_has_a_pool_of_its_own() {
    let of_its_own = closed_after(|_| 5 * S, 7 * S, 8).into_iter().zip(2_000_u32..).map(|(mut traffic, pid)| {
        for event in &mut traffic.events {
            if let Event::Detailed(record) = event {
                (record.socket.tgid, record.socket.opener_tgid) = (pid, pid);
            }
        }
        traffic
    });
    assert_eq!(rules(&found(of_its_own)), [""; 0]);
}

#[test]
fn a_connection_that_died_in_silence_is_found_and_keepalive_advised() {
    let open = opened(1, BEGAN);
    let (mut traffic, last) = client(1, BEGAN, 3, S);
    let asked_at = last + 100 * S;
    traffic.sends(asked_at, 100);
    let [released, _] = closed_locally(open, asked_at + 10 * S);
    traffic.lifecycle(SocketRecord { unacknowledged: 12, ..released });
    let (next, _) = client(2, asked_at + 10 * S + MS, 1, 0);
    let findings = found([traffic, next]);
    assert_eq!(rules(&findings), ["stale-exchange", "keepalive-off"]);
    let [stale, keepalive] = &findings[..] else { panic!("two") };
    assert_eq!((count(stale, "in_silence"), stale.confidence), (1, Trust::Medium));
    assert!(ms(stale, "lost_until_answered_ms_median").abs_diff(10_016) < 150, "{stale:#?}");
    assert!(ms(stale, "dead_after_ms").abs_diff(100_000) < 300, "{stale:#?}");
    assert_eq!(count(keepalive, "silent_drops"), 1);
}

/// A connection that took 100 ms, with exchanges of 20 ms, the first so long after it was ready.
fn slow(id: u64, exchanges: u64, ahead: u64) -> Traffic {
    let at = BEGAN + id * MS;
    let mut socket = opened(id, at);
    socket.established_at = at + 100 * MS;
    socket.at = socket.established_at;
    let mut traffic = Traffic::new(socket);
    for turn in 0..exchanges {
        let at = socket.established_at + ahead + turn * S;
        traffic.sends(at, 100).receives(at + 20 * MS, 100);
    }
    traffic
}

#[test]
fn many_first_exchanges_that_paid_are_a_cold_start() {
    let finding = only(found((1..=4).map(|id| slow(id, 3, MS))), "cold-start");
    assert_eq!((count(&finding, "cold_at_start"), count(&finding, "pool_needed")), (4, 4));
    assert!(ms(&finding, "cold_ms_median").abs_diff(120) < 3 && ms(&finding, "warm_ms_median").abs_diff(20) < 2);
    assert_eq!(rules(&found((1..=4).map(|id| slow(id, 1, MS)))), [""; 0], "there is nothing warm to compare with");
    assert_eq!(rules(&found((1..=2).map(|id| slow(id, 9, MS)))), [""; 0], "two are any beginning");
    assert_eq!(rules(&found((1..=4).map(|id| slow(id, 3, S)))), [""; 0], "opened ahead of need: nobody waited");
}

#[test]
fn a_peer_far_away_is_found_unless_something_else_takes_the_time() {
    let far = |answer: u64| {
        let mut findings = found((1..=6).map(|id| {
            let mut traffic = slow(id, 0, 0);
            let at = BEGAN + id * MS + 101 * MS;
            traffic.sends(at, 100).receives(at + answer, 100);
            traffic
        }));
        findings.retain(|finding| finding.rule == "connect-far");
        findings
    };
    let finding = only(far(100 * MS), "connect-far");
    assert!(ms(&finding, "connect_ms_median").abs_diff(100) < 3, "{finding:#?}");
    assert!(far(2 * S).is_empty(), "twenty round trips are not the distance");
}

#[test]
fn connects_that_fail_are_found_by_kind_but_not_a_port_scan() {
    let refused = |n: u64| Event::Socket(failed(n + 1, BEGAN + n * S, MS, libc::ECONNREFUSED));
    let to_one = records((0..6).map(refused));
    let finding = only(found_in(&to_one, When::AtTheEnd), "connect-failures");
    assert_eq!((count(&finding, "failed"), count(&finding, "refused")), (6, 6));
    let scan = records((0..50).map(|n| {
        let record = failed(n + 1, BEGAN + n * MS, MS, libc::ECONNREFUSED);
        Event::Socket(SocketRecord { remote_port: 1_000 + n as u16, ..record })
    }));
    assert_eq!(rules(&found_in(&scan, When::AtTheEnd)), [""; 0]);
}

/// A client's connections whose full handshakes took so long, hardly any of it on a processor, each with a request so long after.
fn starved(full: u64, pause: u64, resumed: impl Fn(u64) -> bool) -> Vec<Traffic> {
    let each = |n: u64| {
        let at = BEGAN + 10 * n * S;
        let mut traffic = Traffic::new(opened(n + 1, at));
        let hello = Hello { resumed: Some(resumed(n)), ..Hello::default() };
        traffic.events.push(user(UserEvent::Hello { at: at + 20 * MS, id: n + 1, hello: hello.into() }));
        let took = if resumed(n) { full / 5 } else { full };
        let ready = at + 15 * MS + took;
        traffic.shakes_hands(Handshake {
            started_at: at + 15 * MS,
            ended_at: ready,
            cpu: took / 10,
            runqueue: took * 8 / 10,
            phase: phase::DONE,
            ..Handshake::new_zeroed()
        });
        let asks = ready + pause;
        traffic.sends(asks, 100).receives(asks + 2 * MS, 100).closes(asks + 3 * MS);
        traffic
    };
    (0..4).map(each).collect()
}

#[test]
fn a_handshake_that_is_not_let_run_is_found_with_the_quota_and_what_would_spare_it() {
    let mut connections = starved(500 * MS, MS, |n| n == 3);
    let quota = Some(CpuQuota { thousandths: 70, cgroup: 9 });
    let Event::User(mut who) = identity(1234, "curl") else { panic!("an event of user space") };
    let UserEvent::Identity(identity) = &mut *who else { panic!("an identity") };
    identity.quota = quota;
    let throttled = |cgroup, throttled_periods| {
        let at = BEGAN + 4 * S;
        user(UserEvent::Throttled {
            at,
            cgroup,
            periods: 40,
            throttled_periods,
            throttled: throttled_periods * 93 * MS,
        })
    };
    let seen = [Event::User(who), throttled(9, 4), throttled(9, 36), throttled(8, 40)];
    connections[0].events.splice(0..0, seen);
    let mut findings = found(connections);
    findings.retain(|finding| finding.rule == "handshake-cpu");
    let finding = only(findings, "handshake-cpu");
    assert_eq!((count(&finding, "handshakes"), count(&finding, "resumed")), (4, 1));
    assert_eq!(figure(&finding, "quota_cpus"), Figure::Ratio(Some(0.07)));
    assert_eq!(figure(&finding, "throttled_periods_share"), Figure::Ratio(Some(0.9)));
    assert_eq!(ms(&finding, "throttled_ms"), 36 * 93);
    assert!(ms(&finding, "resumption_saves_ms").abs_diff(400) < 10, "{finding:#?}");
    assert!(
        finding.advice.contains("0.07 processors (cpu.max) and used that up in 90 % of its periods"),
        "{}",
        finding.advice
    );
    assert!(finding.advice.contains("as those show that did"), "{}", finding.advice);

    let of_full = |full, pause| {
        let mut findings = found(starved(full, pause, |_| false));
        findings.retain(|finding| finding.rule == "handshake-cpu");
        findings
    };
    assert!(of_full(500 * MS, 1_500 * MS).is_empty(), "opened ahead of need");
    assert_eq!(of_full(3 * S, 1_500 * MS).len(), 1, "the request was as slow as the handshake");
    let finding = only(of_full(500 * MS, MS), "handshake-cpu");
    for unknown in ["quota_cpus", "throttled_periods_share"] {
        assert_eq!(figure(&finding, unknown), Figure::Ratio(None));
    }
    assert_eq!(figure(&finding, "resumption_saves_ms"), Figure::Time(None));
    assert!(finding.advice.contains("none was resumed here"), "{}", finding.advice);
}

#[test]
fn lookups_that_take_long_are_found_unless_their_process_is_not_let_run() {
    let quota = CpuQuota { thousandths: 70, cgroup: 9 };
    let lookup = |n: u64| {
        Record::Lookup(Lookup {
            process: Process { comm: "curl".into(), quota: Some(quota), ..Process::default() }.into(),
            tid: 7,
            netns: None,
            way: LookupWay::Port53 { server: ([10, 0, 0, 53], 53).into(), tcp: false },
            name: "host.test".into(),
            record_type: Some("A".into()),
            asked_at: CLOCK.wall(BEGAN + n * S).expect("a time"),
            latency: Some(150 * MS),
            rcode: Some("NOERROR".into()),
            answers: Vec::new(),
            retries: 0,
        })
    };
    let mut records = records([]);
    let summary = records.pop().expect("a summary");
    let found = |throttled_periods| {
        let at = CLOCK.wall(BEGAN).expect("a time");
        let throttling = Throttling { at, cgroup: 9, periods: 10, throttled_periods, throttled: S };
        let records = [Record::Throttling(throttling)].into_iter().chain((0..6).map(lookup)).chain([summary.clone()]);
        rules(&found_in(&records.collect::<Vec<_>>(), When::AtTheEnd))
    };
    assert_eq!(found(2), ["slow-dns"]);
    assert_eq!(found(8), [""; 0]);
}

#[test]
fn connections_that_are_kept_long_after_the_peers_end_are_a_leak_unless_they_are_still_sent_to() {
    let kept = |sends: bool| {
        (0..3).map(move |n| {
            let open = accepted(n + 1, BEGAN + n * MS);
            let mut traffic = Traffic::new(open);
            let at = BEGAN + 10 * MS;
            traffic.receives(at, 100).sends(at + MS, 100);
            let [peer_closed, released, ended] = closed_by_peer(open, at + S, 90 * S);
            traffic.lifecycle(peer_closed);
            if sends {
                traffic.sends(at + 50 * S, 100);
            }
            traffic.lifecycle(released).lifecycle(ended);
            traffic
        })
    };
    let finding = only(found(kept(false)), "leaked-close-wait");
    assert_eq!(count(&finding, "connections"), 3);
    assert!(ms(&finding, "open_for_ms_max").abs_diff(90_000) < 500, "{finding:#?}");
    assert_eq!(rules(&found(kept(true))), [""; 0], "the peer had ended its direction only");
}

#[test]
fn a_finding_that_holds_is_told_though_nothing_more_happens() {
    let refused = |n: u64| Event::Socket(failed(n + 1, BEGAN + n * MS, MS, libc::ECONNREFUSED));
    let mut records = records((0..6).map(refused));
    records.retain(|record| !matches!(record, Record::Summary(_)));
    let mut findings = Findings::new(When::AtOnce, CLOCK.wall(BEGAN));
    let told = std::cell::RefCell::new(Vec::new());
    let mut tell = |finding: Finding| told.borrow_mut().push(finding.rule);
    records.iter().for_each(|record| findings.observe(record, &mut tell));
    assert_eq!(*told.borrow(), [""; 0]);
    for seconds in 1..4 {
        findings.pass_to(CLOCK.wall(BEGAN + seconds * S).expect("a time"), &mut tell);
    }
    assert_eq!(*told.borrow(), ["connect-failures"]);
}

#[test]
fn a_loss_lowers_the_confidence_and_is_named() {
    let mut records = timeline(closed_after(|_| 5 * S, 7 * S, 12));
    let certain = only(found_in(&records, When::AtTheEnd), "local-idle-timeout");
    let lost = tracer::track::record::Loss {
        at: CLOCK.wall(BEGAN + S).expect("a time"),
        place: "kernel".into(),
        cause: "ring_full".into(),
        count: 7,
    };
    records.insert(0, Record::Loss(lost));
    let doubtful = only(found_in(&records, When::AtTheEnd), "local-idle-timeout");
    assert!(doubtful.confidence < certain.confidence);
    assert!(doubtful.caveats.iter().any(|caveat| caveat.contains("7 events were lost: ring_full")), "{doubtful:#?}");
}

#[test]
fn while_a_trace_goes_on_a_finding_is_told_once_and_again_when_it_has_grown_tenfold() {
    let told = |connections| {
        let records = timeline(closed_after(|_| 5 * S, 7 * S, connections));
        let findings = found_in(&records, When::AtOnce);
        findings.iter().map(|finding| count(finding, "cold_by_timeout")).collect::<Vec<_>>()
    };
    // Ten milliseconds a minute are worth telling from four setups on, while the first minute lasts.
    assert_eq!(told(8), [4]);
    let grown = told(60);
    assert_eq!(grown.len(), 2, "{grown:?}");
    assert!(grown[1] >= 10 * grown[0]);
}

#[test]
fn groups_beyond_the_bound_are_taken_together_and_that_is_told() {
    let scan = |ports: u16| {
        let open = |n: u16| Event::Socket(SocketRecord { remote_port: n, ..opened(n.into(), BEGAN + u64::from(n)) });
        records_within(Limits { max_connections: 10_000, ..LIMITS }, (1..=ports).map(open))
    };
    let remark = |records: &[Record]| {
        let mut findings = Findings::new(When::AtTheEnd, CLOCK.wall(BEGAN));
        records.iter().for_each(|record| findings.observe(record, &mut |finding| panic!("{finding:?}")));
        findings.remark()
    };
    assert_eq!(remark(&scan(448)), None);
    assert!(remark(&scan(3_000)).is_some_and(|remark| remark.contains("2552 records")));
}

#[test]
fn what_is_so_of_each_record_is_found_beyond_the_bound_too_and_nothing_that_takes_one_destination() {
    let leaks = |destinations: u64, kept: u64| {
        let each = move |n: u64| {
            let open = SocketRecord { remote_port: 1 + (n % destinations) as u16, ..opened(n + 1, BEGAN + n * MS) };
            let mut traffic = Traffic::new(open);
            let at = BEGAN + n * MS + 20 * MS;
            traffic.sends(at, 100).receives(at + MS, 100);
            let [peer_closed, released, ended] = closed_by_peer(open, at + S, kept);
            traffic.lifecycle(peer_closed).lifecycle(released).lifecycle(ended);
            traffic
        };
        let mut events: Vec<_> = (0..destinations).map(each).flat_map(|traffic| traffic.events).collect();
        events.sort_by_key(time_of);
        events.push(stop(BEGAN + 200 * S));
        found_in(&records_within(Limits { max_connections: 10_000, ..LIMITS }, events), When::AtTheEnd)
    };
    assert_eq!(rules(&leaks(450, 90 * S)), [""; 0], "two are beyond the bound, and the rule takes three");
    let finding = only(leaks(451, 90 * S), "leaked-close-wait");
    assert_eq!((finding.comm.as_str(), finding.destination.as_str()), ("curl", "other"));
    assert_eq!(count(&finding, "connections"), 3);
    assert!(finding.caveats.iter().any(|caveat| caveat.contains("not kept apart")), "{finding:#?}");
    // All of these together would be failures by the hundred, of one destination each.
    let scan = records((0..1_000).map(|n| {
        let record = failed(n + 1, BEGAN + n * MS, MS, libc::ECONNREFUSED);
        Event::Socket(SocketRecord { remote_port: 1_000 + n as u16, ..record })
    }));
    assert_eq!(rules(&found_in(&scan, When::AtTheEnd)), [""; 0]);
}

#[test]
fn every_rule_has_its_section_and_every_known_timeout_its_line() {
    let page = include_str!("../../../docs/findings.md");
    for rule in Findings::rules() {
        assert!(page.contains(&format!("\n## {rule}\n")), "{rule} has no section in docs/findings.md");
    }
    for Known { seconds, side, whose, source, .. } in KNOWN {
        let side = format!("{side:?}").to_lowercase();
        let begins = format!("| {seconds} | {side} | {whose} | ");
        let is_told = |line: &str| line.starts_with(&begins) && line.ends_with(&format!("| {source} |"));
        assert!(page.lines().any(is_told), "docs/findings.md lacks {whose}");
    }
}

#[test]
fn the_schema_knows_every_rule_and_takes_what_a_hostile_name_leads_to() {
    let schema = crate::ndjson::schema();
    let example = only(found(closed_after(|_| 5 * S, 7 * S, 8)), "local-idle-timeout");
    let hostile = "\u{1b}[31m\n\"\u{202e}\\";
    for rule in Findings::rules() {
        let finding = Finding { rule, comm: hostile.into(), destination: hostile.into(), ..example.clone() };
        let mut line = Vec::new();
        Ndjson::default().finding(&finding, &mut line);
        let text = String::from_utf8(line).expect("UTF-8");
        assert!(text.ends_with('\n') && text.trim_end().chars().all(|c| !c.is_control() && c != '\u{202e}'), "{text}");
        let value = serde_json::from_str(&text).expect("JSON");
        assert!(
            schema.is_valid(&value),
            "{:?} in {text}",
            schema.iter_errors(&value).map(|e| e.to_string()).collect::<Vec<_>>()
        );
    }
    let mut text = Vec::new();
    Text::new(false, false)
        .finding(&Finding { comm: hostile.into(), destination: hostile.into(), ..example }, &mut text);
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{text}");
    assert!(text.lines().next().is_some_and(|line| line.contains("local-idle-timeout")), "{text}");
}

#[test]
fn a_diagnosis_tells_findings_and_what_was_looked_at_and_nothing_else() {
    let diagnose = |connections: Vec<Traffic>| {
        let (mut output, mut told) = (TextDiagnosis::new(false), Vec::new());
        let mut findings = Findings::new(When::AtTheEnd, CLOCK.wall(BEGAN));
        for record in &timeline(connections) {
            findings.observe(record, &mut |finding| output.finding(&finding, &mut told));
            output.record(record, &mut told);
        }
        String::from_utf8(told).expect("UTF-8")
    };
    let healthy = diagnose(vec![client(1, BEGAN, 5, S).0]);
    assert_eq!(healthy, "nothing found; looked at 1 connection and 5 exchanges with 1 destination in 1.15 min\n");
    let sick = diagnose(closed_after(|_| 5 * S, 7 * S, 8));
    assert!(sick.starts_with("LOW     local-idle-timeout  curl -> 10.0.0.1:443  cost 86.1 ms"), "{sick}");
    assert!(sick.contains("\n1 finding; looked at 8 connections and 8 exchanges"), "{sick}");
}
