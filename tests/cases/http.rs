//! HTTP heads on plain TCP: which exchange has which, of real programs, and that nothing else of what passes is kept.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use harness::{Backend, Connection, Ends, Family, Pair, Role, Trace, Tracer, conntracer, eventually, output_within};
use nix::sys::socket::{MsgFlags, recv};
use serde_json::{Value, json};

/// What must show nowhere. curl sends it in the path, the query, the name and word for a login, a header, a cookie and the
/// body, the server in the reason, headers, a cookie and the body.
const SECRET: &str = "pLaNtEdSeCrEt";

/// A server of HTTP in a process of its own; it ends when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    _dir: Option<tempfile::TempDir>,
}

impl Server {
    /// Python's, which keeps connections open or does not by the protocol.
    #[track_caller]
    fn python(protocol: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/http_server.py");
        let mut python = Command::new("/usr/bin/python3");
        python.arg(script).args([protocol, SECRET]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap_or_else(|error| panic!("{python:?}: {error}"));
        let mut port = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut port).expect("the server's port");
        let port = port.trim().parse().expect("a port");
        Self { child, address: (Ipv4Addr::LOCALHOST, port).into(), _dir: None }
    }

    /// nginx, with HTTP/2 in the clear or with HTTP/1.1.
    #[track_caller]
    fn nginx(http2: bool) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("local address");
        drop(free);
        let place = dir.path().display();
        let mut folders = String::new();
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            let _ = writeln!(folders, "{kind}_temp_path {place}/{kind};");
        }
        let with = if http2 { " http2" } else { "" };
        let settings = format!(
            "user root; daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
events {{}}
http {{
access_log off; keepalive_timeout 75s 30s;
{folders}server {{ listen {address}{with}; location / {{ return 200 \"hello\\n\"; }} }}
}}
"
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, settings).expect("nginx's settings");
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx.arg("-p").arg(dir.path()).arg("-c").arg(&file).stdin(Stdio::null());
        let child = nginx.spawn().unwrap_or_else(|error| panic!("{nginx:?}: {error}"));
        let server = Self { child, address, _dir: Some(dir) };
        eventually("nginx to listen", || TcpStream::connect(address).ok());
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs curl with these arguments and a header with the secret; returns the port that it came from.
#[track_caller]
fn curl(arguments: &[&str]) -> u16 {
    let mut curl = Command::new("curl");
    // What is received does not matter, but for the port, which comes last.
    curl.args(["--silent", "--show-error", "--max-time", "60", "--write-out", "\nport %{local_port}\n"]);
    curl.args(["--header", &format!("X-Token: {SECRET}")]).args(arguments);
    let output = output_within(&mut curl, None, Duration::from_secs(90));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{curl:?}: {}", String::from_utf8_lossy(&output.stderr));
    let ports: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("port ")).collect();
    let port = ports.first().and_then(|port| port.parse().ok());
    assert!(ports.iter().all(|other| *other == ports[0]), "one connection: {ports:?}");
    port.unwrap_or_else(|| panic!("no port in {text}"))
}

/// What was told of HTTP at one end of a connection, exchange by exchange.
#[track_caller]
fn told_at(trace: &Tracer, ends: Ends) -> Vec<Option<Value>> {
    // A look whether a server listens already may have come from the same port.
    let is_it = |connection: &Connection| {
        Ends::new(connection.local, connection.remote) == ends && connection.exchanges != Some(0)
    };
    let connection = trace.connection_where(&format!("{ends:?}"), is_it);
    let as_json = |http| serde_json::to_value(http).expect("as JSON");
    trace.exchanges_of(&connection).into_iter().map(|exchange| exchange.http.map(as_json)).collect()
}

/// The same at both ends, which must say the same.
#[track_caller]
fn told(trace: &Tracer, client: SocketAddr, server: SocketAddr) -> Vec<Option<Value>> {
    let ends = Ends::new(client, server);
    let [asks, answers] = [ends, ends.flipped()].map(|ends| told_at(trace, ends));
    assert_eq!(asks, answers, "client and server");
    asks
}

/// What curl's connection to a server told.
#[track_caller]
fn told_of(trace: &Tracer, server: &Server, client_port: u16) -> Vec<Option<Value>> {
    told(trace, (Ipv4Addr::LOCALHOST, client_port).into(), server.address)
}

fn shared() -> Arc<Tracer> {
    Tracer::shared(Backend::Auto)
}

/// The object of an exchange with neither Connection nor Keep-Alive headers.
fn plain(server: SocketAddr, method: &str, status: u16, version: &str) -> Value {
    json!({
        "method": method, "status": status, "version": version, "host": server.to_string(), "connection_header": [],
        "close_asked": null, "keep_alive": null,
    })
}

/// The same with these fields changed.
fn with(mut value: Value, changes: Value) -> Option<Value> {
    let changes = changes.as_object().expect("an object").clone();
    value.as_object_mut().expect("an object").extend(changes);
    Some(value)
}

#[test]
fn each_exchange_of_a_kept_connection_has_its_own_heads() {
    let (trace, server) = (shared(), Server::python("HTTP/1.1"));
    let urls = [format!("/{SECRET}?{SECRET}={SECRET}"), "/none".to_owned(), "/chunked".to_owned(), "/keep".to_owned()];
    let urls = urls.map(|path| server.url(&path));
    let port = curl(&urls.each_ref().map(|url| url.as_str()));
    let of = |status| plain(server.address, "GET", status, "1.1");
    let kept = json!({ "connection_header": ["keep-alive"], "keep_alive": { "timeout_s": 5, "max": 100 } });
    assert_eq!(told_of(&trace, &server, port), [Some(of(200)), Some(of(404)), Some(of(200)), with(of(200), kept)]);
}

#[test]
fn either_side_may_ask_to_close() {
    let (trace, server) = (shared(), Server::python("HTTP/1.1"));
    let of = |close_asked: &str| {
        let closes = json!({ "connection_header": ["close"], "close_asked": close_asked });
        [with(plain(server.address, "GET", 200, "1.1"), closes)]
    };
    let (url, closing) = (server.url("/"), server.url("/close"));
    for (arguments, expected) in [
        (["--header", "Connection: close", &url], of("request")),
        (["--max-redirs", "0", &closing], of("response")),
        (["--header", "Connection: close", &closing], of("both")),
    ] {
        let port = curl(&arguments);
        assert_eq!(told_of(&trace, &server, port), expected);
    }
}

#[test]
fn http_1_0_is_told_by_the_answer() {
    let (trace, server) = (shared(), Server::python("HTTP/1.0"));
    for arguments in [&["--http1.0"][..], &[]] {
        let port = curl(&[arguments, &[&server.url("/")]].concat());
        assert_eq!(told_of(&trace, &server, port), [Some(plain(server.address, "GET", 200, "1.0"))]);
    }
}

#[test]
fn a_body_is_part_of_its_request_unless_it_waits_for_an_answer() {
    let (trace, server) = (shared(), Server::python("HTTP/1.1"));
    let url = server.url("/");
    let port = curl(&["--data", &format!("{SECRET}={SECRET}"), &url]);
    assert_eq!(told_of(&trace, &server, port), [Some(plain(server.address, "POST", 200, "1.1"))]);
    let port = curl(&["--data", SECRET, "--header", "Expect: 100-continue", "--expect100-timeout", "50", &url]);
    let rest = with(plain(server.address, "POST", 200, "1.1"), json!({ "method": null, "host": null }));
    assert_eq!(told_of(&trace, &server, port), [Some(plain(server.address, "POST", 100, "1.1")), rest]);
}

#[test]
fn of_a_long_head_the_first_kibibyte_tells() {
    let (trace, server) = (shared(), Server::python("HTTP/1.1"));
    let long = format!("X-Long: {}", "x".repeat(2_000));
    // Behind the long header, and before it.
    let port = curl(&["--header", &long, "--header", "Connection: close", &server.url("/")]);
    assert_eq!(told_of(&trace, &server, port), [Some(plain(server.address, "GET", 200, "1.1"))]);
    let port = curl(&["--header", "Connection: close", "--header", &long, &server.url("/")]);
    let closes = json!({ "connection_header": ["close"], "close_asked": "request" });
    assert_eq!(told_of(&trace, &server, port), [with(plain(server.address, "GET", 200, "1.1"), closes)]);
    // A path that fills it leaves the method alone.
    let port = curl(&[&server.url(&format!("/{}", "x".repeat(2_000)))]);
    let method = with(plain(server.address, "GET", 200, "1.1"), json!({ "host": null }));
    assert_eq!(told_of(&trace, &server, port), [method]);
}

#[test]
fn nginx_says_how_long_it_keeps_a_connection() {
    let (trace, server) = (shared(), Server::nginx(false));
    let port = curl(&[
        &server.url("/"),
        "--next",
        "--silent",
        "--head",
        "--write-out",
        "\nport %{local_port}\n",
        &server.url("/"),
    ]);
    let of = |method| {
        let keeps = json!({ "connection_header": ["keep-alive"], "keep_alive": { "timeout_s": 30, "max": null } });
        with(plain(server.address, method, 200, "1.1"), keeps)
    };
    assert_eq!(told_of(&trace, &server, port), [of("GET"), of("HEAD")]);
}

#[test]
fn http_2_is_recognised_and_its_exchanges_are_bursts() {
    let (trace, server) = (shared(), Server::nginx(true));
    let port = curl(&["--http2-prior-knowledge", &server.url("/")]);
    let http2 = with(plain(server.address, "GET", 200, "2"), json!({ "method": null, "status": null, "host": null }));
    let ends = Ends::new((Ipv4Addr::LOCALHOST, port).into(), server.address);
    // Both sides may speak at once, so the turns that one end sees need not be those of the other.
    let told = [ends, ends.flipped()].map(|ends| told_at(&trace, ends)).concat();
    assert!(told.len() >= 2 && told.iter().all(|told| *told == http2), "{told:?}");
}

/// Two ends in this process, whose messages are written by hand.
struct Hand {
    client: TcpStream,
    server: TcpStream,
    /// While it is there, a socket older than the trace is known to be the server's.
    _listener: TcpListener,
}

impl Hand {
    fn new() -> Self {
        let listener = harness::listen(Family::V4);
        let client = TcpStream::connect(listener.local_addr().expect("local address")).expect("a connection");
        let (server, _) = listener.accept().expect("a connection");
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("no delay");
        }
        Self { client, server, _listener: listener }
    }

    fn ask(&mut self, message: &str) -> &mut Self {
        pass(&mut self.client, &mut self.server, message);
        self
    }

    fn answer(&mut self, message: &str) -> &mut Self {
        pass(&mut self.server, &mut self.client, message);
        self
    }

    /// Method and status of each exchange; `None` if nothing was told.
    #[track_caller]
    fn told(self, trace: &Tracer) -> Vec<Option<(Value, Value)>> {
        let address = |stream: &TcpStream| stream.local_addr().expect("local address");
        let (from, to) = (address(&self.client), address(&self.server));
        drop(self);
        told(trace, from, to)
            .iter()
            .map(|http| http.as_ref().map(|http| (http["method"].clone(), http["status"].clone())))
            .collect()
    }
}

/// A message in one call at either end.
fn pass(from: &mut TcpStream, to: &mut TcpStream, message: &str) {
    from.write_all(message.as_bytes()).expect("a message goes");
    let mut read = vec![0; message.len()];
    // Until it is all there, so that one call takes it.
    eventually("a message to come", || (to.peek(&mut read).ok()? == message.len()).then_some(()));
    to.read_exact(&mut read).expect("a message comes");
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[track_caller]
fn assert_told(hand: Hand, trace: &Tracer, expected: &[Option<(&str, u16)>]) {
    let expected: Vec<_> =
        expected.iter().map(|told| told.map(|(method, status)| (json!(method), json!(status)))).collect();
    assert_eq!(hand.told(trace), expected);
}

#[test]
fn a_connection_that_begins_otherwise_is_not_looked_at() {
    let trace = shared();
    let mut hand = Hand::new();
    hand.ask("PING with more\r\n").answer("+PONG\r\n").ask(GET).answer(OK);
    assert_told(hand, &trace, &[None, None]);
    // A server that greets does not tell what its client will say.
    let mut hand = Hand::new();
    hand.answer("220 greetings, to all\r\n").ask(GET).answer(OK);
    assert_told(hand, &trace, &[None, Some(("GET", 200))]);
}

#[test]
fn behind_a_tunnel_and_a_switch_of_protocols_nothing_is_looked_at() {
    let connect = "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n";
    let trace = shared();
    let mut hand = Hand::new();
    hand.ask(connect).answer("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n");
    hand.ask(connect).answer("HTTP/1.1 200 Established\r\n\r\n").ask(GET).answer(OK);
    assert_told(hand, &trace, &[Some(("CONNECT", 407)), Some(("CONNECT", 200)), None]);
    let mut hand = Hand::new();
    hand.ask(GET).answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n").ask(GET).answer(OK);
    assert_told(hand, &trace, &[Some(("GET", 101)), None]);
}

#[test]
fn interim_answers_are_followed_by_the_one_that_counts() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let trace = shared();
    let mut hand = Hand::new();
    hand.ask(GET)
        .answer(hints)
        .answer("HTTP/1.1 404 None\r\nContent-Length: 3\r\n\r\n")
        .answer("HTTP/1.1 500 body of it");
    hand.ask(GET).answer(&[hints, OK].concat());
    assert_told(hand, &trace, &[Some(("GET", 404)), Some(("GET", 200))]);
}

#[test]
fn of_requests_sent_ahead_and_of_a_split_head_the_first_message_tells() {
    let trace = shared();
    let mut hand = Hand::new();
    hand.ask(&[GET, "POST / HTTP/1.1\r\nHost: b\r\n\r\n"].concat()).answer(&[OK, OK].concat());
    hand.ask("PUT / HTTP/1.1\r\n").ask("Host: a\r\n\r\n").answer(OK).answer(OK);
    assert_told(hand, &trace, &[Some(("GET", 200)), Some(("PUT", 200))]);
}

#[test]
fn the_kprobe_fallback_sees_heads_too() {
    let trace = Tracer::shared(Backend::Kprobe);
    let mut hand = Hand::new();
    hand.ask(GET).answer(OK).ask("PUT / HTTP/1.1\r\n").ask("Host: a\r\n\r\n").answer(OK);
    // Taken by one call, which waits for the second half: each half is looked at once, so the one that counts is the second.
    const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\n\r\n";
    hand.ask(GET);
    let mut all = vec![0; INTERIM.len() + OK.len()];
    thread::scope(|scope| {
        let waits = scope.spawn(|| recv(hand.client.as_raw_fd(), &mut all, MsgFlags::MSG_WAITALL));
        let mut server = &hand.server;
        for part in [INTERIM, OK] {
            thread::sleep(Duration::from_millis(50));
            server.write_all(part.as_bytes()).expect("a part goes");
        }
        assert_eq!(waits.join().expect("a receive"), Ok(INTERIM.len() + OK.len()));
    });
    assert_told(hand, &trace, &[Some(("GET", 200)), Some(("PUT", 200)), Some(("GET", 200))]);
}

#[test]
fn a_connection_older_than_the_trace_may_be_in_the_middle_of_a_request() {
    let mut hand = Hand::new();
    hand.ask("PUT / HTTP/1.1\r\nContent-Length: 20\r\n\r\n");
    let pid = std::process::id().to_string();
    let trace = Tracer::trace(&["-p", &pid]);
    hand.ask("the rest of the body").answer(OK).ask(GET).answer(OK);
    assert_told(hand, &trace, &[None, Some(("GET", 200))]);
    trace.stop().assert_nothing_lost();
}

#[test]
fn no_output_and_no_recording_has_more_of_what_passes_than_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (recording, text) = (path("trace.rec"), path("out.txt"));
    let server = Server::python("HTTP/1.1");
    let run = |trace: Tracer| {
        let url = server.url(&format!("/{SECRET}/{SECRET}.html?{SECRET}={SECRET}#{SECRET}"));
        let login = format!("{SECRET}:{SECRET}");
        let common =
            ["--user", &login, "--cookie", &format!("{SECRET}={SECRET}"), "--referer", SECRET, "--user-agent", SECRET];
        let port = curl(&[&common[..], &["--data", &format!("{SECRET}={SECRET}"), &url]].concat());
        curl(&[&common[..], &["--header", &format!("X-{SECRET}: a"), "--header", "Connection: close", &url]].concat());
        (trace, port)
    };
    let (trace, port) = run(Tracer::trace(&["--record", &recording]));
    let told = told_of(&trace, &server, port);
    assert_eq!(told, [Some(plain(server.address, "POST", 200, "1.1"))], "it was looked at");
    trace.stop().assert_nothing_lost();
    let (trace, _) = run(Tracer::trace_as_text(&text, &["--verbose"]));
    trace.stop();
    let live = fs::read_to_string(&text).expect("the text");
    assert!(live.contains("POST 200") && live.contains("GET 200, close asked"), "{live}");

    let replay = |more: &[&str]| {
        let exit = conntracer(&[], &[&["replay"], more, &[&recording]].concat());
        assert!(exit.status.success(), "{exit:#?}");
        exit
    };
    let json = replay(&["--format", "ndjson"]);
    let again = Trace::of_text(json.status, &json.stdout, json.stderr.clone());
    assert!(again.exchanges.iter().any(|exchange| exchange.role == Some(Role::Client) && exchange.http.is_some()));
    let mut outputs = vec![
        ("text", live.into_bytes()),
        ("the recording", fs::read(&recording).expect("the recording")),
        ("NDJSON", json.stdout.into_bytes()),
        ("its messages", json.stderr.into_bytes()),
    ];
    for more in
        [&["--format", "text"][..], &["--format", "text", "--verbose"], &["--format", "ndjson", "--no-exchanges"]]
    {
        let exit = replay(more);
        outputs.push(("a replay", [exit.stdout, exit.stderr].concat().into_bytes()));
    }
    let secret = SECRET.to_lowercase();
    for (what, output) in outputs {
        let output = String::from_utf8_lossy(&output).to_lowercase();
        assert!(!output.contains(&secret), "{what} holds the secret: {output}");
    }
}

#[test]
fn what_is_no_http_and_what_is_tls_has_no_heads() {
    let trace = shared();
    let mut pair = Pair::new(Family::V4);
    pair.exchange(100, 200).exchange(100, 200).close_client();
    pair.release_server();
    for ends in [pair.client_ends(), pair.server_ends()] {
        let connection = trace.connection(ends);
        let exchanges = trace.exchanges_of(&connection);
        assert!(exchanges.len() == 2 && exchanges.iter().all(|exchange| exchange.http.is_none()), "{exchanges:#?}");
    }
}
