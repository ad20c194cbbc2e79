//! What the two hello messages say, from a copy of the first bytes each way that may be cut anywhere.
//!
//! A copy begins at a record header: where TLS begins in mid-stream, the caller cuts what was before. A message that is wrong
//! anywhere in the copy gives nothing but the reason; one that is cut gives what was found up to there.

use crate::tls::alert::Alert;
use crate::tls::bounded::{Bytes, List};
pub use crate::tls::message::Malformed;
use crate::tls::message::{Part, Stop, Stream};

/// Longest host name kept, in bytes. DNS allows 253.
pub const MAX_NAME: usize = 255;
/// Longest session id (RFC 5246 7.4.1.2).
pub const MAX_SESSION_ID: usize = 32;
/// Most ALPN names kept.
pub const MAX_PROTOCOLS: usize = 8;
/// Longest ALPN name kept, in bytes; longer ones count as left out.
pub const MAX_PROTOCOL: usize = 32;
/// Most offered versions kept.
pub const MAX_VERSIONS: usize = 8;

/// A session id, empty or not.
pub type SessionId = Bytes<MAX_SESSION_ID>;
/// An ALPN protocol name; any bytes.
pub type Protocol = Bytes<MAX_PROTOCOL>;

const TLS13: u16 = 0x0304;

/// Message types (RFC 8446 4).
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// A hello with every field as long as it can be.
const LONGEST_HELLO: usize = 2 + 32 + (1 + 32) + (2 + 0xffff) + (1 + 0xff) + (2 + 0xffff);

/// Extensions (IANA, TLS ExtensionType Values).
mod extension {
    pub const SERVER_NAME: u16 = 0;
    pub const ALPN: u16 = 16;
    pub const SESSION_TICKET: u16 = 35;
    pub const PRE_SHARED_KEY: u16 = 41;
    pub const EARLY_DATA: u16 = 42;
    pub const SUPPORTED_VERSIONS: u16 = 43;
}

/// The random that makes a ServerHello a HelloRetryRequest: SHA-256 of "HelloRetryRequest" (RFC 8446 4.1.3).
const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// The host name that a client asked for (SNI): letters, digits, `-`, `_` and `.`, as they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostName(Bytes<MAX_NAME>);

impl HostName {
    /// The name.
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.0.as_slice()).unwrap_or_default()
    }

    /// `None` if it is no host name. An IPv4 address is none either: RFC 6066 3 forbids it, and it says nothing new.
    fn new(name: Bytes<MAX_NAME>) -> Option<Self> {
        let bytes = name.as_slice();
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let top = bytes.rsplit(|byte| *byte == b'.').find(|label| !label.is_empty())?;
        (bytes.iter().all(allowed) && !top.iter().all(u8::is_ascii_digit)).then_some(Self(name))
    }
}

/// What a client offers, in its first ClientHello. Of an incomplete one, `None`, `false` and what is missing in lists mean
/// "not seen so far".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The copy holds the message to its end.
    pub complete: bool,
    /// The version field. A client that can do TLS 1.3 writes 0x0303.
    pub legacy_version: Option<u16>,
    /// The session that it would resume before TLS 1.3, or a made-up one.
    pub session_id: Option<SessionId>,
    /// Versions offered, best first as clients send them. Without that extension the highest one, which is the version field.
    pub versions: List<u16, MAX_VERSIONS>,
    /// SNI; with Encrypted Client Hello the outer one. `None` also if what was sent is no host name.
    pub name: Option<HostName>,
    /// ALPN protocols offered.
    pub alpn: List<Protocol, MAX_PROTOCOLS>,
    /// It offers a key from before: to resume a session, or agreed on by other means.
    pub pre_shared_key: bool,
    /// It sends data before the server's answer.
    pub early_data: bool,
    /// It sends a session ticket of TLS 1.2 (not just the wish for one).
    pub ticket: bool,
}

impl ClientHello {
    /// Reads the first ClientHello in `copy`.
    pub fn parse(copy: &[u8]) -> Result<Self, Malformed> {
        let mut hello = Self::default();
        let outcome = Stream::new(copy).message(CLIENT_HELLO, LONGEST_HELLO, |body| hello.read(body));
        hello.complete = reached_end(outcome)?;
        Ok(hello)
    }

    fn read(&mut self, body: &mut Part) -> Result<(), Stop> {
        let legacy_version = legacy_version(body)?;
        self.legacy_version = Some(legacy_version);
        body.skip(32)?;
        self.session_id = Some(session_id(body)?);
        body.vector16(|suites| {
            if suites.left() % 2 != 0 {
                return Err(Malformed::Length.into());
            }
            not_empty(suites)?.skip_rest()
        })?;
        body.vector8(|compressions| not_empty(compressions)?.skip_rest())?;
        let mut lists_versions = false;
        extensions(body, |kind, content| {
            lists_versions |= kind == extension::SUPPORTED_VERSIONS;
            self.read_extension(kind, content)
        })?;
        if !lists_versions {
            self.versions.push(legacy_version);
        }
        Ok(())
    }

    fn read_extension(&mut self, kind: u16, content: &mut Part) -> Result<(), Stop> {
        match kind {
            extension::SERVER_NAME => self.name = content.vector16(host_name)?,
            extension::ALPN => content.vector16(|names| protocols(names, &mut self.alpn))?,
            extension::SUPPORTED_VERSIONS => content.vector8(|versions| self.read_versions(versions))?,
            extension::PRE_SHARED_KEY => {
                not_empty(content)?.skip_rest()?;
                self.pre_shared_key = true;
            }
            // It has no content; any that there is shows as left over.
            extension::EARLY_DATA => self.early_data = true,
            extension::SESSION_TICKET => {
                self.ticket = content.left() > 0;
                content.skip_rest()?;
            }
            _ => content.skip_rest()?,
        }
        Ok(())
    }

    fn read_versions(&mut self, versions: &mut Part) -> Result<(), Stop> {
        not_empty(versions)?;
        while versions.left() > 0 {
            let version = versions.u16()?;
            if !is_grease(version) {
                self.versions.push(version);
            }
        }
        Ok(())
    }
}

/// What a server chose. Of an incomplete one, `None` and `false` mean "not seen so far".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerHello {
    /// The copy holds the message to its end; after a HelloRetryRequest, the ServerHello that follows.
    pub complete: bool,
    /// The version chosen.
    pub version: Option<u16>,
    /// The cipher suite chosen.
    pub cipher_suite: Option<u16>,
    /// The session id: the client's if the session is resumed before TLS 1.3; always the client's in TLS 1.3.
    pub session_id: Option<SessionId>,
    /// It took a key that the client offered.
    pub pre_shared_key: bool,
    /// It asked for another ClientHello first: one more round trip.
    pub retry: bool,
    /// ALPN protocol chosen. TLS 1.3 sends it protected, so it is `None` there; also if longer than [`MAX_PROTOCOL`].
    pub alpn: Option<Protocol>,
    /// A fatal alert that came in its place. The server refuses; what was chosen before, in a HelloRetryRequest, stands.
    pub alert: Option<Alert>,
}

impl ServerHello {
    /// Reads the first ServerHello in `copy`, and if that is a HelloRetryRequest, the one after it as well.
    pub fn parse(copy: &[u8]) -> Result<Self, Malformed> {
        let mut stream = Stream::new(copy);
        let mut hello = Self::default();
        let mut next = || stream.message(SERVER_HELLO, LONGEST_HELLO, |body| hello.read(body));
        let outcome = next().and_then(|is_retry| if is_retry { next() } else { Ok(false) });
        hello.complete = reached_end(outcome)?;
        hello.alert = stream.fatal();
        Ok(hello)
    }

    /// Returns whether it is a HelloRetryRequest.
    fn read(&mut self, body: &mut Part) -> Result<bool, Stop> {
        let legacy_version = legacy_version(body)?;
        let is_retry = body.array()? == RETRY_RANDOM;
        if is_retry && self.retry {
            return Err(Malformed::Message.into());
        }
        self.retry |= is_retry;
        self.session_id = Some(session_id(body)?);
        self.cipher_suite = Some(body.u16()?);
        body.skip(1)?;
        extensions(body, |kind, content| self.read_extension(kind, content))?;
        self.version.get_or_insert(legacy_version);
        Ok(is_retry)
    }

    fn read_extension(&mut self, kind: u16, content: &mut Part) -> Result<(), Stop> {
        match kind {
            extension::SUPPORTED_VERSIONS => self.version = Some(content.u16()?),
            extension::PRE_SHARED_KEY => {
                content.u16()?;
                self.pre_shared_key = true;
            }
            extension::ALPN => self.alpn = content.vector16(|names| names.vector8(|name| not_empty(name)?.rest()))?,
            _ => content.skip_rest()?,
        }
        Ok(())
    }
}

/// Whether the handshake resumed an earlier one; `None` where the two hellos do not tell.
///
/// In TLS 1.3 that is the use of a pre-shared key, also of one that was agreed on by other means. Before, it is the client's
/// session id coming back (RFC 5246 7.3); a client that sends a ticket makes one up for that (RFC 5077 3.4). If it does not,
/// only the later messages tell.
pub fn resumed(client: &ClientHello, server: &ServerHello) -> Option<bool> {
    if server.version? >= TLS13 {
        return (server.complete || server.pre_shared_key).then_some(server.pre_shared_key);
    }
    let (asked, answered) = (client.session_id?, server.session_id?);
    if asked.is_empty() {
        return (client.complete && !client.ticket).then_some(false);
    }
    Some(asked == answered)
}

/// Whether a value is one of those that are sent to keep peers tolerant (RFC 8701).
const fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

/// A message that is read to its end is complete; one that stops because the copy ends is not.
fn reached_end<T>(outcome: Result<T, Stop>) -> Result<bool, Malformed> {
    match outcome {
        Ok(_) => Ok(true),
        Err(Stop::End) => Ok(false),
        Err(Stop::Malformed(malformed)) => Err(malformed),
    }
}

fn not_empty<'p, 's, 'a>(part: &'p mut Part<'s, 'a>) -> Result<&'p mut Part<'s, 'a>, Malformed> {
    if part.left() == 0 { Err(Malformed::Empty) } else { Ok(part) }
}

fn legacy_version(body: &mut Part) -> Result<u16, Stop> {
    match body.u16()? {
        version @ 0x0300..=TLS13 => Ok(version),
        _ => Err(Malformed::Version.into()),
    }
}

fn session_id(body: &mut Part) -> Result<SessionId, Stop> {
    body.vector8(|id| id.rest())?.ok_or(Malformed::Length.into())
}

/// Hands each extension to `read`, with its type. There may be none at all.
fn extensions<'a>(
    body: &mut Part<'_, 'a>,
    mut read: impl FnMut(u16, &mut Part<'_, 'a>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    if body.left() == 0 {
        return Ok(());
    }
    // One bit a type. Nothing is read from those above 63, so a second one of them can mislead nobody.
    let mut seen = 0_u64;
    body.vector16(|list| {
        while list.left() > 0 {
            let kind = list.u16()?;
            let bit = 1_u64.checked_shl(kind.into()).unwrap_or(0);
            if seen & bit != 0 {
                return Err(Malformed::Duplicate.into());
            }
            seen |= bit;
            list.vector16(|content| read(kind, content))?;
        }
        Ok(())
    })
}

/// The host name of a server name list. Other types of names are skipped (RFC 6066 3).
fn host_name(list: &mut Part) -> Result<Option<HostName>, Stop> {
    const HOST_NAME: u8 = 0;
    let mut found = None;
    not_empty(list)?;
    while list.left() > 0 {
        if list.u8()? != HOST_NAME {
            list.vector16(|other| other.skip_rest())?;
            continue;
        }
        let name = list.vector16(|name| not_empty(name)?.rest())?;
        if found.replace(name).is_some() {
            return Err(Malformed::Duplicate.into());
        }
    }
    Ok(found.flatten().and_then(HostName::new))
}

fn protocols(names: &mut Part, found: &mut List<Protocol, MAX_PROTOCOLS>) -> Result<(), Stop> {
    not_empty(names)?;
    while names.left() > 0 {
        match names.vector8(|name| not_empty(name)?.rest::<MAX_PROTOCOL>())? {
            Some(name) if <[u8; 2]>::try_from(name.as_slice()).is_ok_and(|two| is_grease(u16::from_be_bytes(two))) => {}
            Some(name) => found.push(name),
            None => found.leave_out(),
        }
    }
    Ok(())
}
