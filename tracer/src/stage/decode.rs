//! Bytes of one ring-buffer item to an [`Event`].
//!
//! The kernel side is trusted to mean well but not to be of the same build: whatever does not fit exactly is an error
//! with a cause, and is counted.

use thiserror::Error;
use tracer_ebpf::{ProcessRecord, SocketRecord, kind};
use zerocopy::FromBytes;

use super::event::Event;

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

/// Decodes one item. Its alignment does not matter.
pub fn decode(item: &[u8]) -> Result<Event, DecodeError> {
    let Some((head, _)) = item.split_first_chunk() else {
        return Err(DecodeError::TooShort(item.len()));
    };
    let kind = u32::from_ne_bytes(*head);
    let wrong_size = DecodeError::WrongSize { kind, size: item.len() };
    match kind {
        kind::CONNECTING | kind::OPENED | kind::PEER_CLOSED | kind::RELEASED | kind::ENDED => {
            SocketRecord::read_from_bytes(item).map(Event::Socket).map_err(|_| wrong_size)
        }
        kind::EXEC | kind::EXIT => {
            ProcessRecord::read_from_bytes(item).map(|record| Event::Process(Box::new(record))).map_err(|_| wrong_size)
        }
        _ => Err(DecodeError::UnknownKind(kind)),
    }
}

/// Decodes items and counts, by cause, those that it could not.
#[derive(Debug, Default)]
pub struct Decoder {
    too_short: u64,
    unknown_kind: u64,
    wrong_size: u64,
}

impl Decoder {
    /// Decodes one item; `None` if it is not an event, which is then counted.
    pub fn decode(&mut self, item: &[u8]) -> Option<Event> {
        decode(item).map_err(|error| *self.counter(error) += 1).ok()
    }

    /// Takes the counts since the last call: cause and number, only causes that occurred.
    pub fn take_losses(&mut self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let taken = std::mem::take(self);
        [
            (DecodeError::TooShort(0).cause(), taken.too_short),
            (DecodeError::UnknownKind(0).cause(), taken.unknown_kind),
            (DecodeError::WrongSize { kind: 0, size: 0 }.cause(), taken.wrong_size),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }

    fn counter(&mut self, error: DecodeError) -> &mut u64 {
        match error {
            DecodeError::TooShort(_) => &mut self.too_short,
            DecodeError::UnknownKind(_) => &mut self.unknown_kind,
            DecodeError::WrongSize { .. } => &mut self.wrong_size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::{FromZeros, IntoBytes};

    #[test]
    fn every_kind_decodes_to_its_record() {
        for kind in [kind::CONNECTING, kind::OPENED, kind::PEER_CLOSED, kind::RELEASED, kind::ENDED] {
            let record = SocketRecord { kind, id: 7, ..SocketRecord::new_zeroed() };
            assert_eq!(decode(record.as_bytes()), Ok(Event::Socket(record)));
        }
        for kind in [kind::EXEC, kind::EXIT] {
            let record = ProcessRecord { kind, tgid: 7, ..ProcessRecord::new_zeroed() };
            assert_eq!(decode(record.as_bytes()), Ok(Event::Process(Box::new(record))));
        }
    }

    #[test]
    fn misfits_are_counted_by_cause() {
        let record = SocketRecord { kind: kind::OPENED, ..SocketRecord::new_zeroed() };
        let mut longer = record.as_bytes().to_vec();
        longer.push(0);
        let mut decoder = Decoder::default();
        for item in [&[1, 0, 0][..], &99u32.to_ne_bytes(), &longer, &longer[..199]] {
            assert_eq!(decoder.decode(item), None);
        }
        let losses: Vec<_> = decoder.take_losses().collect();
        assert_eq!(losses, [("event_too_short", 1), ("event_unknown_kind", 1), ("event_wrong_size", 2)]);
        assert_eq!(decoder.take_losses().count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_an_error(item in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&item);
        }
    }
}
