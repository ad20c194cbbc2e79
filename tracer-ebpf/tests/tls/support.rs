//! Recorded copies of real handshakes, and hellos built by hand.

use std::{fs, path::PathBuf};

/// Extension types used here.
pub const SERVER_NAME: u16 = 0;
pub const ALPN: u16 = 16;
pub const SESSION_TICKET: u16 = 35;
pub const PRE_SHARED_KEY: u16 = 41;
pub const EARLY_DATA: u16 = 42;
pub const SUPPORTED_VERSIONS: u16 = 43;

/// The folder with the recorded copies.
pub fn fixtures() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", "tls"].iter().collect()
}

/// Every recorded case.
pub fn cases() -> Vec<String> {
    let files = fs::read_dir(fixtures()).expect("the fixtures are there");
    let names = files.map(|file| file.expect("a readable folder").file_name().into_string().expect("plain names"));
    let mut cases: Vec<_> = names.filter_map(|name| Some(name.strip_suffix(".client.bin")?.to_owned())).collect();
    cases.sort();
    cases
}

/// What the client of a case sent.
pub fn client_bytes(case: &str) -> Vec<u8> {
    fs::read(fixtures().join(format!("{case}.client.bin"))).expect("a recorded case")
}

/// What the server of a case sent.
pub fn server_bytes(case: &str) -> Vec<u8> {
    fs::read(fixtures().join(format!("{case}.server.bin"))).expect("a recorded case")
}

/// The handshake bytes in the records at the front of a copy.
pub fn payload(copy: &[u8]) -> Vec<u8> {
    let mut payload = vec![];
    let mut rest = copy;
    while let [22, 3, _, high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        payload.extend_from_slice(&more[..length]);
        rest = &more[length..];
    }
    payload
}

/// Handshake bytes as they go over the wire, in records cut at these places (taken modulo the length).
pub fn records(payload: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % payload.len()).chain([0, payload.len()]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut wire = vec![];
    for bounds in cuts.windows(2) {
        for part in payload[bounds[0]..bounds[1]].chunks(1 << 14) {
            wire.extend_from_slice(&[22, 3, 1]);
            wire.extend(vector16(part));
        }
    }
    wire
}

/// Bytes with their length in one byte before them.
pub fn vector8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).expect("a short vector")], bytes].concat()
}

/// Bytes with their length in two bytes before them.
pub fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("a vector that fits").to_be_bytes(), bytes].concat()
}

/// A handshake message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a message that fits").to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

/// The content of a server name extension with these entries (type and name).
pub fn server_names(entries: &[(u8, &[u8])]) -> Vec<u8> {
    vector16(&entries.iter().flat_map(|(kind, name)| [vec![*kind], vector16(name)].concat()).collect::<Vec<_>>())
}

/// The content of an ALPN extension.
pub fn protocols(names: &[&[u8]]) -> Vec<u8> {
    vector16(&names.iter().flat_map(|name| vector8(name)).collect::<Vec<_>>())
}

/// The content of a client's supported versions.
pub fn versions(versions: &[u16]) -> Vec<u8> {
    vector8(&versions.iter().flat_map(|version| version.to_be_bytes()).collect::<Vec<_>>())
}

/// Type and content of an extension.
pub type Extension = (u16, Vec<u8>);

/// A hello to be built.
pub struct Hello<'a> {
    pub version: u16,
    pub random: [u8; 32],
    pub session_id: &'a [u8],
    pub extensions: &'a [Extension],
}

impl<'a> Hello<'a> {
    /// A hello with the version field of 1.2 and no session id.
    pub fn with(extensions: &'a [Extension]) -> Self {
        Self { version: 0x0303, random: [7; 32], session_id: &[], extensions }
    }

    fn build(&self, kind: u8, middle: &[u8]) -> Vec<u8> {
        let extensions: Vec<u8> = (self.extensions.iter())
            .flat_map(|(kind, content)| [kind.to_be_bytes().to_vec(), vector16(content)].concat())
            .collect();
        let session_id = vector8(self.session_id);
        message(
            kind,
            &[&self.version.to_be_bytes(), &self.random[..], &session_id, middle, &vector16(&extensions)].concat(),
        )
    }

    /// As a ClientHello message.
    pub fn client(&self) -> Vec<u8> {
        self.build(1, &[0, 2, 0x13, 0x01, 1, 0])
    }

    /// As a ServerHello message.
    pub fn server(&self) -> Vec<u8> {
        self.build(2, &[0x13, 0x01, 0])
    }
}
