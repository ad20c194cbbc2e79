//! What distance costs: with 100 ms each way, connect, handshake and first byte show their round trips.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    thread,
};

use harness::{
    Backend, Comparison, Connection, Ends, Exchange, Family, Link, Namespace, Pair, SLACK_MS, Tracer,
    tls::{Client, Nginx, Request, Site, Told},
    until_undisturbed,
};

/// Both ways. So much that what is computed meanwhile stays below it: nginx takes nearly 100 ms of an emulated processor for P-384.
const ROUND_TRIP_MS: f64 = 200.0;

/// What programs and an emulated processor may add to that many round trips, in the best of several connections: others
/// may be computing at the same time. Less than a round trip, or one too many would not be seen.
const COMPUTING_MS: f64 = 180.0;

/// All of these must take that many round trips, and the best of them hardly more.
#[track_caller]
fn assert_round_trips(comparison: &mut Comparison, what: &str, all_ms: &[Option<f64>], round_trips: f64) {
    let least = round_trips * ROUND_TRIP_MS;
    for ms in all_ms {
        let ms = ms.unwrap_or_else(|| panic!("{what} is known"));
        assert!(ms >= least - SLACK_MS, "{what}: {ms} ms are less than {round_trips} round trips");
        comparison.at_most(what, ms, least + COMPUTING_MS);
    }
}

/// Connections here to a server that is 100 ms away, with three requests on each: what the client told, and what was traced.
fn over_distance(site: Site, client: Client, resume: bool) -> Vec<(Told, Connection, Vec<Exchange>)> {
    // Running before the first connection.
    Tracer::shared(Backend::Auto);
    Link::run("delay 100ms", |_, link| {
        let nginx = link.there(|| Nginx::listening_on(&[SocketAddr::new(Link::THERE, 0)]));
        let to = SocketAddr::new(Link::THERE, nginx.port(site));
        let told = client.run(&Request { requests: 3, connections: 4, gap_ms: 150, resume, ..Request::to(to) });
        // While the server is there: nobody would answer the last connection's FIN, and it would go on for minutes.
        told.into_iter().map(|told| traced(told, to)).collect()
    })
}

/// What was traced of a connection that the client told of; greetings, which session tickets look like, left out.
fn traced(told: Told, to: SocketAddr) -> (Told, Connection, Vec<Exchange>) {
    let trace = Tracer::shared(Backend::Auto);
    let port = told.local_port.expect("the client knows its port");
    let connection = trace.connection(Ends::new(SocketAddr::new(Link::HERE, port), to));
    let exchanges = trace.exchanges_of(&connection);
    (told, connection, exchanges.into_iter().filter(|exchange| !exchange.greeting).collect())
}

/// Fails unless handshakes take that many round trips, and everything else one.
#[track_caller]
fn check(site: Site, client: Client, resume: bool, handshake: f64) -> Vec<Connection> {
    until_undisturbed(|comparison| check_once(comparison, site, client, resume, handshake))
}

/// What a client told of a connection, and what was traced of it.
type Seen = (Told, Connection, Vec<Exchange>);

#[track_caller]
fn check_once(
    comparison: &mut Comparison,
    site: Site,
    client: Client,
    resume: bool,
    handshake: f64,
) -> Vec<Connection> {
    let mut all = over_distance(site, client, resume);
    if resume {
        all.retain(|(told, ..)| told.resumed);
        assert_eq!(all.len(), 3, "all but the first");
    }
    let mut take = |what: &str, value: fn(&Seen) -> Option<f64>, round_trips| {
        assert_round_trips(comparison, what, &all.iter().map(value).collect::<Vec<_>>(), round_trips);
    };
    // First of all the client itself must have seen them.
    take("the client's own connect", |(told, ..)| told.connect_ms, 1.0);
    take("the client's own handshake", |(told, ..)| told.handshake_ms, handshake);
    take("the client's own first byte", |(told, ..)| told.first_byte_ms, 1.0);
    take("connect_ms", |(_, connection, _)| connection.connect_ms, 1.0);
    take("handshake_ms", |(_, connection, _)| connection.tls().handshake_ms, handshake);
    take("first_byte_ms when cold", |(.., exchanges)| exchanges[0].first_byte_ms, 1.0);
    take("first_byte_ms when warm", |(.., exchanges)| exchanges[2].first_byte_ms, 1.0);
    for (told, connection, exchanges) in &all {
        let tls = connection.tls();
        let (handshake_ms, told_ms) = (tls.handshake_ms.expect("checked"), told.handshake_ms.expect("checked"));
        comparison.same("handshake_ms as the client measured it", handshake_ms, told_ms);
        let longest_ms = told_ms + told.after_ms.expect("told") + SLACK_MS;
        assert!(handshake_ms <= longest_ms, "longer than all that the client did, {longest_ms} ms: {connection:#?}");
        let [cold, warm @ ..] = &exchanges[..] else { panic!("three exchanges: {exchanges:#?}") };
        assert_eq!(warm.len(), 2, "{exchanges:#?}");
        let setup = cold.setup.as_ref().unwrap_or_else(|| panic!("{cold:#?}"));
        let total_ms = setup.total_ms.unwrap_or_else(|| panic!("{cold:#?}"));
        assert!(total_ms >= (1.0 + handshake) * ROUND_TRIP_MS - SLACK_MS, "connect and handshake: {cold:#?}");
        if let Some(wait_ms) = tls.wait_ms {
            assert!(wait_ms <= handshake_ms, "{connection:#?}");
            // On the way nobody computes, but others may keep the client from waiting.
            let not_waited_ms = handshake * ROUND_TRIP_MS - wait_ms;
            comparison.at_most("round trips that were not waited for", not_waited_ms, SLACK_MS);
        }
        for warm in warm {
            assert!(warm.idle_before_ms.is_some_and(|ms| ms >= 150.0 - SLACK_MS), "{warm:#?}");
            assert_eq!(warm.setup, None, "{warm:#?}");
        }
    }
    all.into_iter().map(|(_, connection, _)| connection).collect()
}

#[test]
fn tls_1_3_takes_one_round_trip() {
    check(Site::Tls13, Client::Rustls, false, 1.0);
    check(Site::Tls13, Client::Rustls, true, 1.0);
}

#[test]
fn tls_1_2_takes_two_and_resumed_one() {
    check(Site::Tls12, Client::Rustls, false, 2.0);
    check(Site::Tls12, Client::Rustls, true, 1.0);
}

#[test]
fn another_hello_takes_a_round_trip_more() {
    for connection in check(Site::OtherGroup, Client::Rustls, false, 2.0) {
        assert_eq!(connection.tls().retried, Some(true), "{connection:#?}");
    }
}

/// Enough segments that one in a hundred is hit for sure: that none of 3,000 is has a chance below one in a trillion.
const BYTES: usize = 4_000_000;

#[test]
fn one_percent_of_loss_shows_as_retransmits_and_in_the_duration() {
    let trace = Tracer::shared(Backend::Auto);
    let (ends, info) = Namespace::run(|namespace| {
        let pair = Pair::new(Family::V4);
        namespace.emulate("delay 5ms loss 1%");
        // One segment a packet, as on a real network.
        harness::run("ip link set lo mtu 1500 gso_max_segs 1");
        let (mut client, mut server) = (pair.client(), pair.server());
        client.write_all(&[1; 100]).expect("send");
        server.read_exact(&mut [0; 100]).expect("receive");
        thread::scope(|scope| {
            scope.spawn(move || server.write_all(&vec![0; BYTES]).expect("send"));
            client.read_exact(&mut vec![0; BYTES]).expect("receive");
        });
        let info = harness::tcp_info(pair.server());
        let ends = pair.server_ends();
        harness::set_linger_zero(pair.server());
        drop(pair);
        (ends, info)
    });
    assert!(info.retransmits > 0, "the network lost something");
    let server = trace.connection(ends);
    assert!(server.retransmits.is_some_and(|count| count >= info.retransmits), "TCP says {info:?}: {server:#?}");
    let exchanges = trace.exchanges_of(&server);
    let [exchange] = &exchanges[..] else { panic!("one: {exchanges:#?}") };
    assert_eq!((exchange.bytes_out, exchange.bytes_in), (Some(BYTES as u64), Some(100)));
    assert!(exchange.duration_ms > exchange.first_byte_ms, "{exchange:#?}");
    let client = trace.exchanges_of(&trace.connection(ends.flipped()));
    assert!(client[0].first_byte_ms.is_some_and(|ms| ms >= 9.0), "5 ms each way: {client:#?}");
}

#[test]
fn a_lost_syn_shows_in_the_setup() {
    let trace = Tracer::shared(Backend::Auto);
    let (ends, took_ms) = Namespace::run(|namespace| {
        let listener = harness::listen(Family::V4);
        let to = listener.local_addr().expect("local address");
        let rule = namespace.drop_incoming(&format!("tcp dport {} tcp flags syn", to.port()));
        let before = harness::monotonic_ns();
        let client = thread::spawn({
            let netns = std::fs::File::open("/proc/thread-self/ns/net").expect("this namespace");
            move || {
                nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("the same namespace");
                std::net::TcpStream::connect(to).expect("connect")
            }
        });
        harness::eventually("the first SYN to be dropped", || (rule.packets() > 0).then_some(()));
        drop(rule);
        let mut client = client.join().expect("the client");
        let took_ms = (harness::monotonic_ns() - before) as f64 / 1e6;
        let (mut server, _) = listener.accept().expect("accept");
        client.write_all(b"ask").expect("send");
        server.read_exact(&mut [0; 3]).expect("receive");
        server.write_all(b"answer").expect("send");
        client.read_exact(&mut [0; 6]).expect("receive");
        (Ends::of(&client), took_ms)
    });
    let client = trace.connection(ends);
    assert!(client.syn_retransmits.is_some_and(|count| count >= 1), "{client:#?}");
    let exchanges = trace.exchanges_of(&client);
    let setup = exchanges[0].setup.as_ref().unwrap_or_else(|| panic!("{exchanges:#?}"));
    let total_ms = setup.total_ms.unwrap_or_else(|| panic!("{setup:#?}"));
    assert!((900.0..=took_ms + 1.0).contains(&total_ms), "a second until the SYN is repeated: {setup:#?}");
}
