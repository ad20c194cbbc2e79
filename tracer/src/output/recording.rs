//! The event stream in a file, so that a trace can be looked at again without its kernel.
//!
//! ```text
//! recording = magic "conntrac", format u32, ABI version u32, length u32, header as JSON, CRC-32 of all that; blocks
//! block     = length u32, events u32, CRC-32 of these two and the items u32; items
//! item      = kind u16, length u32, payload: the kernel's bytes, or a user event as JSON
//! ```
//!
//! Numbers are little-endian, the kernel's bytes as its machine has them. A recording ends with the stop; one that does
//! not was cut short.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracer_ebpf::{ABI_VERSION, MISSING, Offsets};
use zerocopy::IntoBytes;

use crate::stage::{
    decode::decode,
    event::{Event, EventRef, UserEvent},
};

const MAGIC: &[u8; 8] = b"conntrac";
const FORMAT: u32 = 1;
/// Longest JSON header in bytes.
const MAX_HEADER: u32 = 1 << 20;
/// A block is written when its items have so many bytes.
const FULL_BLOCK: usize = 1 << 18;
/// Longest block in bytes; one event is never longer.
const MAX_BLOCK: u32 = 1 << 24;
/// Length and number of events, without the checksum.
const BLOCK_HEAD: usize = 8;
const ITEM_HEAD: usize = 6;

const KERNEL_ITEM: u16 = 1;
const USER_ITEM: u16 = 2;

/// What a replay must know beforehand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the tool that recorded.
    pub tool_version: String,
    /// When the recording began, RFC 3339.
    pub created_at: String,
    /// The same on the boot clock, nanoseconds.
    pub began_at: u64,
    /// Kernel release.
    pub kernel: String,
    /// Host name.
    pub host: String,
    /// Nanoseconds from the boot clock to the Unix epoch.
    pub boot_to_wall_ns: i64,
    /// Length of a kernel tick in nanoseconds.
    pub tick_ns: u64,
    /// Kernel field offsets by name; what the kernel lacks is left out.
    pub offsets: BTreeMap<String, u32>,
    /// `little` or `big`; see [`BYTE_ORDER`].
    pub byte_order: String,
}

/// This machine's byte order, as [`Header::byte_order`] has it.
pub const BYTE_ORDER: &str = if cfg!(target_endian = "little") { "little" } else { "big" };

/// The table of offsets as a header keeps it.
pub fn named_offsets(offsets: &Offsets) -> BTreeMap<String, u32> {
    let names = Offsets::FIELDS.iter().map(|field| field.name);
    let names = names.chain(Offsets::ENUMERATORS.iter().map(|one| one.name));
    let values =
        offsets.as_bytes().chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    names.zip(values).filter(|(_, value)| *value != MISSING).map(|(name, value)| (name.into(), value)).collect()
}

/// Writes a recording, a block at a time.
pub struct Writer<W: Write> {
    out: W,
    /// Room for the block's head, then its items.
    block: Vec<u8>,
    events: u32,
    /// When the first event of the block came.
    begun: Option<Instant>,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub fn new(mut out: W, header: &Header) -> io::Result<Self> {
        let json = serde_json::to_vec(header)?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_HEADER);
        let length = length.ok_or_else(|| io::Error::other("the recording's header is too long"))?;
        let mut head = MAGIC.to_vec();
        for word in [FORMAT, ABI_VERSION, length] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        head.extend_from_slice(&json);
        let checksum = crc32fast::hash(&head);
        head.extend_from_slice(&checksum.to_le_bytes());
        out.write_all(&head)?;
        Ok(Self { out, block: empty_block(), events: 0, begun: None })
    }

    /// Adds an event; a full block is written.
    pub fn push<'e>(&mut self, event: impl Into<EventRef<'e>>) -> io::Result<()> {
        match event.into() {
            EventRef::Socket(record) => self.item(KERNEL_ITEM, record.as_bytes())?,
            EventRef::Detailed(record) => self.item(KERNEL_ITEM, record.as_bytes())?,
            EventRef::Exchange(record) => self.item(KERNEL_ITEM, record.as_bytes())?,
            EventRef::Tls(record) => self.item(KERNEL_ITEM, record.as_bytes())?,
            EventRef::Process(record) => self.item(KERNEL_ITEM, record.as_bytes())?,
            EventRef::User(event) => self.item(USER_ITEM, &serde_json::to_vec(event)?)?,
        }
        self.begun.get_or_insert_with(Instant::now);
        if self.block.len() >= FULL_BLOCK { self.flush() } else { Ok(()) }
    }

    /// Writes the block if its first event came so long ago. To be called now and then, or a crash loses more.
    pub fn flush_if_older(&mut self, age: Duration) -> io::Result<()> {
        if self.begun.is_some_and(|begun| begun.elapsed() >= age) { self.flush() } else { Ok(()) }
    }

    /// Writes what is there. To be called at the end.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.events > 0 {
            let length = (self.block.len() - BLOCK_HEAD - 4) as u32;
            self.block[..4].copy_from_slice(&length.to_le_bytes());
            self.block[4..BLOCK_HEAD].copy_from_slice(&self.events.to_le_bytes());
            let checksum = block_checksum(&self.block[..BLOCK_HEAD], &self.block[BLOCK_HEAD + 4..]);
            self.block[BLOCK_HEAD..BLOCK_HEAD + 4].copy_from_slice(&checksum.to_le_bytes());
            let block = std::mem::replace(&mut self.block, empty_block());
            (self.events, self.begun) = (0, None);
            self.out.write_all(&block)?;
        }
        self.out.flush()
    }

    /// The destination. What has not been flushed is lost.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn item(&mut self, kind: u16, payload: &[u8]) -> io::Result<()> {
        let too_long = || io::Error::other("an event is too long for the recording");
        let length = u32::try_from(payload.len()).map_err(|_| too_long())?;
        if payload.len() + ITEM_HEAD + FULL_BLOCK > MAX_BLOCK as usize {
            return Err(too_long());
        }
        self.block.extend_from_slice(&kind.to_le_bytes());
        self.block.extend_from_slice(&length.to_le_bytes());
        self.block.extend_from_slice(payload);
        self.events += 1;
        Ok(())
    }
}

fn empty_block() -> Vec<u8> {
    let mut block = Vec::with_capacity(FULL_BLOCK + 4096);
    block.resize(BLOCK_HEAD + 4, 0);
    block
}

fn block_checksum(head: &[u8], items: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(items);
    hasher.finalize()
}

/// Why a recording cannot be replayed at all.
#[derive(Debug, Error)]
pub enum OpenError {
    /// No bytes.
    #[error("the recording is empty")]
    Empty,
    /// Another kind of file.
    #[error("this is not a conntracer recording")]
    NotARecording,
    /// A recording in a format of another time.
    #[error("the recording has format {found}; this version of conntracer reads format {FORMAT}")]
    OtherFormat {
        /// Its format.
        found: u32,
    },
    /// Its kernel events have other layouts.
    #[error("the recording was made with event layout {found}; this version of conntracer reads layout {ABI_VERSION}")]
    OtherAbi {
        /// Its layout version.
        found: u32,
    },
    /// Made on a machine of another kind.
    #[error("the recording was made on a {found}-endian machine and can only be replayed on one")]
    OtherByteOrder {
        /// Its byte order.
        found: String,
    },
    /// Nothing but part of a header.
    #[error("the recording ends within its header")]
    TruncatedHeader,
    /// The header's checksum does not match, or it says impossible things.
    #[error("the recording's header is damaged")]
    DamagedHeader,
    /// It could not be read.
    #[error("cannot read the recording")]
    Io(#[from] io::Error),
}

/// Why a replay ends before the recording's proper end. The events up to there are good.
#[derive(Debug, Error)]
pub enum Cut {
    /// The file ends without the stop.
    #[error("recording cut short at byte {at} after {events} events")]
    Truncated {
        /// Bytes that were good.
        at: u64,
        /// Events replayed.
        events: u64,
    },
    /// A block's checksum does not match.
    #[error("recording damaged at byte {at} after {events} events; the rest is not replayed")]
    Damaged {
        /// Where the damaged block begins.
        at: u64,
        /// Events replayed.
        events: u64,
    },
    /// It could not be read further.
    #[error("recording unreadable at byte {at} after {events} events: {source}")]
    Io {
        /// Bytes that were good.
        at: u64,
        /// Events replayed.
        events: u64,
        /// Why.
        source: io::Error,
    },
}

/// Reads a recording: an iterator over its events, the last item of which may say why it is the last.
pub struct Reader<R: Read> {
    input: R,
    header: Header,
    block: std::vec::IntoIter<Event>,
    /// Bytes of the header and of good blocks.
    at: u64,
    events: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// More is expected.
    Running,
    /// The stop has been read: the file may end here.
    Stopped,
    /// Nothing more to give.
    Done,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn open(mut input: R) -> Result<Self, OpenError> {
        let start = read_up_to(&mut input, 20)?;
        if start.is_empty() {
            return Err(OpenError::Empty);
        }
        if !start.starts_with(&MAGIC[..start.len().min(MAGIC.len())]) {
            return Err(OpenError::NotARecording);
        }
        let [Some(format), Some(abi), Some(length)] = [8, 12, 16].map(|at| word(&start, at)) else {
            return Err(OpenError::TruncatedHeader);
        };
        if format != FORMAT {
            return Err(OpenError::OtherFormat { found: format });
        }
        if abi != ABI_VERSION {
            return Err(OpenError::OtherAbi { found: abi });
        }
        if length > MAX_HEADER {
            return Err(OpenError::DamagedHeader);
        }
        let json = read_up_to(&mut input, length)?;
        let checksum = word(&read_up_to(&mut input, 4)?, 0).ok_or(OpenError::TruncatedHeader)?;
        if checksum != block_checksum(&start, &json) {
            return Err(OpenError::DamagedHeader);
        }
        let header: Header = serde_json::from_slice(&json).map_err(|_| OpenError::DamagedHeader)?;
        if header.byte_order != BYTE_ORDER {
            return Err(OpenError::OtherByteOrder { found: header.byte_order });
        }
        let at = 24 + u64::from(length);
        Ok(Self { input, header, block: Vec::new().into_iter(), at, events: 0, state: State::Running })
    }

    /// What the recording says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next block's events; `None` at the end of the file.
    fn next_block(&mut self) -> Result<Option<Vec<Event>>, Cut> {
        let (at, events) = (self.at, self.events);
        let unreadable = |source| Cut::Io { at, events, source };
        let head = read_up_to(&mut self.input, BLOCK_HEAD as u32 + 4).map_err(unreadable)?;
        if head.is_empty() {
            return Ok(None);
        }
        let [Some(length), Some(count), Some(checksum)] = [0, 4, 8].map(|at| word(&head, at)) else {
            return Err(Cut::Truncated { at, events });
        };
        if length > MAX_BLOCK {
            return Err(Cut::Damaged { at, events });
        }
        let items = read_up_to(&mut self.input, length).map_err(unreadable)?;
        if items.len() < length as usize {
            return Err(Cut::Truncated { at, events });
        }
        let intact = block_checksum(&head[..BLOCK_HEAD], &items) == checksum;
        let block = intact.then(|| block_events(&items)).flatten();
        let block = block.filter(|block| block.len() == count as usize).ok_or(Cut::Damaged { at, events })?;
        self.at += (head.len() + items.len()) as u64;
        Ok(Some(block))
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Event, Cut>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.block.next() {
                self.events += 1;
                if matches!(&event, Event::User(user) if matches!(**user, UserEvent::Stop { .. })) {
                    self.state = State::Stopped;
                }
                return Some(Ok(event));
            }
            if self.state == State::Done {
                return None;
            }
            match self.next_block() {
                Ok(Some(block)) => self.block = block.into_iter(),
                Ok(None) => {
                    let stopped = std::mem::replace(&mut self.state, State::Done) == State::Stopped;
                    return (!stopped).then_some(Err(Cut::Truncated { at: self.at, events: self.events }));
                }
                Err(cut) => {
                    self.state = State::Done;
                    return Some(Err(cut));
                }
            }
        }
    }
}

/// The items of a block; `None` if one is not what it says.
fn block_events(mut items: &[u8]) -> Option<Vec<Event>> {
    let mut events = Vec::new();
    while !items.is_empty() {
        let (kind, rest) = items.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        items = rest;
        events.push(match u16::from_le_bytes(*kind) {
            KERNEL_ITEM => decode(payload).ok()?,
            USER_ITEM => Event::User(serde_json::from_slice(payload).ok()?),
            _ => return None,
        });
    }
    Some(events)
}

/// Up to so many bytes, fewer only at the end of the file. Memory grows with what is there, not with what is announced.
fn read_up_to(input: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(u64::from(length)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::record::{Hello, HttpHead, HttpMethod};
    use proptest::prelude::*;
    use tracer_ebpf::{DetailedRecord, ExchangeRecord, ProcessRecord, SocketRecord, TlsRecord, kind};
    use zerocopy::FromBytes;

    fn header() -> Header {
        Header {
            tool_version: "0.1.0".into(),
            created_at: "2026-11-21T03:14:33Z".into(),
            began_at: 5,
            kernel: "6.12.0".into(),
            host: "host".into(),
            boot_to_wall_ns: -7,
            tick_ns: 4_000_000,
            offsets: named_offsets(&Offsets { sk_family: 16, ..Offsets::NONE }),
            byte_order: BYTE_ORDER.into(),
        }
    }

    fn recording(events: &[Event], flush_every: usize) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), &header()).expect("memory");
        for (index, event) in events.iter().enumerate() {
            writer.push(event).expect("memory");
            if index % flush_every == 0 {
                writer.flush().expect("memory");
            }
        }
        writer.flush().expect("memory");
        writer.into_inner()
    }

    /// Events that could be read, and whether the replay ended properly.
    fn replay(bytes: &[u8]) -> Result<(Vec<Event>, Option<Cut>), OpenError> {
        let (mut events, mut cut) = (Vec::new(), None);
        for item in Reader::open(bytes)? {
            assert!(cut.is_none(), "nothing comes after a cut");
            match item {
                Ok(event) => events.push(event),
                Err(why) => cut = Some(why),
            }
        }
        Ok((events, cut))
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let socket = (
            prop::array::uniform32(any::<u8>()),
            prop::sample::select(vec![kind::CONNECTING, kind::OPENED, kind::ENDED]),
        );
        let socket = socket.prop_map(|(seed, kind)| {
            let bytes: Vec<u8> = seed.into_iter().cycle().take(size_of::<SocketRecord>()).collect();
            let record = SocketRecord::read_from_bytes(&bytes).expect("its size");
            Event::Socket(SocketRecord { kind, ..record })
        });
        let process = any::<u8>().prop_map(|seed| {
            let record = ProcessRecord::read_from_bytes(&[seed; size_of::<ProcessRecord>()]).expect("its size");
            Event::Process(Box::new(ProcessRecord { kind: kind::EXEC, ..record }))
        });
        let lost = (any::<u64>(), any::<String>(), any::<u64>()).prop_map(|(at, cause, count)| {
            Event::User(Box::new(UserEvent::Lost { at, place: "kernel".into(), cause, count }))
        });
        let detailed = any::<u8>().prop_map(|seed| {
            let mut record = DetailedRecord::read_from_bytes(&[seed; size_of::<DetailedRecord>()]).expect("its size");
            record.socket.kind = kind::ENDED;
            Event::Detailed(Box::new(record))
        });
        let exchange = any::<u8>().prop_map(|seed| {
            let record = ExchangeRecord::read_from_bytes(&[seed; size_of::<ExchangeRecord>()]).expect("its size");
            Event::Exchange(ExchangeRecord { kind: kind::ANSWERED, ..record })
        });
        let tls = any::<u8>().prop_map(|seed| {
            let record = TlsRecord::read_from_bytes(&[seed; size_of::<TlsRecord>()]).expect("its size");
            Event::Tls(TlsRecord { kind: kind::TLS, ..record })
        });
        let hello = (any::<u64>(), any::<Option<String>>(), any::<Vec<u16>>()).prop_map(|(at, sni, versions)| {
            let hello = Hello { sni, versions_offered: Some(versions), ..Hello::default() };
            Event::User(Box::new(UserEvent::Hello { at, id: at, hello: hello.into() }))
        });
        let http = (any::<u64>(), any::<bool>(), any::<Option<String>>()).prop_map(|(at, sent, host)| {
            let head = HttpHead { method: Some(HttpMethod::Get), host, ..HttpHead::default() };
            Event::User(Box::new(UserEvent::Http { at, id: at, index: Some(3), sent, head: head.into() }))
        });
        let throttled = any::<[u64; 4]>().prop_map(|[at, cgroup, periods, throttled]| {
            let throttled_periods = periods / 2;
            Event::User(Box::new(UserEvent::Throttled { at, cgroup, periods, throttled_periods, throttled }))
        });
        prop_oneof![1 => throttled, 4 => socket, 2 => detailed, 2 => exchange, 1 => tls, 1 => hello, 1 => http, 1 => process, 1 => lost]
    }

    fn stop() -> Event {
        Event::User(Box::new(UserEvent::Stop { at: 9 }))
    }

    #[test]
    fn bad_files_are_told_apart() {
        let good = recording(&[stop()], 1);
        assert!(matches!(replay(b""), Err(OpenError::Empty)));
        assert!(matches!(replay(b"{\"type\":\"open\"}"), Err(OpenError::NotARecording)));
        assert!(matches!(replay(b"con"), Err(OpenError::TruncatedHeader)));
        assert!(matches!(replay(&good[..100]), Err(OpenError::TruncatedHeader)));
        let mut other = good.clone();
        other[12] = 99;
        assert!(matches!(replay(&other), Err(OpenError::OtherAbi { found: 99 })));
        let mut damaged = good.clone();
        damaged[30] ^= 1;
        assert!(matches!(replay(&damaged), Err(OpenError::DamagedHeader)));
        let mut damaged = good.clone();
        *damaged.last_mut().expect("not empty") ^= 1;
        let (events, cut) = replay(&damaged).expect("a good header");
        assert!(events.is_empty() && matches!(cut, Some(Cut::Damaged { events: 0, .. })));
        let (events, cut) = replay(&recording(&[], 1)).expect("a good header");
        assert!(events.is_empty() && matches!(cut, Some(Cut::Truncated { events: 0, .. })));
    }

    #[test]
    fn the_header_comes_back() {
        let bytes = recording(&[stop()], 1);
        let reader = Reader::open(bytes.as_slice()).expect("a good header");
        assert_eq!(reader.header(), &header());
        assert_eq!(reader.header().offsets, BTreeMap::from([("sk_family".to_owned(), 16)]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(mut events in prop::collection::vec(any_event(), 0..40), every in 1usize..10) {
            events.push(stop());
            let (read, cut) = replay(&recording(&events, every)).expect("a good header");
            prop_assert_eq!(read, events);
            prop_assert!(cut.is_none());
        }

        #[test]
        fn a_cut_leaves_a_prefix_and_says_so(
            mut events in prop::collection::vec(any_event(), 0..20),
            every in 1usize..10,
            keep in any::<prop::sample::Index>(),
        ) {
            events.push(stop());
            let bytes = recording(&events, every);
            if let Ok((read, cut)) = replay(&bytes[..keep.index(bytes.len())]) {
                prop_assert!(events.starts_with(&read));
                prop_assert!(cut.is_some());
            }
        }

        #[test]
        fn damage_leaves_a_prefix_and_says_so(
            mut events in prop::collection::vec(any_event(), 0..20),
            every in 1usize..10,
            place in any::<prop::sample::Index>(),
            change in 1u8..,
        ) {
            events.push(stop());
            let mut bytes = recording(&events, every);
            let place = place.index(bytes.len());
            bytes[place] ^= change;
            if let Ok((read, cut)) = replay(&bytes) {
                prop_assert!(events.starts_with(&read));
                prop_assert!(cut.is_some());
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = replay(&bytes);
            let mut good = recording(&[], 1);
            good.extend_from_slice(&bytes);
            let _ = replay(&good);
        }
    }
}
