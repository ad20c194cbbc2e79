//! `conntracer run`: real programs, traced from their first connection to their end.

use std::process::{Command, Stdio};

use harness::{Actor, Closer, Role, Trace, conntracer, traced_run, tracer_path};

/// A server of HTTP/1.1 in Python that keeps connections open, and a client that uses one twice.
const TALK: &str = r#"
import http.client, http.server, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
for _ in range(2):
    client.request("GET", "/")
    print(client.getresponse().read().decode())
client.close()
"#;

#[test]
fn a_program_is_traced_from_its_first_connection() {
    let (exit, trace) = traced_run(&[], &["python3", "-c", TALK]);
    trace.assert_nothing_lost();
    assert_eq!(exit.stdout, "hello\nhello\n", "the program's output is its own");
    let clients: Vec<_> = trace.connections.iter().filter(|c| c.role == Some(Role::Client)).collect();
    let [client] = clients[..] else { panic!("one connection, used twice: {trace:#?}") };
    assert!(client.comm.starts_with("python"), "{client:#?}");
    assert_eq!(client.close().closer, Closer::Local);
    assert!(client.bytes_received.is_some_and(|bytes| bytes > 10), "{client:#?}");
    let server = trace.connections.iter().find(|c| c.role == Some(Role::Server)).expect("the server's end");
    assert_eq!((server.bytes_sent, server.bytes_received), (client.bytes_received, client.bytes_sent));
}

#[test]
fn children_of_the_program_are_traced_under_their_own_names() {
    let mut server = Actor::new();
    let to = server.listen();
    let url = format!("http://{to}/");
    server.begin("accept");
    let script = format!("curl --silent --max-time 20 {url}; true");
    let answer = std::thread::spawn(move || {
        server.answer("accept");
        server.order("send 10");
        server.order("close");
    });
    let (_, trace) = traced_run(&[], &["sh", "-c", &script]);
    answer.join().expect("the server");
    trace.assert_nothing_lost();
    let [client] = &trace.connections[..] else { panic!("one connection: {trace:#?}") };
    assert_eq!((client.comm.as_str(), client.remote), ("curl", to));
    assert!(client.exe.as_deref().is_some_and(|exe| exe.ends_with("/curl")), "{client:#?}");
    assert_eq!(client.bytes_received, Some(10));
}

#[test]
fn without_output_the_data_has_stdout_to_itself() {
    let words = ["run", "--format", "ndjson", "--", "python3", "-c", TALK];
    let exit = conntracer(&[], &words);
    assert!(exit.stderr.contains("hello\nhello\n"), "{exit:#?}");
    let trace = Trace::of_text(exit.status, &exit.stdout, exit.stderr);
    assert_eq!(trace.assert_nothing_lost().connections.len(), 2);
}

#[test]
fn a_command_that_cannot_start_is_a_clear_error() {
    conntracer(&[], &["run", "--", "/no/such/program"]).assert_fails(1, &["/no/such/program"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut command = Command::new(tracer_path());
    command.args(["run", "--format", "text", "--", "python3", "-c", TALK]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the tracer");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the tracer ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    assert!(!stderr.contains("panicked") && !stderr.to_lowercase().contains("broken pipe"), "{stderr}");
    assert!(stderr.contains("hello\nhello\n"), "the program goes on to its end: {stderr}");
}
