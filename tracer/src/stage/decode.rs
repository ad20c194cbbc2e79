//! Bytes of one ring-buffer item to an [`Event`].
//!
//! The kernel side is trusted to mean well but not to be of the same build: whatever does not fit exactly is an error
//! with a cause, and is counted.

use thiserror::Error;
use tracer_ebpf::{ProcessRecord, SocketRecord, kind};
use zerocopy::FromBytes;

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

/// Decodes one item. Its alignment does not matter.
///
/// # Errors
/// If the item is not an event.
pub fn decode(item: &[u8]) -> Result<Event, DecodeError> {
    let Some((head, _)) = item.split_first_chunk() else {
        return Err(DecodeError::TooShort(item.len()));
    };
    let kind = u32::from_ne_bytes(*head);
    let wrong_size = DecodeError::WrongSize { kind, size: item.len() };
    match kind {
        _ if is_of_connection(kind) => SocketRecord::read_from_bytes(item).map(Event::Socket).map_err(|_| wrong_size),
        kind::EXEC | kind::EXIT => {
            ProcessRecord::read_from_bytes(item).map(|record| Event::Process(Box::new(record))).map_err(|_| wrong_size)
        }
        _ => Err(DecodeError::UnknownKind(kind)),
    }
}

/// Decodes one item and lends it to `take`, without a copy if it lies as its type must. The ring buffer's do.
///
/// # Errors
/// If the item is not an event.
#[inline]
pub fn lend<R>(item: &[u8], take: impl FnOnce(EventRef) -> R) -> Result<R, DecodeError> {
    match SocketRecord::ref_from_bytes(item) {
        Ok(record) if is_of_connection(record.kind) => Ok(take(EventRef::Socket(record))),
        _ => decode(item).map(|event| take(EventRef::from(&event))),
    }
}

fn is_of_connection(kind: u32) -> bool {
    matches!(kind, kind::CONNECTING | kind::OPENED | kind::PEER_CLOSED | kind::RELEASED | kind::ENDED)
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
    fn misfits_are_told_by_cause() {
        let record = SocketRecord { kind: kind::OPENED, ..SocketRecord::new_zeroed() };
        let mut longer = record.as_bytes().to_vec();
        longer.push(0);
        let items = [&[1, 0, 0][..], &99u32.to_ne_bytes(), &longer, &longer[..longer.len() - 2]];
        let causes = items.map(|item| decode(item).map_err(DecodeError::cause));
        let expected = ["event_too_short", "event_unknown_kind", "event_wrong_size", "event_wrong_size"];
        assert_eq!(causes, expected.map(Err));
    }

    #[test]
    fn a_lent_event_is_the_decoded_one_however_it_lies() {
        for kind in 0..20 {
            let mut bytes = vec![0; 8 + size_of::<SocketRecord>()];
            for start in 0..8 {
                let item = &mut bytes[start..start + size_of::<SocketRecord>()];
                item.copy_from_slice(SocketRecord { kind, id: 7, ..SocketRecord::new_zeroed() }.as_bytes());
                let lent = lend(item, |event| assert_eq!(event, EventRef::from(&decode(item).expect("an event"))));
                assert_eq!(lent.err(), decode(item).err());
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_an_error(item in prop::collection::vec(any::<u8>(), 0..300)) {
            let lent = lend(&item, |_| ());
            prop_assert_eq!(lent.err(), decode(&item).err());
        }
    }
}
