//! Programs that make many connections over TLS at once, each with a number of its own in the Host header of its requests. A
//! server logs port and Host, so that the truth of every join is known.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::{Authority, source};
use crate::client_binary;

/// What a client asked for on each of its connections, in order, by the client's port.
pub type Asked = BTreeMap<u16, Vec<String>>;

/// The programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbered {
    /// Python's http.client: OpenSSL on sockets, a thread a connection.
    PythonHttp,
    /// Python's requests, likewise.
    PythonRequests,
    /// Python's aiohttp: OpenSSL on memory, one thread.
    Aiohttp,
    /// Node's https, one connection a number: OpenSSL in the program itself, on memory, one thread.
    NodeKeepAlive,
    /// The same with a connection a request.
    Node,
    /// curl on OpenSSL, all connections in one thread.
    Curl,
    /// wget on GnuTLS, a process a connection.
    Wget,
    /// curl on GnuTLS, which sends by functions of curl's, a thread a connection.
    PyCurl,
    /// The same with all connections in one thread.
    PyCurlMulti,
    /// Ruby's net/http: OpenSSL on sockets, a thread a connection.
    Ruby,
    /// PHP's curl, on OpenSSL.
    PhpCurl,
    /// PHP's own streams, on OpenSSL.
    PhpStreams,
    /// Go's net/http: crypto/tls, goroutines.
    Go,
}

/// How much a client does.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Where to.
    pub to: SocketAddr,
    /// Numbers, all at once.
    pub connections: u32,
    /// Requests that bear each number.
    pub requests: u32,
}

impl Load {
    /// Requests in all.
    pub fn total(&self) -> usize {
        (self.connections * self.requests) as usize
    }
}

impl Numbered {
    /// Its command line; a Debian program by its full path, for there may be others.
    pub fn words(self, load: &Load) -> Vec<String> {
        match self {
            Self::PythonHttp => script("/usr/bin/python3", "client.py", &["api=http"], load),
            Self::PythonRequests => script("/usr/bin/python3", "client.py", &["api=requests"], load),
            Self::Aiohttp => script("/usr/bin/python3", "client.py", &["api=aiohttp"], load),
            Self::PyCurl => pycurl("api=pycurl", load),
            Self::PyCurlMulti => pycurl("api=pycurl_multi", load),
            Self::NodeKeepAlive => script("/usr/bin/node", "client.mjs", &["keep_alive=1"], load),
            Self::Node => script("/usr/bin/node", "client.mjs", &["keep_alive=0"], load),
            Self::Ruby => script("/usr/bin/ruby", "client.rb", &[], load),
            Self::PhpCurl => script("/usr/bin/php", "client.php", &["api=curl"], load),
            Self::PhpStreams => script("/usr/bin/php", "client.php", &["api=streams"], load),
            Self::Go => [go_client()].into_iter().chain(settings(load)).collect(),
            Self::Curl => curl(load),
            Self::Wget => wget(load),
        }
    }

    /// A command line in the shell that has its TLS library in use until it is killed.
    pub fn keeps_library_in_use(self) -> String {
        let python = |load: &str| format!("/usr/bin/python3 -c 'import time; {load}; time.sleep(600)'");
        match self {
            Self::Wget | Self::PyCurl | Self::PyCurlMulti => python("import ctypes; ctypes.CDLL(\"libgnutls.so.30\")"),
            Self::Go => format!("'{}' idle=1", go_client()),
            // Node's is its own, and it takes longer to start than the probes take to be put on.
            _ => python("import ssl"),
        }
    }

    /// Its command, to be started without the tracer.
    pub fn command(self, load: &Load) -> Command {
        let words = self.words(load);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command
    }

    /// Starts it without the tracer.
    #[track_caller]
    pub fn spawn(self, load: &Load) -> Child {
        self.command(load).spawn().unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

fn go_client() -> String {
    text(&client_binary("numbered_client"))
}

fn text(path: &std::path::Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn script(interpreter: &str, name: &str, more: &[&str], load: &Load) -> Vec<String> {
    let script = text(&source_of(name));
    let more = more.iter().map(|word| (*word).to_owned());
    [interpreter.to_owned(), script].into_iter().chain(settings(load)).chain(more).collect()
}

fn pycurl(api: &str, load: &Load) -> Vec<String> {
    let no_more = format!("capath={}", text(&Authority::get().empty_folder()));
    script("/usr/bin/python3", "client.py", &[api, &no_more], load)
}

/// A source of the numbered clients.
pub(super) fn source_of(name: &str) -> PathBuf {
    source("numbered").join(name)
}

/// The settings that our own clients share.
pub(super) fn settings(load: &Load) -> [String; 5] {
    let Load { to, connections, requests } = load;
    [
        format!("host={}", to.ip()),
        format!("port={}", to.port()),
        format!("ca={}", Authority::get().root.path()),
        format!("connections={connections}"),
        format!("requests={requests}"),
    ]
}

/// Its connections differ by name, so that none is used for another number. It may use several for one.
fn curl(load: &Load) -> Vec<String> {
    let Load { to, connections, requests } = load;
    let url = format!("https://n[0-{}].test:{}/[1-{requests}]", connections - 1, to.port());
    let at_once = connections.to_string();
    // The certificate is for another name.
    let words = ["/usr/bin/curl", "--silent", "--show-error", "--fail", "--http1.1", "--insecure", "--parallel"];
    let more = ["--parallel-immediate", "--parallel-max", &at_once, "--max-time", "120", "--output", "/dev/null"];
    let to = format!("::{to}");
    words.into_iter().chain(more).chain(["--connect-to", &to, &url]).map(str::to_owned).collect()
}

/// A process has one connection, which it keeps for all its requests. It is given a folder without certificates: each would read all of
/// the system's first, for two seconds.
fn wget(load: &Load) -> Vec<String> {
    const SCRIPT: &str = "for n in $(seq 0 $(($2 - 1))); do \
        /usr/bin/wget --quiet --tries=1 --no-check-certificate --ca-directory=\"$4\" --output-document=/dev/null \
        --header=\"Host: n$n.test\" \
        $(seq --format=\"https://$1/%g\" 1 $3) & pids=\"$pids $!\"; done; \
        for pid in $pids; do wait $pid || exit 1; done";
    let Load { to, connections, requests } = load;
    let words = ["sh", "-c", SCRIPT, "sh"].map(str::to_owned).into_iter();
    let empty = Authority::get().empty_folder();
    words.chain([to.to_string(), connections.to_string(), requests.to_string(), text(&empty)]).collect()
}
