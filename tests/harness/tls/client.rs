//! Programs that connect over TLS and say what they measured: `tests/clients/tls`.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};
use serde::Deserialize;

use super::{Authority, Certificate, NAME, source};
use crate::{client_binary, commands::output_within, java};

/// Java takes tens of seconds to start on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a client says of one of its connections. What it cannot know is `None`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Which program.
    pub client: String,
    /// How long its connect took.
    pub connect_ms: Option<f64>,
    /// What it computed until it handed its ClientHello to TCP.
    pub before_hello_ms: Option<f64>,
    /// From there to its last message of the handshake: just before it sent that, or just after it had received it.
    pub handshake_ms: Option<f64>,
    /// What it computed after that, until its library said that the handshake was done. On an emulated processor this and
    /// what came before are tens of milliseconds, and no tracer of a connection can see them.
    pub after_ms: Option<f64>,
    /// From before its connect until it was told that the handshake was done, where it can tell no more.
    #[serde(default)]
    pub setup_ms: Option<f64>,
    /// From its first request to the first byte of the answer.
    pub first_byte_ms: Option<f64>,
    /// As `1.3`.
    pub version: String,
    /// The name it sent.
    pub sni: Option<String>,
    /// Whether it resumed a session.
    pub resumed: bool,
    /// How many requests it sent on this connection.
    pub exchanges: Option<u64>,
    /// Its port.
    pub local_port: Option<u16>,
    /// For how long its cgroup was throttled during the handshake: at least, and at most.
    #[serde(default)]
    pub throttled_ms: Option<[f64; 2]>,
    /// What its thread used of a processor between the ends of `handshake_ms`.
    #[serde(default)]
    pub cpu_ms: Option<f64>,
    /// From the lookup of the name to its first answer.
    #[serde(default)]
    pub first_answer_ms: Option<f64>,
}

/// The programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Python's ssl, on OpenSSL.
    Python,
    /// Node's https with an agent that keeps its connection.
    NodeKeepAlive,
    /// Node's https with a connection for each request.
    Node,
    /// Go's net/http.
    Go,
    /// rustls, stripped.
    Rustls,
    /// Java's HttpsURLConnection.
    JavaUrl,
    /// Java's HttpClient.
    JavaHttp,
    /// curl, on OpenSSL.
    Curl,
    /// gnutls-cli, on GnuTLS.
    Gnutls,
    /// openssl s_client.
    Openssl,
}

/// What a client is to do.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// Connections, one after the other.
    pub connections: u32,
    /// Requests on each.
    pub requests: u32,
    /// Time between those.
    pub gap_ms: u64,
    /// Offer the session of the connection before, where it is the client's to decide.
    pub resume: bool,
    /// The client's own certificate.
    pub certificate: Option<&'a Certificate>,
    /// Further words of its command line.
    pub more: &'a [&'a str],
}

impl Request<'_> {
    /// One connection with one request.
    pub fn to(to: SocketAddr) -> Self {
        Self { to, connections: 1, requests: 1, gap_ms: 0, resume: false, certificate: None, more: &[] }
    }
}

impl Client {
    /// Runs it to its end and returns what it says of each connection; fails if it fails.
    #[track_caller]
    pub fn run(self, request: &Request<'_>) -> Vec<Told> {
        self.run_by(request, |command| command)
    }

    /// The same, its command line changed by `wrap`.
    #[track_caller]
    pub fn run_by(self, request: &Request<'_>, wrap: impl Fn(Command) -> Command) -> Vec<Told> {
        let dir = tempfile::tempdir().expect("a folder");
        let timed = dir.path().join("timed");
        let (told, output) = match self {
            Self::Curl | Self::Gnutls | Self::Openssl => self.run_preloaded(request, &timed, &wrap),
            _ => {
                let mut command = wrap(self.command(request));
                if self.is_timed_at_its_sockets() {
                    command.env("LD_PRELOAD", client_binary("wire_clock.so")).env("TIMED_OUTPUT", &timed);
                }
                let output = output_within(&mut command, None, PATIENCE);
                (String::from_utf8_lossy(&output.stdout).into_owned(), output)
            }
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?}: {request:#?}: {}: {told} {stderr}", output.status);
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{self:?}: {error}: {told}"));
        let mut told: Vec<Told> = told.lines().map(parse).collect();
        if self.is_timed_at_its_sockets() {
            add_handshakes(&mut told, &timed);
        }
        if self == Self::Gnutls && request.resume {
            // The first connection is there only for its session.
            told[0].exchanges = Some(0);
        }
        // The test's output shows it when the test fails.
        println!("{self:?} says {told:#?}");
        told
    }

    /// Whether its own clock is far from its sockets, so that another one is put beside them: `wire_clock.c`.
    fn is_timed_at_its_sockets(self) -> bool {
        matches!(self, Self::Node | Self::NodeKeepAlive | Self::JavaUrl | Self::JavaHttp)
    }

    /// Runs it to its end, however that turns out.
    #[track_caller]
    pub fn try_run(self, request: &Request<'_>) -> Output {
        output_within(&mut self.command(request), Some(GET), PATIENCE)
    }

    fn run_preloaded(self, request: &Request<'_>, timed: &Path, wrap: &dyn Fn(Command) -> Command) -> (String, Output) {
        let mut last = None;
        // One connection a run, but that gnutls-cli resumes within one.
        let runs = if self == Self::Gnutls && request.resume { 1 } else { request.connections };
        for _ in 0..runs {
            let mut command = wrap(self.command(request));
            command.env("LD_PRELOAD", client_binary("timed.so")).env("TIMED_OUTPUT", timed);
            let output = output_within(&mut command, Some(GET), PATIENCE);
            let failed = !output.status.success();
            last = Some(output);
            if failed {
                break;
            }
        }
        (fs::read_to_string(timed).unwrap_or_default(), last.expect("at least one connection"))
    }

    /// Its command line, to be started by another program.
    pub fn words(self, request: &Request<'_>) -> Vec<String> {
        let command = self.command(request);
        let words = [command.get_program()].into_iter().chain(command.get_args());
        words.map(|word| word.to_str().expect("UTF-8").to_owned()).collect()
    }

    /// The command line; a Debian program by its full path, for there may be others.
    fn command(self, request: &Request<'_>) -> Command {
        match self {
            Self::Python => script(&["/usr/bin/python3"], "client.py", request),
            Self::Node => script(&["/usr/bin/node"], "client.mjs", request),
            Self::NodeKeepAlive => with(script(&["/usr/bin/node"], "client.mjs", request), &["keep_alive=1"]),
            Self::Go => settings(Command::new(client_binary("go_client")), request),
            Self::Rustls => settings(Command::new(stripped(&client_binary("rustls_client"))), request),
            Self::JavaUrl => java(request, "api=url"),
            Self::JavaHttp => java(request, "api=http"),
            Self::Curl => curl(request),
            Self::Gnutls => gnutls(request),
            Self::Openssl => s_client(request),
        }
    }
}

/// A line of `wire_clock.c`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Handshake {
    local_port: u16,
    handshake_ms: f64,
}

/// Adds what the clock beside the sockets said. The connections came one after the other.
#[track_caller]
fn add_handshakes(told: &mut [Told], timed: &Path) {
    let text = fs::read_to_string(timed).expect("the clock's output");
    let handshakes: Vec<Handshake> =
        text.lines().map(|line| serde_json::from_str(line).expect("a handshake")).collect();
    assert_eq!(handshakes.len(), told.len(), "a handshake a connection: {text} {told:#?}");
    for (told, handshake) in told.iter_mut().zip(handshakes) {
        assert!(told.local_port.is_none_or(|port| port == handshake.local_port), "{text} {told:#?}");
        told.local_port = Some(handshake.local_port);
        told.handshake_ms = Some(handshake.handshake_ms);
    }
}

/// What the programs send that have no request of their own.
const GET: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

fn script(interpreter: &[&str], name: &str, request: &Request<'_>) -> Command {
    let mut command = Command::new(interpreter[0]);
    command.args(&interpreter[1..]).arg(source(name));
    settings(command, request)
}

fn with(mut command: Command, words: &[&str]) -> Command {
    command.args(words);
    command
}

/// The settings that our own clients share.
fn settings(mut command: Command, request: &Request<'_>) -> Command {
    command.arg(format!("host={}", request.to.ip())).arg(format!("port={}", request.to.port()));
    command.arg(format!("sni={NAME}")).arg(format!("ca={}", Authority::get().root.path()));
    command.arg(format!("connections={}", request.connections)).arg(format!("requests={}", request.requests));
    command.arg(format!("gap_ms={}", request.gap_ms)).arg(format!("resume={}", u8::from(request.resume)));
    if let Some(certificate) = request.certificate {
        command.arg(format!("cert={}", certificate.path())).arg(format!("key={}", certificate.key_path()));
    }
    command.args(request.more);
    command
}

fn java(request: &Request<'_>, api: &str) -> Command {
    let mut command = Command::new("/usr/lib/jvm/java-17-openjdk-amd64/bin/java");
    command.args(java::OPTIONS);
    command.arg(format!("-Djdk.net.hosts.file={}", Authority::get().hosts().display()));
    command.arg("-cp").arg(client_binary("java_client")).arg("Client").arg(api);
    settings(command, request)
}

fn curl(request: &Request<'_>) -> Command {
    let (ip, port) = (request.to.ip(), request.to.port());
    let ip = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    let mut command = Command::new("/usr/bin/curl");
    command.args(["--silent", "--show-error", "--http2", "--max-time", "60", "--output", "/dev/null"]);
    command.args(["--cacert", Authority::get().root.path(), "--resolve", &format!("{NAME}:{port}:{ip}")]);
    command.args(request.more).arg(format!("https://{NAME}:{port}/"));
    command
}

fn gnutls(request: &Request<'_>) -> Command {
    let mut command = Command::new("/usr/bin/gnutls-cli");
    command.arg(format!("--x509cafile={}", Authority::get().root.path()));
    command.arg(format!("--sni-hostname={NAME}")).arg(format!("--verify-hostname={NAME}"));
    if request.resume {
        command.arg("--resume");
    }
    command.args(request.more).args(["--port", &request.to.port().to_string(), &request.to.ip().to_string()]);
    command
}

fn s_client(request: &Request<'_>) -> Command {
    let mut command = Command::new("/usr/bin/openssl");
    command.args(["s_client", "-ign_eof", "-verify_return_error", "-servername", NAME]);
    command.args(["-connect", &request.to.to_string()]);
    if !request.more.contains(&"-no-CAfile") {
        command.args(["-CAfile", Authority::get().root.path()]);
    }
    if let Some(certificate) = request.certificate {
        command.args(["-cert", certificate.path(), "-key", certificate.key_path()]);
    }
    command.args(request.more);
    command
}

/// A copy without symbols, as releases are.
pub(crate) fn stripped(program: &Path) -> std::path::PathBuf {
    static STRIPPED: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();
    let strip = || {
        let copy = tempfile::tempdir().expect("a folder").keep().join("rustls_client");
        let output = Command::new("strip").arg("-o").arg(&copy).arg(program).stdin(Stdio::null()).output();
        let output = output.expect("strip runs");
        assert!(output.status.success(), "strip: {}", String::from_utf8_lossy(&output.stderr));
        copy
    };
    STRIPPED.get_or_init(strip).clone()
}

/// The bytes of a real ClientHello, in its record.
pub fn hello() -> Vec<u8> {
    let mut config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(NAME).expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("memory");
    assert!(bytes.len() > 100 && bytes.starts_with(&[0x16, 3]), "{bytes:?}");
    bytes
}
