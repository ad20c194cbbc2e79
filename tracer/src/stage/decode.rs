//! Bytes of one ring-buffer item to an [`Event`], or to a piece of a TLS hello, of a DNS message or of an HTTP head, which is no
//! event: its bytes must not reach a recording or an output.
//!
//! The kernel side is trusted to mean well but not to be of the same build: whatever does not fit exactly is an error
//! with a cause, and is counted.

use std::mem::offset_of;

use thiserror::Error;
use tracer_ebpf::{
    DetailedRecord, ExchangeRecord, HELLO_LEN, HelloRecord, ProcessRecord, SocketRecord, TlsRecord,
    dns::DnsRecord,
    getaddrinfo::GetAddrInfoRecord,
    http::{self, HEAD_LEN, HeadRecord, INDEX_UNKNOWN},
    kind,
    ssl::{JoinedRecord, MappedRecord},
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::event::{Event, EventRef};

/// Why an item is not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not even the kind fits.
    #[error("an event of {0} bytes is too short to have a kind")]
    TooShort(usize),
    /// No such kind in this version.
    #[error("unknown event kind {0}")]
    UnknownKind(u32),
    /// The kind is known and has another size.
    #[error("an event of kind {kind} has {size} bytes")]
    WrongSize {
        /// What it says it is.
        kind: u32,
        /// Its size in bytes.
        size: usize,
    },
}

impl DecodeError {
    /// The stable word for this cause of loss.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::TooShort(_) => "event_too_short",
            Self::UnknownKind(_) => "event_unknown_kind",
            Self::WrongSize { .. } => "event_wrong_size",
        }
    }
}

/// What an item holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'i> {
    /// An event.
    Event(EventRef<'i>),
    /// A piece of a hello message.
    Hello(Piece<'i>),
    /// A DNS message, or a piece of one.
    Dns(&'i DnsRecord),
    /// A call of `getaddrinfo` has returned.
    GetAddrInfo(&'i GetAddrInfoRecord),
    /// The first bytes of a message that may begin with an HTTP head.
    Head(Head<'i>),
    /// The connection of a TLS library's session has become known.
    Joined(&'i JoinedRecord),
    /// A process has mapped code.
    Mapped(&'i MappedRecord),
}

/// A piece of a TLS hello message as it passed, record headers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'i> {
    /// When it passed.
    pub at: u64,
    /// The connection's number.
    pub id: u64,
    /// From the client or from the server.
    pub from_client: bool,
    /// More bytes of the same piece were not copied.
    pub is_cut: bool,
    /// The bytes.
    pub bytes: &'i [u8],
}

/// The first bytes of a message that may begin with an HTTP head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'i> {
    /// When it passed.
    pub at: u64,
    /// The connection's number; 0 if it is not known.
    pub id: u64,
    /// The number of its exchange, if that is known.
    pub index: Option<u32>,
    /// The TLS library's session that it was seen in: process and number; `None` if it was seen on TCP.
    pub session: Option<SessionId>,
    /// The connection's owner sent it.
    pub sent: bool,
    /// The bytes.
    pub bytes: &'i [u8],
}

/// A session of a TLS library: process and number of the session.
pub type SessionId = (u32, u64);

/// A [`HeadRecord`] without its bytes.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct HeadHead {
    kind: u32,
    length: u32,
    at: u64,
    id: u64,
    session: u64,
    tgid: u32,
    flags: u32,
    index: u32,
    reserved: u32,
}

const _: () = assert!(offset_of!(HeadRecord, bytes) == size_of::<HeadHead>());

/// A [`HelloRecord`] without its bytes, of which an item holds only as many as are valid.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct HelloHead {
    kind: u32,
    length: u32,
    at: u64,
    id: u64,
    from_client: u32,
    left_out: u32,
}

const _: () = assert!(offset_of!(HelloRecord, bytes) == size_of::<HelloHead>());

/// Decodes one event. Its alignment does not matter. Hello and DNS messages and HTTP heads are none.
///
/// # Errors
/// If the item is not an event.
pub fn decode(item: &[u8]) -> Result<Event, DecodeError> {
    let kind = kind_of(item)?;
    let event = match kind {
        _ if is_of_connection(kind) && item.len() != size_of::<SocketRecord>() => {
            DetailedRecord::read_from_bytes(item).map(|record| Event::Detailed(Box::new(record))).ok()
        }
        _ if is_of_connection(kind) => SocketRecord::read_from_bytes(item).map(Event::Socket).ok(),
        kind::ANSWERED => ExchangeRecord::read_from_bytes(item).map(Event::Exchange).ok(),
        kind::TLS => TlsRecord::read_from_bytes(item).map(Event::Tls).ok(),
        kind::EXEC | kind::EXIT => {
            ProcessRecord::read_from_bytes(item).map(|record| Event::Process(Box::new(record))).ok()
        }
        _ => return Err(DecodeError::UnknownKind(kind)),
    };
    event.ok_or(DecodeError::WrongSize { kind, size: item.len() })
}

/// Whom items are lent to. Where that is more than a closure, `take` can be made a part of each place that calls it, so that the
/// kind of the item is known there.
pub trait Taker<R> {
    /// Takes an item.
    fn take(self, item: Item) -> R;
}

impl<R, F: FnOnce(Item) -> R> Taker<R> for F {
    #[inline]
    fn take(self, item: Item) -> R {
        self(item)
    }
}

/// As [`lend_to`].
///
/// # Errors
/// As [`lend_to`].
#[inline]
pub fn lend<R>(item: &[u8], take: impl FnOnce(Item) -> R) -> Result<R, DecodeError> {
    lend_to(item, take)
}

/// Decodes one item and lends it to `taker`, without a copy if it lies as its type must. The ring buffers' do.
///
/// # Errors
/// If the item is neither an event nor of a hello, a DNS message or an HTTP head.
#[inline(always)]
pub fn lend_to<R>(item: &[u8], taker: impl Taker<R>) -> Result<R, DecodeError> {
    if let Ok(record) = SocketRecord::ref_from_bytes(item)
        && is_of_connection(record.kind)
    {
        return Ok(taker.take(Item::Event(EventRef::Socket(record))));
    }
    if let Ok(record) = ExchangeRecord::ref_from_bytes(item)
        && record.kind == kind::ANSWERED
    {
        return Ok(taker.take(Item::Event(EventRef::Exchange(record))));
    }
    if let Ok(record) = DetailedRecord::ref_from_bytes(item)
        && is_of_connection(record.socket.kind)
    {
        return Ok(taker.take(Item::Event(EventRef::Detailed(record))));
    }
    lend_rare(item, taker)
}

/// Lends what comes less often, or lies as its type must not.
#[inline(never)]
fn lend_rare<R>(item: &[u8], taker: impl Taker<R>) -> Result<R, DecodeError> {
    let decoded;
    let (mut dns, mut call, mut joined, mut mapped) = (None, None, None, None);
    let item = match kind_of(item)? {
        kind::HELLO => Item::Hello(piece(item)?),
        kind::HEAD => Item::Head(head(item)?),
        kind::DNS => Item::Dns(whole(item, &mut dns)?),
        kind::GETADDRINFO => Item::GetAddrInfo(whole(item, &mut call)?),
        kind::JOINED => Item::Joined(whole(item, &mut joined)?),
        kind::MAPPED => Item::Mapped(whole(item, &mut mapped)?),
        _ => {
            decoded = decode(item)?;
            Item::Event(EventRef::from(&decoded))
        }
    };
    Ok(taker.take(item))
}

/// An item that is a record as a whole; copied to `copy` if it lies as its type must not.
fn whole<'i, T: FromBytes + Immutable + KnownLayout>(
    item: &'i [u8],
    copy: &'i mut Option<T>,
) -> Result<&'i T, DecodeError> {
    if let Ok(record) = T::ref_from_bytes(item) {
        return Ok(record);
    }
    let copied = T::read_from_bytes(item);
    let copied = copied.map_err(|_| DecodeError::WrongSize { kind: kind_of(item).unwrap_or(0), size: item.len() })?;
    Ok(copy.insert(copied))
}

fn piece(item: &[u8]) -> Result<Piece<'_>, DecodeError> {
    let wrong_size = DecodeError::WrongSize { kind: kind::HELLO, size: item.len() };
    let (head, bytes) = HelloHead::read_from_prefix(item).map_err(|_| wrong_size)?;
    let bytes = valid(bytes, head.length, HELLO_LEN).ok_or(wrong_size)?;
    Ok(Piece { at: head.at, id: head.id, from_client: head.from_client != 0, is_cut: head.left_out != 0, bytes })
}

fn head(item: &[u8]) -> Result<Head<'_>, DecodeError> {
    let wrong_size = DecodeError::WrongSize { kind: kind::HEAD, size: item.len() };
    let (head, bytes) = HeadHead::read_from_prefix(item).map_err(|_| wrong_size)?;
    // A probe in user space has no buffer to copy from, and sends the record whole.
    let is_whole = bytes.len() == HEAD_LEN;
    let some = if is_whole { bytes.get(..head.length as usize) } else { valid(bytes, head.length, HEAD_LEN) };
    let bytes = some.ok_or(wrong_size)?;
    let session = (head.session != 0).then_some((head.tgid, head.session));
    let index = (head.index != INDEX_UNKNOWN).then_some(head.index);
    Ok(Head { at: head.at, id: head.id, index, session, sent: head.flags & http::flag::SENT != 0, bytes })
}

/// The valid bytes at the end of an item. The ring buffer hands out whole words: an item ends up to 7 bytes behind them.
fn valid(bytes: &[u8], length: u32, most: usize) -> Option<&[u8]> {
    let length = length as usize;
    let fits = length <= most && (bytes.len() == length || bytes.len() == length.next_multiple_of(8));
    if fits { bytes.get(..length) } else { None }
}

fn kind_of(item: &[u8]) -> Result<u32, DecodeError> {
    let head = item.first_chunk().ok_or(DecodeError::TooShort(item.len()))?;
    Ok(u32::from_ne_bytes(*head))
}

fn is_of_connection(kind: u32) -> bool {
    matches!(kind, kind::CONNECTING | kind::OPENED | kind::PEER_CLOSED | kind::RELEASED | kind::ENDED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::{FromZeros, IntoBytes};

    const OF_CONNECTION: [u32; 5] = [kind::CONNECTING, kind::OPENED, kind::PEER_CLOSED, kind::RELEASED, kind::ENDED];

    #[test]
    fn every_kind_decodes_to_its_record() {
        for kind in OF_CONNECTION {
            let socket = SocketRecord { kind, id: 7, ..SocketRecord::new_zeroed() };
            assert_eq!(decode(socket.as_bytes()), Ok(Event::Socket(socket)));
            let detailed = DetailedRecord { socket, ..DetailedRecord::new_zeroed() };
            assert_eq!(decode(detailed.as_bytes()), Ok(Event::Detailed(Box::new(detailed))));
        }
        for kind in [kind::EXEC, kind::EXIT] {
            let record = ProcessRecord { kind, tgid: 7, ..ProcessRecord::new_zeroed() };
            assert_eq!(decode(record.as_bytes()), Ok(Event::Process(Box::new(record))));
        }
        let exchange = ExchangeRecord { kind: kind::ANSWERED, index: 3, ..ExchangeRecord::new_zeroed() };
        assert_eq!(decode(exchange.as_bytes()), Ok(Event::Exchange(exchange)));
        let tls = TlsRecord { kind: kind::TLS, id: 7, ..TlsRecord::new_zeroed() };
        assert_eq!(decode(tls.as_bytes()), Ok(Event::Tls(tls)));
    }

    #[test]
    fn misfits_are_told_by_cause() {
        let record = SocketRecord { kind: kind::OPENED, ..SocketRecord::new_zeroed() };
        let mut longer = record.as_bytes().to_vec();
        longer.push(0);
        let items = [&[1, 0, 0][..], &99u32.to_ne_bytes(), &longer, &longer[..longer.len() - 2]];
        let causes = items.map(|item| decode(item).map_err(DecodeError::cause));
        let expected = ["event_too_short", "event_unknown_kind", "event_wrong_size", "event_wrong_size"];
        assert_eq!(causes, expected.map(Err));
    }

    /// An item as the ring buffer holds it.
    fn hello(length: usize, behind: usize) -> Vec<u8> {
        let record = HelloRecord {
            kind: kind::HELLO,
            length: length as u32,
            at: 5,
            id: 7,
            from_client: 1,
            left_out: 2,
            bytes: [9; HELLO_LEN],
        };
        record.as_bytes().iter().copied().chain([0; 8]).take(size_of::<HelloHead>() + length + behind).collect()
    }

    #[test]
    fn a_piece_of_a_hello_is_lent_up_to_its_length_and_is_no_event() {
        for (length, behind) in [(0, 0), (13, 0), (13, 3), (16, 0), (HELLO_LEN, 0)] {
            let item = hello(length, behind);
            let expected = Piece { at: 5, id: 7, from_client: true, is_cut: true, bytes: &vec![9; length] };
            assert_eq!(lend(&item, |item| assert_eq!(item, Item::Hello(expected))), Ok(()));
            assert_eq!(decode(&item), Err(DecodeError::UnknownKind(kind::HELLO)));
        }
        for (length, behind) in [(13, 2), (13, 4), (16, 8)] {
            let error = lend(&hello(length, behind), |_| ()).map_err(DecodeError::cause);
            assert_eq!(error, Err("event_wrong_size"), "{length} bytes and {behind} more");
        }
        let mut liar = hello(16, 0);
        liar[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(lend(&liar, |_| ()).map_err(DecodeError::cause), Err("event_wrong_size"));
    }

    #[test]
    fn a_head_is_lent_up_to_its_length_and_is_no_event() {
        let record = |length: usize, index| HeadRecord {
            kind: kind::HEAD,
            length: length as u32,
            at: 5,
            id: 7,
            flags: http::flag::SENT,
            index,
            bytes: [9; HEAD_LEN],
            ..HeadRecord::new_zeroed()
        };
        let item = |length: usize, behind: usize, index| {
            let record = record(length, index);
            let bytes = record.as_bytes().iter().copied().chain([0; 8]);
            bytes.take(size_of::<HeadHead>() + length + behind).collect::<Vec<_>>()
        };
        for (length, behind) in [(0, 0), (13, 0), (13, 3), (16, 0), (HEAD_LEN, 0)] {
            let bytes = vec![9; length];
            let expected = Head { at: 5, id: 7, index: Some(3), session: None, sent: true, bytes: &bytes };
            let item = item(length, behind, 3);
            assert_eq!(lend(&item, |item| assert_eq!(item, Item::Head(expected))), Ok(()));
            assert_eq!(decode(&item), Err(DecodeError::UnknownKind(kind::HEAD)));
        }
        let is_unknown = |item: Item| matches!(item, Item::Head(Head { index: None, .. }));
        assert_eq!(lend(&item(16, 0, INDEX_UNKNOWN), is_unknown), Ok(true));
        for (length, behind) in [(13, 2), (13, 4), (16, 8)] {
            let error = lend(&item(length, behind, 3), |_| ()).map_err(DecodeError::cause);
            assert_eq!(error, Err("event_wrong_size"), "{length} bytes and {behind} more");
        }
        let mut liar = item(16, 0, 3);
        liar[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(lend(&liar, |_| ()).map_err(DecodeError::cause), Err("event_wrong_size"));
    }

    #[test]
    fn a_dns_message_is_lent_however_it_lies_and_is_no_event() {
        let record = DnsRecord { kind: kind::DNS, tgid: 7, length: 3, ..DnsRecord::new_zeroed() };
        assert_lent(kind::DNS, record.as_bytes(), Item::Dns(&record));
    }

    #[test]
    fn a_call_of_getaddrinfo_is_lent_however_it_lies_and_is_no_event() {
        let record = GetAddrInfoRecord { kind: kind::GETADDRINFO, tgid: 7, result: -2, ..FromZeros::new_zeroed() };
        assert_lent(kind::GETADDRINFO, record.as_bytes(), Item::GetAddrInfo(&record));
    }

    #[track_caller]
    fn assert_lent(kind: u32, record: &[u8], expected: Item) {
        for start in 0..8 {
            let bytes = [&vec![0; start], record].concat();
            let item = &bytes[start..];
            assert_eq!(lend(item, |item| assert_eq!(item, expected)), Ok(()));
            assert_eq!(decode(item), Err(DecodeError::UnknownKind(kind)));
            let cut = lend(&item[..item.len() - 8], |_| ()).map_err(DecodeError::cause);
            assert_eq!(cut, Err("event_wrong_size"));
        }
    }

    /// What is lent as something else.
    const NO_EVENTS: [u32; 6] = [kind::HELLO, kind::DNS, kind::HEAD, kind::JOINED, kind::GETADDRINFO, kind::MAPPED];

    #[test]
    fn a_lent_event_is_the_decoded_one_however_it_lies() {
        let sizes = [size_of::<SocketRecord>(), size_of::<DetailedRecord>(), size_of::<ExchangeRecord>()];
        let kinds = (0..20).filter(|kind| !NO_EVENTS.contains(kind));
        for (kind, size) in kinds.flat_map(|kind| sizes.map(|size| (kind, size))) {
            let mut bytes = vec![0; 8 + size];
            for start in 0..8 {
                let item = &mut bytes[start..start + size];
                item.fill(3);
                item[..4].copy_from_slice(&u32::to_ne_bytes(kind));
                let decoded = decode(item);
                let lent = lend(item, |item| {
                    assert_eq!(item, Item::Event(EventRef::from(decoded.as_ref().expect("an event"))))
                });
                assert_eq!(lent.err(), decoded.err());
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_a_message_or_an_error(
            kind in prop_oneof![0u32..20, any::<u32>()],
            rest in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let item = [&kind.to_ne_bytes()[..], &rest].concat();
            match lend(&item, |item| matches!(item, Item::Event(_))) {
                Ok(true) => prop_assert!(decode(&item).is_ok()),
                Ok(false) => prop_assert!(NO_EVENTS.contains(&kind)),
                Err(_) => prop_assert!(decode(&item).is_err()),
            }
        }
    }
}
