//! TLS as the wire shows it, held against what clients and servers of many libraries say of themselves.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use harness::{
    Backend, Closer, Comparison, Connection, Ends, Family, How, Namespace, Pair, Role, SLACK_MS, Tls, Tracer, listen,
    output_within, set_linger_zero,
    tls::{Authority, Chopper, Client, NAME, Nginx, PythonServer, Request, Served, Site, Told, hello},
    until_undisturbed,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use time::OffsetDateTime;

/// No handshake takes less on an emulated processor.
const SHORTEST_MS: f64 = 0.5;

/// A client's record of a connection to a server, opened since a moment: an earlier server may have had the same port. The
/// harness itself looks whether servers listen.
#[track_caller]
fn client_of(trace: &Tracer, to: SocketAddr, since: OffsetDateTime) -> Connection {
    trace.connection_where(&format!("the client of {to}"), |connection| {
        connection.remote == to
            && connection.pid != std::process::id()
            && connection.opened_at.is_some_and(|at| at >= since)
    })
}

/// The record of a connection that came about. One that was refused, as its server did not listen yet, may have had the same ports.
#[track_caller]
fn established(trace: &Tracer, ends: Ends) -> Connection {
    let is_refused = |connection: &Connection| connection.close.as_ref().is_some_and(|close| close.how == How::Refused);
    trace.connection_where(&format!("{ends:?}"), |connection| {
        Ends::new(connection.local, connection.remote) == ends && !is_refused(connection)
    })
}

/// The client's record of a connection that it told of.
#[track_caller]
fn traced(trace: &Tracer, told: &Told, to: SocketAddr) -> Connection {
    let port = told.local_port.unwrap_or_else(|| panic!("the client knows its port: {told:#?}"));
    established(trace, Ends::new(SocketAddr::new(to.ip(), port), to))
}

/// Holds both ends' records against what the client told and what nginx logged. Returns the client's.
#[track_caller]
fn assert_as_told(
    comparison: &mut Comparison,
    trace: &Tracer,
    nginx: &Nginx,
    told: &Told,
    client: Connection,
) -> Connection {
    let tls = client.tls();
    let handshake_ms = tls.handshake_ms.unwrap_or_else(|| panic!("the handshake ended: {client:#?}"));
    let told_ms = told.handshake_ms.unwrap_or_else(|| panic!("every client measures: {told:#?}"));
    let kind = if told.resumed { "resumed" } else { "full" };
    comparison.same(&format!("{} {} {kind}", told.client, told.version), handshake_ms, told_ms);
    assert!(handshake_ms >= SHORTEST_MS, "{client:#?}");
    if let Some(after_ms) = told.after_ms {
        // Disturbed or not: it had sent or received its last message when it was told of the end.
        let longest_ms = told_ms + after_ms + SLACK_MS;
        assert!(handshake_ms <= longest_ms, "more than {longest_ms} ms in all: {told:#?} {client:#?}");
    }
    if let Some(setup_ms) = told.setup_ms {
        // Node is told of the end before it sends its last message, which goes along with the request.
        let longest_ms = setup_ms + told.first_byte_ms.unwrap_or(0.0);
        let traced_ms = client.connect_ms.unwrap_or(0.0) + handshake_ms;
        assert!(traced_ms <= longest_ms + SLACK_MS, "{traced_ms} ms, but {longest_ms} ms in all: {client:#?}");
    }
    assert_eq!(tls.version.as_deref(), Some(told.version.as_str()), "{client:#?} {told:#?}");
    assert_eq!(tls.resumed, Some(told.resumed), "{client:#?} {told:#?}");
    let server = trace.connection(Ends::new(client.remote, client.local));
    assert_eq!((client.role, server.role), (Some(Role::Client), Some(Role::Server)));
    assert_eq!(server.pid, nginx.pid());
    // nginx logs what was asked for.
    let served = (told.exchanges != Some(0)).then(|| nginx.served(client.local.port()));
    for end in [&client, &server] {
        let tls = end.tls();
        if let Some(served) = &served {
            assert_as_served(end, served);
        }
        assert_eq!((tls.failed.as_ref(), tls.mid_stream, tls.source.as_str()), (None, Some(false), "wire"), "{end:#?}");
        assert_eq!(tls.sni.as_deref(), Some(NAME));
        assert_eq!(
            (end.remote_name.as_deref(), end.remote_name_source.as_deref()),
            match end.role {
                Some(Role::Client) => (Some(NAME), Some("sni")),
                // The name is the server's own, not its peer's.
                _ => (None, None),
            }
        );
        assert_times_add_up(end);
    }
    let server_ms = server.tls().handshake_ms.unwrap_or_else(|| panic!("{server:#?}"));
    assert!(server_ms > 0.0, "{server:#?}");
    if told.version == "1.2" && !told.resumed {
        // The client sends the first message and receives the last.
        assert!(handshake_ms >= server_ms, "the server's lies within the client's: {client:#?} {server:#?}");
    }
    client
}

/// Holds an end's record against what nginx logged.
#[track_caller]
fn assert_as_served(end: &Connection, served: &Served) {
    let tls = end.tls();
    assert_eq!(tls.version.as_deref(), Some(served.version()), "{end:#?} {served:#?}");
    assert_eq!(tls.cipher.as_deref(), Some(served.cipher().as_str()), "{end:#?} {served:#?}");
    assert_eq!(tls.sni.as_deref(), served.sni(), "{end:#?} {served:#?}");
    assert_eq!(tls.resumed, Some(served.resumed()), "{end:#?} {served:#?}");
    if served.version() == "1.2" {
        assert_eq!(tls.alpn.as_deref(), served.alpn(), "TLS 1.2 shows it: {end:#?} {served:#?}");
    } else {
        assert_eq!(tls.alpn, None, "it is encrypted: {end:#?}");
    }
}

/// Processor, run queue and waiting are the handshake, where they are known.
#[track_caller]
fn assert_times_add_up(connection: &Connection) {
    let Tls { handshake_ms: Some(all), cpu_ms: Some(cpu), runqueue_ms: Some(queued), wait_ms: Some(wait), .. } =
        connection.tls()
    else {
        let told = |note: &harness::record::Confidence| note.field.starts_with("tls.") || note.field.contains("cpu_ms");
        assert!(connection.confidence.iter().any(told), "what is not known is explained: {connection:#?}");
        return;
    };
    assert!([cpu, queued, wait].into_iter().all(|part| *part >= 0.0), "{connection:#?}");
    assert!((all - cpu - queued - wait).abs() < 0.01, "{connection:#?}");
}

/// Runs a client against a site and holds each of its connections against what it says; returns those. Repeated until each
/// kind of its handshakes was undisturbed once; all else must be right each time.
#[track_caller]
fn check(nginx: &Nginx, site: Site, client: Client, request: &Request<'_>) -> Vec<(Connection, Told)> {
    check_by(Backend::Auto, nginx, site, client, request)
}

#[track_caller]
fn check_by(
    backend: Backend,
    nginx: &Nginx,
    site: Site,
    client: Client,
    request: &Request<'_>,
) -> Vec<(Connection, Told)> {
    let request = Request { to: nginx.address(site), ..request.clone() };
    until_undisturbed(|comparison| check_once(comparison, backend, nginx, client, &request))
}

#[track_caller]
fn check_once(
    comparison: &mut Comparison,
    backend: Backend,
    nginx: &Nginx,
    client: Client,
    request: &Request<'_>,
) -> Vec<(Connection, Told)> {
    let trace = Tracer::shared(backend);
    let mut checked = Vec::new();
    for told in client.run(request) {
        let connection = traced(&trace, &told, request.to);
        let connection = assert_as_told(comparison, &trace, nginx, &told, connection);
        if let Some(exchanges) = told.exchanges.filter(|count| *count > 0) {
            assert_requests_are_exchanges(&trace, &connection, exchanges, request, &told);
        }
        checked.push((connection, told));
    }
    checked
}

/// With HTTP/1 each request is an exchange. TLS 1.3's session tickets may come between handshake and first request: they
/// cannot be told from data.
#[track_caller]
fn assert_requests_are_exchanges(trace: &Tracer, client: &Connection, count: u64, request: &Request<'_>, told: &Told) {
    let exchanges = trace.exchanges_of(client);
    assert_eq!(
        exchanges.iter().filter(|exchange| !exchange.greeting).count() as u64,
        count,
        "{client:#?} {exchanges:#?}"
    );
    let first = exchanges.iter().find(|exchange| !exchange.greeting).expect("at least one request");
    if let (Some(told_ms), Some(first_byte_ms)) = (told.first_byte_ms, first.first_byte_ms) {
        // The client's own includes what it computes before and after.
        assert!(first_byte_ms <= told_ms + SLACK_MS, "{first_byte_ms} ms, but the client says {told_ms}: {first:#?}");
    }
    let cold = exchanges.iter().find(|exchange| exchange.cold == Some(true)).expect("one is cold");
    let setup = cold.setup.as_ref().expect("it paid the setup");
    assert_eq!((setup.connect_ms, setup.handshake_ms), (client.connect_ms, client.tls().handshake_ms), "{cold:#?}");
    for warm in exchanges.iter().filter(|exchange| !exchange.greeting).skip(1) {
        assert_eq!(warm.cold, Some(false));
        assert!(warm.idle_before_ms.is_some_and(|ms| ms >= request.gap_ms as f64 - SLACK_MS), "{warm:#?}");
    }
}

/// Several requests on each of several connections, which resume each other.
fn kept_alive() -> Request<'static> {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    Request { connections: 3, requests: 3, gap_ms: 40, resume: true, ..Request::to(nowhere) }
}

/// Which of them were resumed.
fn resumed(checked: &[(Connection, Told)]) -> Vec<bool> {
    checked.iter().map(|(_, told)| told.resumed).collect()
}

#[test]
fn python_full_and_resumed() {
    let nginx = Nginx::start();
    for site in [Site::Tls12, Site::Tls12Tickets, Site::Tls13] {
        let checked = check(&nginx, site, Client::Python, &kept_alive());
        assert_eq!(resumed(&checked), [false, true, true], "{site:?}");
    }
}

#[test]
fn rustls_stripped() {
    let nginx = Nginx::start();
    for site in [Site::Tls12, Site::Tls12Tickets, Site::Tls13] {
        let checked = check(&nginx, site, Client::Rustls, &kept_alive());
        assert_eq!(resumed(&checked), [false, true, true], "{site:?}");
    }
}

#[test]
fn go_net_http() {
    let nginx = Nginx::start();
    // Go resumes by tickets only.
    for site in [Site::Tls12Tickets, Site::Tls13] {
        let checked = check(&nginx, site, Client::Go, &kept_alive());
        assert_eq!(resumed(&checked), [false, true, true], "{site:?}");
    }
}

#[test]
fn node_https_with_and_without_keep_alive() {
    let nginx = Nginx::start();
    for site in [Site::Tls12, Site::Tls13] {
        let one = check(&nginx, site, Client::NodeKeepAlive, &kept_alive());
        assert_eq!(resumed(&one), [false], "{site:?}");
        let each = check(&nginx, site, Client::Node, &kept_alive());
        assert_eq!(resumed(&each), [false, true, true], "{site:?}");
    }
}

#[test]
fn java_https_url_connection() {
    let nginx = Nginx::start();
    for site in [Site::Tls12, Site::Tls13] {
        let checked = check(&nginx, site, Client::JavaUrl, &kept_alive());
        assert_eq!(resumed(&checked), [false, true, true], "{site:?}");
    }
}

#[test]
fn java_http_client() {
    let nginx = Nginx::start();
    for site in [Site::Tls12, Site::Tls13] {
        let checked = check(&nginx, site, Client::JavaHttp, &kept_alive());
        assert_eq!(resumed(&checked), [false, true, true], "{site:?}");
    }
}

#[test]
fn gnutls_cli_full_and_resumed() {
    let nginx = Nginx::start();
    for site in [Site::Tls12Tickets, Site::Tls13] {
        let checked = check(&nginx, site, Client::Gnutls, &kept_alive());
        assert_eq!(resumed(&checked), [false, true], "{site:?}");
    }
}

#[test]
fn curl_with_http2() {
    let nginx = Nginx::start();
    for site in [Site::Http2, Site::Http2Tls12] {
        let checked = check(&nginx, site, Client::Curl, &Request { connections: 1, ..kept_alive() });
        let [(connection, _)] = &checked[..] else { panic!("one: {checked:#?}") };
        assert_eq!(nginx.served(connection.local.port()).alpn(), Some("h2"));
        let offered: Vec<_> = ["h2", "http/1.1"].map(str::to_owned).into();
        assert_eq!(connection.tls().alpn_offered, Some(offered));
    }
}

#[test]
fn openssl_full_and_resumed_and_its_offers() {
    let nginx = Nginx::start();
    let dir = tempfile::tempdir().expect("a folder");
    let session = dir.path().join("session");
    let session = session.to_str().expect("UTF-8");
    for site in [Site::Tls12, Site::Tls13] {
        let first = Request { connections: 1, more: &["-sess_out", session, "-alpn", "http/1.1"], ..kept_alive() };
        let second = Request { more: &["-sess_in", session], ..first.clone() };
        let both = [first, second].map(|request| check(&nginx, site, Client::Openssl, &request));
        assert_eq!(both.iter().map(|one| resumed(one)).collect::<Vec<_>>(), [[false], [true]], "{site:?}");
        let tls = both[0][0].0.tls();
        assert_eq!(tls.alpn_offered.as_deref(), Some(&["http/1.1".to_owned()][..]));
        // OpenSSL offers what it supports and, here, nothing older than 1.2.
        let offered = tls.versions_offered.as_deref().unwrap_or_else(|| panic!("{tls:#?}"));
        assert!(offered.contains(&"1.3".to_owned()) && offered.contains(&"1.2".to_owned()), "{tls:#?}");
        assert_eq!(both[1][0].0.tls().alpn_offered.as_deref().unwrap_or_default(), &[] as &[String]);
        assert_eq!(tls.retried, Some(false));
    }
}

#[test]
fn a_server_that_wants_another_group_asks_for_another_hello() {
    let nginx = Nginx::start();
    for client in [Client::Openssl, Client::Python, Client::Go] {
        let checked = check(&nginx, Site::OtherGroup, client, &Request { connections: 1, requests: 1, ..kept_alive() });
        let [(connection, _)] = &checked[..] else { panic!("one: {checked:#?}") };
        assert_eq!(connection.tls().retried, Some(true), "{connection:#?}");
        let server = Tracer::shared(Backend::Auto).connection(Ends::new(connection.remote, connection.local));
        assert_eq!(server.tls().retried, Some(true), "{server:#?}");
    }
}

#[test]
fn a_client_with_a_certificate_of_its_own() {
    let nginx = Nginx::start();
    let certificate = Some(Authority::get().client());
    for site in [Site::Mutual12, Site::Mutual13] {
        for client in [Client::Openssl, Client::Python, Client::Rustls] {
            check(&nginx, site, client, &Request { certificate, connections: 1, requests: 1, ..kept_alive() });
        }
    }
}

#[test]
fn kprobes_see_it_too() {
    let nginx = Nginx::start();
    for site in [Site::Tls12, Site::Tls12Tickets, Site::Tls13] {
        for client in [Client::Python, Client::Rustls] {
            let checked = check_by(Backend::Kprobe, &nginx, site, client, &kept_alive());
            assert_eq!(resumed(&checked), [false, true, true], "{site:?}");
        }
    }
}

#[test]
fn ipv6_is_no_different() {
    let trace = Tracer::shared(Backend::Auto);
    let nginx = Nginx::start();
    let to = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), nginx.port(Site::Tls13));
    until_undisturbed(|comparison| {
        for told in Client::Python.run(&Request { to, connections: 1, ..kept_alive() }) {
            let client = traced(&trace, &told, to);
            assert_eq!(client.family, "ipv6");
            assert_as_told(comparison, &trace, &nginx, &told, client);
        }
    });
}

#[test]
fn a_servers_handshake_is_what_the_server_measured() {
    let trace = Tracer::shared(Backend::Auto);
    for version in ["1.2", "1.3"] {
        let mut server =
            PythonServer::start(&[&format!("version={version}"), "alpn=http/1.1", "service_ms=60"].map(|s| s as &str));
        let request = Request { to: server.address(), ..kept_alive() };
        until_undisturbed(|comparison| {
            for told in Client::Python.run(&request) {
                assert_as_watched(comparison, &trace, &told, &request, &mut server);
            }
        });
    }
}

/// Holds a server's record against what the server says of its next connection, which takes 60 ms to answer.
#[track_caller]
fn assert_as_watched(
    comparison: &mut Comparison,
    trace: &Tracer,
    told: &Told,
    request: &Request<'_>,
    server: &mut PythonServer,
) {
    let watched = server.watched();
    let client = traced(trace, told, request.to);
    let end = trace.connection(Ends::new(client.remote, client.local));
    assert_eq!((end.pid, end.role), (server.pid(), Some(Role::Server)));
    let tls = end.tls();
    let handshake_ms = tls.handshake_ms.unwrap_or_else(|| panic!("{end:#?}"));
    let kind = if watched.resumed { "resumed" } else { "full" };
    comparison.same(&format!("server {} {kind}", watched.version), handshake_ms, watched.handshake_ms);
    let lifetime_ms = client.lifetime_ms.unwrap_or_else(|| panic!("{client:#?}"));
    assert!((SHORTEST_MS..=lifetime_ms).contains(&handshake_ms), "{end:#?} {watched:#?}");
    assert_eq!(tls.version, Some(watched.version));
    assert_eq!((tls.sni.clone(), tls.resumed), (watched.sni, Some(watched.resumed)));
    assert_times_add_up(&end);
    let exchanges = trace.exchanges_of(&end);
    let asked: Vec<_> = exchanges.iter().filter(|exchange| !exchange.greeting).collect();
    assert_eq!(asked.len() as u64, watched.exchanges, "{exchanges:#?}");
    for exchange in asked {
        let service_ms = exchange.first_byte_ms.unwrap_or_else(|| panic!("{exchange:#?}"));
        assert!(service_ms >= 60.0, "the server's own time: {exchange:#?}");
        comparison.at_most("the server's own time", service_ms, 100.0);
    }
}

/// Both ends of the only connection to a port since a moment.
#[track_caller]
fn both_ends(trace: &Tracer, to: SocketAddr, since: OffsetDateTime) -> [Connection; 2] {
    let client = client_of(trace, to, since);
    let server = trace.connection(Ends::new(to, client.local));
    [client, server]
}

/// What both ends must say of a handshake that failed since a moment; `by` as the client sees it.
#[track_caller]
fn assert_failed(
    trace: &Tracer,
    (to, since): (SocketAddr, OffsetDateTime),
    how: &str,
    by: Closer,
    alert: Option<&str>,
) -> [Connection; 2] {
    let ends = both_ends(trace, to, since);
    let at_server = match by {
        Closer::Local => Closer::Peer,
        Closer::Peer => Closer::Local,
        Closer::None => Closer::None,
    };
    for (end, by) in ends.iter().zip([by, at_server]) {
        let failed = end.tls().failed();
        assert_eq!((failed.how.as_str(), failed.by, failed.alert.as_deref()), (how, by, alert), "{end:#?}");
        assert_eq!(end.tls().handshake_ms, None, "it was never done: {end:#?}");
        assert!(failed.after_ms.is_some_and(|ms| ms >= 0.0), "{end:#?}");
        assert_eq!(end.tls().sni.as_deref(), Some(NAME), "{end:#?}");
    }
    ends
}

/// A client that must fail.
#[track_caller]
fn fail(client: Client, to: SocketAddr, more: &[&str]) {
    let output = client.try_run(&Request { more, ..Request::to(to) });
    assert!(!output.status.success(), "{client:?} {more:?} is to fail: {output:?}");
}

#[test]
fn a_version_that_the_server_refuses_ends_in_its_alert() {
    let trace = Tracer::shared(Backend::Auto);
    let since = OffsetDateTime::now_utc();
    let nginx = Nginx::start();
    let to = nginx.address(Site::Tls13);
    fail(Client::Openssl, to, &["-tls1_2"]);
    assert_failed(&trace, (to, since), "alert", Closer::Peer, Some("protocol_version"));
}

#[test]
fn a_server_that_is_not_trusted_ends_in_the_clients_alert() {
    let trace = Tracer::shared(Backend::Auto);
    let since = OffsetDateTime::now_utc();
    let nginx = Nginx::start();
    let to = nginx.address(Site::Tls12);
    fail(Client::Openssl, to, &["-no-CAfile", "-no-CApath", "-no-CAstore"]);
    let [client, _] = assert_failed(&trace, (to, since), "alert", Closer::Local, Some("unknown_ca"));
    assert_eq!(client.tls().version.as_deref(), Some("1.2"));
}

/// A client of OpenSSL that gives up before it has answered the server's flight says so in the clear, in TLS 1.3 too.
#[test]
fn a_server_that_is_not_trusted_with_tls_1_3() {
    let trace = Tracer::shared(Backend::Auto);
    let since = OffsetDateTime::now_utc();
    let nginx = Nginx::start();
    let to = nginx.address(Site::Tls13);
    fail(Client::Openssl, to, &["-no-CAfile", "-no-CApath", "-no-CAstore"]);
    let [client, server] = both_ends(&trace, to, since);
    for (end, by) in [(&client, Closer::Local), (&server, Closer::Peer)] {
        let failed = end.tls().failed();
        assert_eq!((failed.by, failed.alert.as_deref()), (by, Some("unknown_ca")), "{end:#?}");
        assert_eq!((end.tls().handshake_ms, end.tls().version.as_deref()), (None, Some("1.3")), "{end:#?}");
    }
}

#[test]
fn a_server_that_resets_in_the_middle_of_a_handshake() {
    let trace = Tracer::shared(Backend::Auto);
    let since = OffsetDateTime::now_utc();
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        assert!(stream.read(&mut [0; 16_384]).expect("the ClientHello") > 100);
        thread::sleep(Duration::from_millis(120));
        set_linger_zero(&stream);
    });
    fail(Client::Openssl, to, &[]);
    server.join().expect("the server");
    for end in assert_failed(&trace, (to, since), "rst", Closer::Peer, None) {
        assert!(end.tls().failed().after_ms.is_some_and(|ms| (119.0..1_000.0).contains(&ms)), "{end:#?}");
    }
}

#[test]
fn a_server_that_says_nothing_until_the_client_gives_up() {
    let trace = Tracer::shared(Backend::Auto);
    let since = OffsetDateTime::now_utc();
    let listener = listen(Family::V4);
    let to = listener.local_addr().expect("local address");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        std::io::copy(&mut stream, &mut std::io::sink()).expect("the client's bytes up to its end");
    });
    let mut curl = Command::new("/usr/bin/curl");
    let resolve = format!("{NAME}:{}:127.0.0.1", to.port());
    curl.args(["--silent", "--max-time", "2", "--resolve", &resolve, &format!("https://{NAME}:{}/", to.port())]);
    let output = output_within(&mut curl, None, Duration::from_secs(60));
    assert_eq!(output.status.code(), Some(28), "curl says that time is up: {output:?}");
    server.join().expect("the server");
    let [client, _] = assert_failed(&trace, (to, since), "fin", Closer::Local, None);
    assert!(client.tls().failed().after_ms.is_some_and(|ms| (500.0..3_000.0).contains(&ms)), "{client:#?}");
    client.assert_ended(Closer::Local, How::Fin);
}

#[test]
fn a_handshake_that_the_network_swallows_times_out() {
    let trace = Tracer::shared(Backend::Auto);
    let ends = Namespace::run(|namespace| {
        let pair = Pair::new(Family::V4);
        namespace.set("ipv4/tcp_retries2", "2");
        let rule = namespace.drop_incoming(&format!("tcp dport {}", pair.client_ends().remote.port()));
        let mut client = pair.client();
        client.write_all(&hello()).expect("send");
        let error = client.read(&mut [0]).expect_err("nobody answers");
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        assert!(rule.packets() > 1);
        pair.client_ends()
    });
    let client = trace.connection(ends);
    client.assert_ended(Closer::None, How::Timeout);
    let failed = client.tls().failed();
    assert_eq!(
        (failed.how.as_str(), failed.by, failed.alert.as_deref()),
        ("timeout", Closer::None, None),
        "{client:#?}"
    );
    assert!(failed.after_ms.is_some_and(|ms| ms > 200.0), "at least one retransmission: {client:#?}");
    assert_eq!(client.tls().sni.as_deref(), Some(NAME));
}

#[test]
fn tls_that_begins_in_mid_stream() {
    let trace = Tracer::shared(Backend::Auto);
    for version in ["1.2", "1.3"] {
        let mut server = PythonServer::start(&[&format!("version={version}"), "smtp=1"].map(|s| s as &str));
        let to = server.address();
        until_undisturbed(|comparison| {
            let told = Client::Openssl.run(&Request { more: &["-starttls", "smtp"], ..Request::to(to) });
            let [told] = &told[..] else { panic!("one: {told:#?}") };
            let watched = server.watched();
            assert_eq!(watched.version, version);
            let client = traced(&trace, told, to);
            let end = trace.connection(Ends::new(client.remote, client.local));
            for (end, measured_ms) in [(&client, told.handshake_ms.expect("told")), (&end, watched.handshake_ms)] {
                let tls = end.tls();
                assert_eq!(
                    (tls.mid_stream, tls.version.as_deref(), tls.sni.as_deref()),
                    (Some(true), Some(version), Some(NAME))
                );
                let handshake_ms = tls.handshake_ms.unwrap_or_else(|| panic!("{end:#?}"));
                assert!(handshake_ms >= SHORTEST_MS, "{end:#?}");
                comparison.same(&format!("STARTTLS {version} {:?}", end.role), handshake_ms, measured_ms);
            }
            let exchanges = trace.exchanges_of(&client);
            assert!(exchanges[0].greeting, "the server speaks first: {exchanges:#?}");
        });
    }
}

#[test]
fn records_may_be_cut_anywhere() {
    let trace = Tracer::shared(Backend::Auto);
    let nginx = Nginx::start();
    let cuts: [&'static [usize]; 5] =
        [&[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 700], &[3, 2, 1, 60, 100, 1_000], &[5, 300, 9, 40], &[6, 16_384], &[130]];
    for site in [Site::Tls12, Site::Tls13] {
        for pieces in cuts {
            let relay = Chopper::new(nginx.address(site), pieces);
            let request = Request { requests: 2, ..Request::to(relay.address()) };
            let told = Client::Python.run(&request);
            let [told] = &told[..] else { panic!("one: {told:#?}") };
            let client = traced(&trace, told, request.to);
            let [towards_client, towards_server] = relay.ends();
            let served = nginx.served(towards_server.local.port());
            // Four ends: the relay cuts in its sends and in its receives, in both roles.
            let relayed = [towards_client, towards_server, towards_server.flipped()];
            let relayed = relayed.map(|ends| established(&trace, ends));
            for end in [&client].into_iter().chain(&relayed) {
                let tls = end.tls();
                let seen = (tls.version.as_deref(), tls.sni.as_deref(), tls.cipher.as_deref(), tls.resumed);
                let cipher = served.cipher();
                let true_values = (Some(served.version()), served.sni(), Some(cipher.as_str()), Some(false));
                assert_eq!(seen, true_values, "{pieces:?}: {end:#?}");
                assert!(tls.handshake_ms.is_some_and(|ms| ms > 0.0), "{pieces:?}: {end:#?}");
                assert_eq!((tls.failed.as_ref(), tls.mid_stream), (None, Some(false)), "{pieces:?}: {end:#?}");
            }
        }
    }
}

/// Random bytes behind the head of a TLS record.
fn like_tls(random: &mut StdRng, kind: u8, first: u8) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(6..600)];
    random.fill(&mut bytes[..]);
    let length = u16::try_from(bytes.len() - 5).expect("short");
    bytes[..5].copy_from_slice(&[kind, 3, random.random_range(0..5), (length >> 8) as u8, length as u8]);
    bytes[5] = first;
    bytes
}

#[test]
fn what_only_looks_like_tls_gives_no_tls_and_no_name() {
    let trace = Tracer::shared(Backend::Auto);
    let mut random = StdRng::seed_from_u64(14);
    for round in 0..40 {
        let pair = Pair::new(Family::V4);
        // A handshake record without a ClientHello, other records, and a ClientHello of random bytes.
        let (kind, first) = [(0x16, 0x7f), (0x17, 1), (0x15, 2), (0x14, 1), (0x16, 1)][round % 5];
        for (from, to) in [(pair.client(), pair.server()), (pair.server(), pair.client())] {
            let bytes = like_tls(&mut random, kind, first);
            exchange_bytes(from, to, &bytes);
        }
        let ends = [pair.client_ends(), pair.server_ends()];
        drop(pair);
        for end in ends.map(|ends| trace.connection(ends)) {
            if (kind, first) == (0x16, 1) {
                let names = end.tls.as_ref().map(|tls| (&tls.sni, &tls.version, &tls.cipher, &tls.alpn));
                assert!(matches!(names, None | Some((None, None, None, None))), "round {round}: {end:#?}");
                assert_eq!(end.tls.as_ref().and_then(|tls| tls.handshake_ms), None, "round {round}: {end:#?}");
            } else {
                assert_eq!(end.tls, None, "round {round}, record {kind:#x}: {end:#?}");
            }
            assert_eq!((end.remote_name.as_ref(), end.exchanges), (None, Some(1)), "round {round}: {end:#?}");
        }
    }
}

fn exchange_bytes(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) {
    from.write_all(bytes).expect("send");
    to.read_exact(&mut vec![0; bytes.len()]).expect("receive");
}

/// A ClientHello in many sends with time in between, and larger than one segment in the network.
#[test]
fn a_hello_over_several_sends_begins_with_its_first_byte() {
    let trace = Tracer::shared(Backend::Auto);
    let pair = Pair::new(Family::V4);
    pair.client().set_nodelay(true).expect("TCP_NODELAY");
    let bytes = hello();
    let before = harness::monotonic_ns();
    for piece in bytes.chunks(bytes.len().div_ceil(6)) {
        exchange_bytes(pair.client(), pair.server(), piece);
        thread::sleep(Duration::from_millis(50));
    }
    // handshake_failure, fatal, in the clear.
    exchange_bytes(pair.server(), pair.client(), &[0x15, 3, 3, 0, 2, 2, 40]);
    let whole_ms = (harness::monotonic_ns() - before) as f64 / 1e6;
    let ends = [(pair.client_ends(), Closer::Peer), (pair.server_ends(), Closer::Local)];
    drop(pair);
    for (ends, by) in ends {
        let end = trace.connection(ends);
        let failed = end.tls().failed();
        assert_eq!((failed.how.as_str(), failed.by, failed.alert.as_deref()), ("alert", by, Some("handshake_failure")));
        assert!(failed.after_ms.is_some_and(|ms| (300.0..=whole_ms).contains(&ms)), "six pauses of 50 ms: {end:#?}");
        assert_eq!(end.tls().sni.as_deref(), Some(NAME), "{end:#?}");
        let offered: Vec<_> = ["h2", "http/1.1"].map(str::to_owned).into();
        assert_eq!(end.tls().alpn_offered, Some(offered), "{end:#?}");
    }
}

/// close_notify is no application data: it neither ends an idle time nor begins an exchange.
#[test]
fn the_farewell_of_tls_does_not_count_as_data() {
    let trace = Tracer::shared(Backend::Auto);
    let nginx = Nginx::start();
    for site in [Site::Tls12, Site::Tls13] {
        // gap_ms lies between the requests only, so rustls closes at once: its idle time is short, and what comes before is not.
        let request = Request { requests: 2, gap_ms: 300, ..Request::to(nginx.address(site)) };
        for told in Client::Rustls.run(&request) {
            let client = traced(&trace, &told, request.to);
            let exchanges = trace.exchanges_of(&client);
            assert_eq!(exchanges.iter().filter(|exchange| !exchange.greeting).count(), 2, "{exchanges:#?}");
            assert!(client.max_idle_ms.is_some_and(|ms| (299.0..600.0).contains(&ms)), "{client:#?}");
        }
        until_undisturbed(|comparison| {
            let (port, rested_ms) = idle_and_farewell(&nginx, site);
            let to = nginx.address(site);
            let client = trace.connection(Ends::new(SocketAddr::new(to.ip(), port), to));
            let traced_ms = client.idle_before_close_ms.unwrap_or_else(|| panic!("{client:#?}"));
            assert!(traced_ms >= rested_ms - SLACK_MS, "rested {rested_ms} ms: {client:#?}");
            // From the answer to close_notify's FIN: a little is computed before and after the rest.
            comparison.at_most("idle beyond the rest", traced_ms - rested_ms, 30.0);
        });
    }
}

/// Python shakes hands, asks, rests, sends close_notify and closes; returns its port and how long it rested.
fn idle_and_farewell(nginx: &Nginx, site: Site) -> (u16, f64) {
    const SCRIPT: &str = r#"
import socket, ssl, sys, time
context = ssl.create_default_context(cafile=sys.argv[2])
stream = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1]))), server_hostname=sys.argv[3])
stream.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
data = stream.recv(65536)
while b"hello" not in data: data += stream.recv(65536)
before = time.perf_counter()
time.sleep(0.4)
rested = time.perf_counter() - before
port = stream.getsockname()[1]
try: stream.unwrap()
except (OSError, ssl.SSLError): pass
stream.close()
print(port, rested * 1e3)
"#;
    let mut python = Command::new("/usr/bin/python3");
    let port = nginx.port(site).to_string();
    python.args(["-c", SCRIPT, &port, Authority::get().root.path(), NAME]);
    let output = output_within(&mut python, None, Duration::from_secs(60));
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let (port, rested) = text.trim().split_once(' ').expect("port and time");
    (port.parse().expect("a port"), rested.parse().expect("a time"))
}
