//! A client on rustls; settings and output as in `client.py`, and more settings: `host` may be a name; `cpu_stat` names a cgroup's
//! `cpu.stat`, and adds by how much the group was throttled during each handshake (`throttled_ms`: at least, and at most);
//! `signings` is how many times it signs where once would do;
//! `join` names a cgroup's folder, into which it goes once its first connection is ready. It also tells how much processor its
//! thread used in each handshake (`cpu_ms`), and how long it took from the lookup of the name to the first answer
//! (`first_answer_ms`; what came before `join` does not count).

use std::{
    collections::HashMap,
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::time::{ClockId, clock_gettime};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, SignatureAlgorithm, SignatureScheme,
    Stream,
    client::Resumption,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey},
};
use serde_json::json;

/// How long a connection is opened ahead of its first request.
const AHEAD: Duration = Duration::from_millis(1500);

/// A wait that takes longer fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let settings = Settings::of_arguments()?;
    let config = Arc::new(config(&settings)?);
    for _ in 0..settings.number("connections", 1)? {
        connection(&settings, Arc::clone(&config))?;
    }
    Ok(())
}

/// The words KEY=VALUE.
struct Settings(HashMap<String, String>);

impl Settings {
    fn of_arguments() -> Result<Self> {
        let words = std::env::args().skip(1);
        let pair = |word: String| {
            let (key, value) = word.split_once('=').with_context(|| format!("`{word}` is not KEY=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        Ok(Self(words.map(pair).collect::<Result<_>>()?))
    }

    fn text(&self, key: &str) -> Result<&str> {
        self.0.get(key).map(String::as_str).with_context(|| format!("{key} is missing"))
    }

    fn number(&self, key: &str, otherwise: u64) -> Result<u64> {
        self.0.get(key).map_or(Ok(otherwise), |value| value.parse().with_context(|| format!("{key}={value}")))
    }
}

fn config(settings: &Settings) -> Result<ClientConfig> {
    let versions = match settings.0.get("version").map(String::as_str) {
        Some("1.2") => &[&rustls::version::TLS12][..],
        Some("1.3") => &[&rustls::version::TLS13],
        Some(other) => bail!("no version {other}"),
        None => rustls::ALL_VERSIONS,
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(settings.text("ca")?)?)?;
    let config = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
    let mut config = match settings.text("cert") {
        Ok(cert) => {
            let key = PrivateKeyDer::from_pem_file(settings.text("key")?)?;
            let key = SlowKey { key: any_supported_type(&key)?, signings: settings.number("signings", 1)? };
            let certified = CertifiedKey::new(vec![CertificateDer::from_pem_file(cert)?], Arc::new(key));
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
        Err(_) => config.with_no_client_auth(),
    };
    if settings.number("resume", 0)? == 0 {
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

/// A key that signs each message several times, and gives the last signature.
#[derive(Debug)]
struct SlowKey {
    key: Arc<dyn SigningKey>,
    signings: u64,
}

impl SigningKey for SlowKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = self.key.choose_scheme(offered)?;
        Some(Box::new(SlowSigner { signer, signings: self.signings }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

#[derive(Debug)]
struct SlowSigner {
    signer: Box<dyn Signer>,
    signings: u64,
}

impl Signer for SlowSigner {
    fn sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, rustls::Error> {
        for _ in 1..self.signings {
            self.signer.sign(message)?;
        }
        self.signer.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.signer.scheme()
    }
}

/// When bytes passed, and for how long the client's cgroup had been throttled before and after the call that passed them,
/// if that is asked for. It may be throttled between its look at that and the call: only the two together are certain.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    /// What this thread has used of a processor.
    cpu: Duration,
    throttled_ms: Option<[f64; 2]>,
}

impl Moment {
    fn now() -> io::Result<Self> {
        let cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into();
        Ok(Self { at: Instant::now(), cpu, throttled_ms: None })
    }
}

/// Remembers when the first bytes were about to be sent, those of the ClientHello, and when bytes last were about to be sent
/// or had come.
struct Timed<'a> {
    stream: TcpStream,
    cpu_stat: Option<&'a str>,
    first: Option<Moment>,
    last: Option<Moment>,
}

impl Timed<'_> {
    /// Makes a call that tells when its bytes passed.
    fn pass(&mut self, call: impl FnOnce(&mut TcpStream) -> io::Result<(Moment, usize)>) -> io::Result<usize> {
        let throttled = || self.cpu_stat.map(throttled_ms).transpose().map_err(io::Error::other);
        let before = throttled()?;
        let (moment, bytes) = call(&mut self.stream)?;
        let throttled_ms = before.zip(throttled()?).map(|(before, after)| [before, after]);
        self.last = Some(Moment { throttled_ms, ..moment });
        self.first = self.first.or(self.last);
        Ok(bytes)
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pass(|stream| {
            let read = stream.read(buffer)?;
            Ok((Moment::now()?, read))
        })
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass(|stream| {
            let now = Moment::now()?;
            Ok((now, stream.write(bytes)?))
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn connection(settings: &Settings, config: Arc<ClientConfig>) -> Result<()> {
    let sni = settings.text("sni")?;
    let mut tls = ClientConnection::new(config, ServerName::try_from(sni)?.to_owned())?;
    let mut asked = Instant::now();
    let to = (settings.text("host")?, settings.text("port")?.parse()?);
    let to = to.to_socket_addrs()?.next().context("the name has no address")?;
    let before = Instant::now();
    let stream = TcpStream::connect(to)?;
    let connected = Instant::now();
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let local_port = stream.local_addr()?.port();
    let mut stream = Timed { stream, cpu_stat: settings.text("cpu_stat").ok(), first: None, last: None };

    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    let done = Instant::now();

    stream.cpu_stat = None;
    if let Ok(group) = settings.text("join") {
        fs::write(format!("{group}/cgroup.procs"), "0")?;
        // The first request is yet to come.
        thread::sleep(AHEAD);
        asked = Instant::now();
    }
    let (hello, last) = stream.first.zip(stream.last).context("a handshake without a ClientHello")?;
    let requests = settings.number("requests", 1)?;
    let (mut first_byte, mut first_answer) = (None, None);
    for index in 0..requests {
        if index > 0 {
            thread::sleep(Duration::from_millis(settings.number("gap_ms", 0)?));
        }
        let took = request(&mut Stream::new(&mut tls, &mut stream), sni)?;
        first_byte.get_or_insert(took);
        first_answer.get_or_insert_with(|| asked.elapsed());
    }
    let version = match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        other => bail!("version {other:?}"),
    };
    tls.send_close_notify();
    // The server may have closed already.
    match tls.complete_io(&mut stream) {
        Err(error) if !matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe) => {
            return Err(error.into());
        }
        _ => {}
    }
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    let line = json!({
        "client": "rustls",
        "connect_ms": ms(connected - before),
        "before_hello_ms": ms(hello.at - connected),
        "handshake_ms": ms(last.at - hello.at),
        "after_ms": ms(done - last.at),
        "first_byte_ms": first_byte.map(ms),
        "version": version,
        "sni": sni,
        "resumed": tls.handshake_kind() == Some(HandshakeKind::Resumed),
        "exchanges": requests,
        "local_port": local_port,
        "cpu_ms": ms(last.cpu - hello.cpu),
        "first_answer_ms": first_answer.map(ms),
        "throttled_ms": last.throttled_ms.zip(hello.throttled_ms).map(|(last, first)| [last[0] - first[1], last[1] - first[0]]),
    });
    println!("{line}");
    Ok(())
}

/// One HTTP exchange; returns how long its first byte took.
fn request(stream: &mut (impl Read + Write), sni: &str) -> Result<Duration> {
    let before = Instant::now();
    write!(stream, "GET / HTTP/1.1\r\nHost: {sni}\r\n\r\n")?;
    stream.flush()?;
    let mut answer = vec![0; 65_536];
    let mut filled = stream.read(&mut answer)?;
    let took = before.elapsed();
    while !is_whole(&answer[..filled])? {
        let read = stream.read(&mut answer[filled..])?;
        if read == 0 {
            bail!("the server closed in the middle of an answer");
        }
        filled += read;
    }
    Ok(took)
}

/// Whether head and body of an answer are there.
fn is_whole(answer: &[u8]) -> Result<bool> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(false) };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).context("an answer's length")?;
    Ok(body.len() >= length.parse()?)
}

/// How long the cgroup has been throttled so far.
fn throttled_ms(cpu_stat: &str) -> Result<f64> {
    let text = fs::read_to_string(cpu_stat).with_context(|| cpu_stat.to_owned())?;
    let us = text.lines().find_map(|line| line.strip_prefix("throttled_usec ")).context("throttled_usec")?;
    Ok(us.parse::<f64>()? / 1e3)
}
