//! Reads handshake messages out of a copy of the wire that may be cut anywhere.
//!
//! A message may be split over records at any byte, so it cannot be borrowed as one slice. Bytes are taken one by one or
//! skipped; record headers in between are read on the way. Every length is checked against what encloses it as soon as it is
//! read, also where the copy ends before the bytes that it counts.

use core::fmt;

use crate::tls::alert::Alert;
use crate::tls::bounded::Bytes;
use crate::tls::record::{ContentType, HEADER_LEN, Header};

/// Why bytes cannot be the message that they should be. Nothing is reported from such a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// No record header where one must be.
    Record,
    /// A record of another type where a handshake record must be.
    NotHandshake,
    /// Another handshake message than the one sought, or one out of order.
    Message,
    /// A length that does not fit what encloses it, or what it counts.
    Length,
    /// Bytes left over behind what a length encloses.
    Trailing,
    /// Nothing where something is required.
    Empty,
    /// An extension, or a host name, for the second time.
    Duplicate,
    /// A protocol version that is none.
    Version,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Record => "no TLS record header where one must be",
            Self::NotHandshake => "a record of another type where a handshake record must be",
            Self::Message => "an unexpected handshake message",
            Self::Length => "a length that does not fit",
            Self::Trailing => "bytes behind the end of a field",
            Self::Empty => "an empty field that must not be empty",
            Self::Duplicate => "an extension or host name for the second time",
            Self::Version => "an impossible protocol version",
        })
    }
}

impl core::error::Error for Malformed {}

/// Why reading stopped.
pub(super) enum Stop {
    /// The copy ends here; the message may go on.
    End,
    /// The message is wrong.
    Malformed(Malformed),
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Handshake bytes, without the record headers between them.
pub(super) struct Stream<'a> {
    rest: &'a [u8],
    /// Bytes of the record at hand that have not been taken.
    record_left: usize,
    /// An alert in the clear that stands where a message should begin: none will come.
    fatal: Option<Alert>,
}

impl<'a> Stream<'a> {
    /// Begins at the first record header.
    pub(super) const fn new(copy: &'a [u8]) -> Self {
        Self { rest: copy, record_left: 0, fatal: None }
    }

    /// The fatal alert that came in place of the message sought.
    pub(super) const fn fatal(&self) -> Option<Alert> {
        self.fatal
    }

    /// Reads the next message, which must be of type `kind` and at most `longest` bytes.
    pub(super) fn message<T>(
        &mut self,
        kind: u8,
        longest: usize,
        read: impl FnOnce(&mut Part<'_, 'a>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.skip_asides()?;
        let mut head = Part { stream: self, left: 4 };
        if head.u8()? != kind {
            return Err(Malformed::Message.into());
        }
        let [high, middle, low] = head.array()?;
        let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if len > longest {
            return Err(Malformed::Length.into());
        }
        Part { stream: self, left: len }.part(len, read)
    }

    /// Passes over what may stand between messages: the dummy for middleboxes (RFC 8446 5 and D.4), and alerts that only
    /// warn, as some servers send before their hello when they do not know the name. A fatal alert ends it all.
    fn skip_asides(&mut self) -> Result<(), Stop> {
        while self.record_left == 0 {
            let Some((head, rest)) = self.rest.split_first_chunk::<HEADER_LEN>() else { break };
            match Header::parse(head) {
                Some(Header { content_type: ContentType::ChangeCipherSpec, length: 1, .. }) => {
                    self.rest = rest.get(1..).ok_or(Stop::End)?;
                }
                Some(Header { content_type: ContentType::Alert, length: 2, .. }) => {
                    let (bytes, rest) = self.rest.split_first_chunk().ok_or(Stop::End)?;
                    let alert = Alert::parse(bytes).ok_or(Malformed::NotHandshake)?;
                    if alert.level == Alert::FATAL {
                        self.fatal = Some(alert);
                        return Err(Stop::End);
                    }
                    self.rest = rest;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Goes on to the next record if the one at hand is used up.
    fn enter_record(&mut self) -> Result<(), Stop> {
        if self.record_left > 0 {
            return Ok(());
        }
        let (head, rest) = self.rest.split_first_chunk::<HEADER_LEN>().ok_or(Stop::End)?;
        let header = Header::parse(head).ok_or(Malformed::Record)?;
        if header.content_type != ContentType::Handshake {
            return Err(Malformed::NotHandshake.into());
        }
        self.rest = rest;
        self.record_left = usize::from(header.length);
        Ok(())
    }

    /// Takes as many bytes as `bytes` holds, which mostly lie in one record.
    #[inline]
    fn fill(&mut self, mut bytes: &mut [u8]) -> Result<(), Stop> {
        while !bytes.is_empty() {
            self.enter_record()?;
            let (now, later) = bytes.split_at_mut(bytes.len().min(self.record_left));
            let (taken, rest) = self.rest.split_at_checked(now.len()).ok_or(Stop::End)?;
            now.copy_from_slice(taken);
            self.rest = rest;
            self.record_left -= now.len();
            bytes = later;
        }
        Ok(())
    }

    fn skip(&mut self, mut len: usize) -> Result<(), Stop> {
        while len > 0 {
            self.enter_record()?;
            let step = len.min(self.record_left);
            self.rest = self.rest.get(step..).ok_or(Stop::End)?;
            self.record_left -= step;
            len -= step;
        }
        Ok(())
    }
}

/// A stretch of a message whose length is known. It must be used up.
pub(super) struct Part<'s, 'a> {
    stream: &'s mut Stream<'a>,
    left: usize,
}

impl<'a> Part<'_, 'a> {
    /// Bytes not yet taken, whether or not the copy holds them.
    pub(super) const fn left(&self) -> usize {
        self.left
    }

    fn claim(&mut self, len: usize) -> Result<(), Malformed> {
        self.left = self.left.checked_sub(len).ok_or(Malformed::Length)?;
        Ok(())
    }

    /// Takes `N` bytes.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.claim(N)?;
        let stream = &mut *self.stream;
        if let Some((bytes, rest)) = stream.rest.split_first_chunk::<N>()
            && stream.record_left >= N
        {
            stream.rest = rest;
            stream.record_left -= N;
            return Ok(*bytes);
        }
        let mut bytes = [0; N];
        stream.fill(&mut bytes)?;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Stop> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Stop> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn skip(&mut self, len: usize) -> Result<(), Stop> {
        self.claim(len)?;
        self.stream.skip(len)
    }

    pub(super) fn skip_rest(&mut self) -> Result<(), Stop> {
        self.skip(self.left)
    }

    /// Takes the rest; `None` if it is longer than `N`.
    pub(super) fn rest<const N: usize>(&mut self) -> Result<Option<Bytes<N>>, Stop> {
        let length = self.left;
        let mut bytes = Bytes::default();
        let Some(place) = bytes.room(length) else {
            self.skip_rest()?;
            return Ok(None);
        };
        self.claim(length)?;
        self.stream.fill(place)?;
        Ok(Some(bytes))
    }

    /// A stretch of `len` bytes, which `read` must use up.
    fn part<T>(&mut self, len: usize, read: impl FnOnce(&mut Part<'_, 'a>) -> Result<T, Stop>) -> Result<T, Stop> {
        self.claim(len)?;
        let mut part = Part { stream: self.stream, left: len };
        let value = read(&mut part)?;
        if part.left == 0 { Ok(value) } else { Err(Malformed::Trailing.into()) }
    }

    /// A stretch with a length of one byte before it.
    pub(super) fn vector8<T>(&mut self, read: impl FnOnce(&mut Part<'_, 'a>) -> Result<T, Stop>) -> Result<T, Stop> {
        let len = self.u8()?;
        self.part(len.into(), read)
    }

    /// A stretch with a length of two bytes before it.
    pub(super) fn vector16<T>(&mut self, read: impl FnOnce(&mut Part<'_, 'a>) -> Result<T, Stop>) -> Result<T, Stop> {
        let len = self.u16()?;
        self.part(len.into(), read)
    }
}
