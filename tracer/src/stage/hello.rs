//! Puts the pieces of TLS hello messages together and reads what they say. Their bytes stay here: what goes on is the facts.

use std::rc::Rc;

use foldhash::fast::RandomState;
use hashlink::LinkedHashMap;
use tracer_ebpf::tls::{
    hello::{ClientHello, Malformed, ServerHello, resumed},
    record::{ContentType, HEADER_LEN, Header},
};

use super::{decode::Piece, event::UserEvent};
use crate::track::record::Hello;

/// Most bytes kept of one side's messages. With every usual extension and a post-quantum key share a ClientHello has 2 kB; a
/// second one follows a HelloRetryRequest.
const MAX_COPY: usize = 16 << 10;
/// Most connections in the middle of their hellos.
const MAX_CONNECTIONS: usize = 4_096;
/// Most bytes kept of all of them.
const MAX_BYTES: usize = 8 << 20;
/// Most empty buffers kept for the next hellos.
const MAX_SPARE: usize = 8;
/// Of the last facts, so many are kept for handshakes that say the same.
const RECENT: usize = 8;

/// The handshakes that have begun and whose hellos are not complete. Beyond the bounds the oldest is forgotten.
#[derive(Default)]
pub struct Hellos {
    pending: LinkedHashMap<u64, Pending, RandomState>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    said: Said,
}

/// One connection's.
#[derive(Default)]
struct Pending {
    /// What each side has sent of a message that is not complete.
    client: Vec<u8>,
    server: Vec<u8>,
    /// What the client said, once that is known.
    offer: Option<Box<ClientHello>>,
    /// All is said, or it was no hello: what else comes is not looked at.
    over: bool,
}

impl Hellos {
    /// Takes in a piece. Returns what is news by it.
    ///
    /// # Errors
    /// If it is not what it should be. Nothing further of the connection is looked at.
    pub fn take(&mut self, piece: Piece) -> Result<Option<UserEvent>, Malformed> {
        let Piece { at, id, from_client, .. } = piece;
        let Self { pending, bytes, spare, said } = self;
        let pending = pending.entry(id).or_insert_with(Pending::default);
        // A second ClientHello is the answer to a HelloRetryRequest: it says nothing new.
        if pending.over || from_client && pending.offer.is_some() {
            return Ok(None);
        }
        let Pending { client, server, offer, .. } = pending;
        let sent = if from_client { client } else { server };
        let new = &piece.bytes[..piece.bytes.len().min(MAX_COPY - sent.len())];
        let is_cut = piece.is_cut || new.len() < piece.bytes.len();
        // A message mostly comes in one piece, which need not be kept.
        let is_first = sent.is_empty();
        if !is_first {
            keep(sent, new, bytes);
        }
        let copy = if is_first { new } else { &*sent };
        let news = match from_client {
            _ if !is_cut && is_mere_header(copy) => Ok(Progress::Waiting),
            true => read_client(copy, is_cut, offer, said),
            false => read_server(copy, is_cut, offer.as_deref(), said),
        };
        match news {
            Ok(Progress::Waiting) if is_first => {
                *sent = spare.pop().unwrap_or_default();
                keep(sent, new, bytes);
            }
            Ok(Progress::Waiting) => {}
            Ok(Progress::News(_)) => drop_bytes(sent, bytes, spare),
            Ok(Progress::Done(_)) | Err(_) => {
                drop_bytes(&mut pending.client, bytes, spare);
                drop_bytes(&mut pending.server, bytes, spare);
                *pending = Pending { over: true, ..Pending::default() };
            }
        }
        self.make_room();
        Ok(match news? {
            Progress::Waiting => None,
            Progress::News(hello) | Progress::Done(hello) => Some(UserEvent::Hello { at, id, hello }),
        })
    }

    /// Drops what is kept of a connection: it has ended, or its handshake.
    #[inline]
    pub fn forget(&mut self, id: u64) {
        if !self.pending.is_empty()
            && let Some(mut pending) = self.pending.remove(&id)
        {
            drop_bytes(&mut pending.client, &mut self.bytes, &mut self.spare);
            drop_bytes(&mut pending.server, &mut self.bytes, &mut self.spare);
        }
    }

    fn make_room(&mut self) {
        while self.pending.len() > MAX_CONNECTIONS || self.bytes > MAX_BYTES {
            let Some((_, oldest)) = self.pending.pop_front() else { break };
            self.bytes -= oldest.client.len() + oldest.server.len();
        }
    }
}

/// Keeps bytes of a message; `all` counts those of all messages.
fn keep(sent: &mut Vec<u8>, new: &[u8], all: &mut usize) {
    sent.extend_from_slice(new);
    *all += new.len();
}

/// Drops the bytes of a message, and keeps their buffer for the next.
fn drop_bytes(sent: &mut Vec<u8>, all: &mut usize, spare: &mut Vec<Vec<u8>>) {
    *all -= sent.len();
    let mut buffer = std::mem::take(sent);
    if buffer.capacity() > 0 && spare.len() < MAX_SPARE {
        buffer.clear();
        spare.push(buffer);
    }
}

/// Whether this is the header of a handshake record and no more: libraries mostly receive it by itself.
fn is_mere_header(copy: &[u8]) -> bool {
    let header = <&[u8; HEADER_LEN]>::try_from(copy).ok().and_then(Header::parse);
    header.is_some_and(|header| header.content_type == ContentType::Handshake)
}

/// What a piece led to.
enum Progress {
    /// Nothing yet.
    Waiting,
    /// One side's message is read.
    News(Rc<Hello>),
    /// Both are.
    Done(Rc<Hello>),
}

fn read_client(
    copy: &[u8],
    is_cut: bool,
    offer: &mut Option<Box<ClientHello>>,
    said: &mut Said,
) -> Result<Progress, Malformed> {
    let hello = ClientHello::parse(copy)?;
    if !hello.complete && !is_cut {
        return Ok(Progress::Waiting);
    }
    let facts = said.facts(Some(&hello), None);
    *offer = Some(Box::new(hello));
    Ok(Progress::News(facts))
}

fn read_server(copy: &[u8], is_cut: bool, offer: Option<&ClientHello>, said: &mut Said) -> Result<Progress, Malformed> {
    let hello = ServerHello::parse(copy)?;
    if !hello.complete && !is_cut && hello.alert.is_none() {
        return Ok(Progress::Waiting);
    }
    Ok(Progress::Done(said.facts(offer, Some(&hello))))
}

/// The facts that were told last, for handshakes that say the same.
#[derive(Default)]
struct Said {
    recent: [Option<Rc<Hello>>; RECENT],
    /// The place of the oldest.
    oldest: usize,
}

impl Said {
    /// What both messages say together.
    fn facts(&mut self, client: Option<&ClientHello>, server: Option<&ServerHello>) -> Rc<Hello> {
        let mut recent = self.recent.iter().flatten();
        if let Some(known) = recent.find(|known| says_so(known, client, server)) {
            return Rc::clone(known);
        }
        let facts = Rc::new(facts(client, server));
        self.recent[self.oldest] = Some(Rc::clone(&facts));
        self.oldest = (self.oldest + 1) % RECENT;
        facts
    }
}

/// Whether [`facts`] are these, which need not be made to tell. Names that are not UTF-8 never are.
fn says_so(facts: &Hello, client: Option<&ClientHello>, server: Option<&ServerHello>) -> bool {
    facts.version == server.and_then(|server| server.version)
        && facts.cipher == server.and_then(|server| server.cipher_suite)
        && facts.resumed == server.and_then(|server| client.and_then(|client| resumed(client, server)))
        && facts.sni.as_deref() == client.and_then(|client| client.name.as_ref()).map(|name| name.as_str())
        && facts.versions_offered.as_deref() == client.map(|client| client.versions.as_slice())
        && match (&facts.alpn_offered, client) {
            (None, None) => true,
            (Some(known), Some(client)) => {
                let offered = client.alpn.as_slice().iter().map(|name| name.as_slice());
                known.iter().map(String::as_bytes).eq(offered)
            }
            _ => false,
        }
        && facts.alpn.as_deref().map(str::as_bytes)
            == server.and_then(|server| server.alpn.as_ref()).map(|name| name.as_slice())
}

/// What both messages say together.
fn facts(client: Option<&ClientHello>, server: Option<&ServerHello>) -> Hello {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut facts = Hello::default();
    if let Some(client) = client {
        facts.sni = client.name.map(|name| name.as_str().to_owned());
        facts.alpn_offered = Some(client.alpn.as_slice().iter().map(|name| text(name.as_slice())).collect());
        facts.versions_offered = Some(client.versions.as_slice().to_vec());
    }
    if let Some(server) = server {
        facts.version = server.version;
        facts.cipher = server.cipher_suite;
        facts.alpn = server.alpn.map(|name| text(name.as_slice()));
        facts.resumed = client.and_then(|client| resumed(client, server));
    }
    facts
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use proptest::{prelude::*, sample::Index};

    /// What both sides sent at the beginning of a real handshake.
    fn recorded(name: &str) -> (Vec<u8>, Vec<u8>) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer-ebpf/tests/fixtures/tls");
        let read = |side: &str| fs::read(folder.join(format!("{name}.{side}.bin"))).expect("a fixture");
        (read("client"), read("server"))
    }

    fn kept(hellos: &Hellos) -> usize {
        hellos.pending.values().map(|pending| pending.client.len() + pending.server.len()).sum()
    }

    fn piece(id: u64, from_client: bool, bytes: &[u8]) -> Piece<'_> {
        Piece { at: 5, id, from_client, is_cut: false, bytes }
    }

    fn hello(news: Result<Option<UserEvent>, Malformed>) -> Option<Hello> {
        match news.expect("well formed") {
            Some(UserEvent::Hello { hello, .. }) => Some(Rc::unwrap_or_clone(hello)),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    /// What is known at the end of a handshake whose pieces come one after the other, and how many bytes are kept of it.
    fn facts_of(name: &str, cut: &dyn Fn(&[u8]) -> Vec<Vec<u8>>) -> (Option<Hello>, usize) {
        let (client, server) = recorded(name);
        let mut hellos = Hellos::default();
        let mut known = None;
        for (from_client, bytes) in [(true, client), (false, server)] {
            for bytes in cut(&bytes) {
                known = hello(hellos.take(piece(7, from_client, &bytes))).or(known);
            }
        }
        (known, hellos.bytes)
    }

    #[test]
    fn a_full_and_a_resumed_handshake_say_what_was_offered_and_chosen() {
        let whole = |bytes: &[u8]| vec![bytes.to_vec()];
        for (name, version, resumed) in [
            ("openssl-1.3-full", 0x0304, false),
            ("openssl-1.3-resumed", 0x0304, true),
            ("openssl-1.2-full", 0x0303, false),
            ("openssl-1.2-ticket", 0x0303, true),
        ] {
            let (facts, kept) = facts_of(name, &whole);
            let facts = facts.expect("news");
            assert_eq!((facts.version, facts.resumed), (Some(version), Some(resumed)), "{name}");
            assert!(facts.sni.is_some() && facts.cipher.is_some() && facts.versions_offered.is_some(), "{facts:?}");
            assert_eq!(kept, 0, "{name}");
        }
    }

    #[test]
    fn a_server_that_refuses_ends_it() {
        let (facts, kept) = facts_of("openssl-refused", &|bytes| vec![bytes.to_vec()]);
        let facts = facts.expect("the client's part");
        assert!(facts.versions_offered.is_some() && facts.version.is_none() && facts.cipher.is_none());
        assert_eq!(kept, 0);
    }

    #[test]
    fn the_client_s_part_is_told_before_the_server_answers() {
        let (client, _) = recorded("openssl-1.3-full");
        let facts = hello(Hellos::default().take(piece(7, true, &client))).expect("news");
        assert!(facts.sni.is_some() && facts.version.is_none() && facts.resumed.is_none());
    }

    #[test]
    fn a_piece_that_was_not_copied_whole_tells_what_it_holds() {
        let (client, _) = recorded("openssl-1.3-full");
        let whole = hello(Hellos::default().take(piece(7, true, &client))).expect("news");
        let mut hellos = Hellos::default();
        let cut = Piece { is_cut: true, ..piece(7, true, &client[..client.len() - 20]) };
        let facts = hello(hellos.take(cut)).expect("news");
        assert_eq!(facts.sni, whole.sni);
        // What comes behind the gap is not put behind the rest.
        assert_eq!(hello(hellos.take(piece(7, true, &client))), None);
    }

    #[test]
    fn nothing_is_put_behind_a_header_whose_body_was_not_copied() {
        let (client, _) = recorded("openssl-1.3-full");
        let (header, body) = client.split_at(HEADER_LEN);
        let mut hellos = Hellos::default();
        let cut = Piece { is_cut: true, ..piece(7, true, header) };
        assert_eq!(hello(hellos.take(cut)).expect("news").sni, None);
        assert_eq!(hello(hellos.take(piece(7, true, body))), None);
        assert_eq!(hello(hellos.take(piece(8, true, header))), None);
        assert!(hello(hellos.take(piece(8, true, body))).expect("news").sni.is_some());
        assert_eq!(hellos.bytes, 0);
    }

    #[test]
    fn the_same_facts_are_told_but_once() {
        let (client, server) = recorded("openssl-1.3-full");
        let mut hellos = Hellos::default();
        let mut told = |id| {
            [(true, &client), (false, &server)].map(|(from_client, bytes)| {
                match hellos.take(piece(id, from_client, bytes)).expect("well formed") {
                    Some(UserEvent::Hello { hello, .. }) => hello,
                    other => panic!("{other:?}"),
                }
            })
        };
        let (first, second) = (told(1), told(2));
        for (first, second) in first.iter().zip(&second) {
            assert!(Rc::ptr_eq(first, second));
        }
        assert_ne!(first[0], first[1]);
    }

    #[test]
    fn what_is_no_hello_is_an_error_and_not_kept() {
        let mut hellos = Hellos::default();
        assert!(hellos.take(piece(7, true, b"GET / HTTP/1.1\r\n")).is_err());
        assert_eq!(hellos.bytes, 0);
        assert!(matches!(hellos.take(piece(7, true, b"more of it")), Ok(None)), "told once");
        hellos.forget(7);
        assert!(hellos.pending.is_empty());
    }

    #[test]
    fn beyond_its_bounds_the_oldest_is_forgotten() {
        let (client, _) = recorded("openssl-1.3-full");
        let begun = &client[..100];
        let mut hellos = Hellos::default();
        for id in 0..2 * MAX_CONNECTIONS as u64 {
            assert_eq!(hello(hellos.take(piece(id, true, begun))), None);
            assert!(hellos.pending.len() <= MAX_CONNECTIONS);
        }
        assert_eq!(hellos.bytes, MAX_CONNECTIONS * begun.len());
        let last = 2 * MAX_CONNECTIONS as u64 - 1;
        assert!(hello(hellos.take(piece(last, true, &client[100..]))).is_some(), "the newest is not");
        // A record as long as can be, and records like it: a hello that never ends.
        let mut endless = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff, 3, 3];
        endless.resize(4_000, 0);
        for id in 0..MAX_BYTES.div_ceil(MAX_COPY) as u64 + 10 {
            for _ in 0..5 {
                let _ = hellos.take(piece(id, true, &endless));
                assert!(hellos.bytes <= MAX_BYTES);
            }
        }
        let kept = kept(&hellos);
        assert_eq!(kept, hellos.bytes);
    }

    proptest! {
        #[test]
        fn however_it_is_cut_a_handshake_says_the_same(
            name in prop::sample::select(vec![
                "openssl-1.3-full", "openssl-1.3-retry", "openssl-1.2-session-id", "openssl-split", "openssl-large",
                "java-1.3", "gnutls-1.3", "python-1.2",
            ]),
            places in prop::collection::vec(any::<Index>(), 0..6),
        ) {
            let cut = |bytes: &[u8]| {
                let mut places: Vec<_> = places.iter().map(|place| place.index(bytes.len())).collect();
                places.extend([0, bytes.len()]);
                places.sort_unstable();
                places.windows(2).map(|ends| bytes[ends[0]..ends[1]].to_vec()).collect()
            };
            let whole = |bytes: &[u8]| vec![bytes.to_vec()];
            prop_assert_eq!(facts_of(name, &cut), facts_of(name, &whole));
        }

        #[test]
        fn any_bytes_neither_panic_nor_pile_up(
            pieces in prop::collection::vec(
                (0..3u64, any::<bool>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..300), any::<bool>()), 0..40),
        ) {
            let mut hellos = Hellos::default();
            for (id, from_client, is_cut, mut bytes, looks_like) in pieces {
                if looks_like && bytes.len() > 6 {
                    bytes[..6].copy_from_slice(&[0x16, 3, 3, 1, 0, if from_client { 1 } else { 2 }]);
                }
                let _ = hellos.take(Piece { at: 1, id, from_client, is_cut, bytes: &bytes });
            }
            let kept = kept(&hellos);
            prop_assert!(kept == hellos.bytes && kept <= 3 * 2 * MAX_COPY);
        }
    }
}
