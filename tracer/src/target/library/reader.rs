//! Reading a file that others wrote, with bounds on memory and time.
//!
//! Files are read, not mapped: a mapped file that somebody cuts short kills its reader by a signal.

use std::{
    cell::Cell,
    fs::File,
    io,
    ops::{ControlFlow, Range},
    os::unix::fs::FileExt,
};

use thiserror::Error;

/// Most bytes that are read of one file: several times what the symbols of the largest browsers take.
const TOTAL_MAX: u64 = 1 << 29;

/// Most bytes that are read into memory at once.
const PIECE_MAX: u64 = 1 << 23;

/// Bytes of a long range that are looked at at a time.
const CHUNK: u64 = 1 << 18;

/// Bytes that a [`Window`] holds.
const WINDOW: u64 = 1 << 16;

/// Why a file tells nothing.
#[derive(Debug, Error)]
pub enum Damage {
    /// The system could not read it.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It refers to what lies outside of it.
    #[error("is cut short, or damaged")]
    Short,
    /// It would take too long, or too much memory.
    #[error("has tables that are too large to be searched")]
    Large,
    /// It is ELF, but 32-bit or for another machine.
    #[error("is for another machine, or 32-bit")]
    Foreign,
    /// It contradicts itself.
    #[error("is damaged: {0}")]
    Malformed(&'static str),
}

/// What can be read at any place.
pub trait ReadAt {
    /// Its size in bytes.
    ///
    /// # Errors
    /// If the system does not tell.
    fn size(&self) -> io::Result<u64>;

    /// Fills the buffer with what is at the offset.
    ///
    /// # Errors
    /// If there is less, or the system cannot read it.
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let source = self.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A file, and how much of it may still be read.
pub struct Reader<'a> {
    file: &'a dyn ReadAt,
    size: u64,
    left: Cell<u64>,
}

impl<'a> Reader<'a> {
    /// Begins to read a file.
    pub fn new(file: &'a dyn ReadAt) -> Result<Self, Damage> {
        Ok(Self { file, size: file.size()?, left: Cell::new(TOTAL_MAX) })
    }

    /// `length` bytes at `offset`.
    pub fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, Damage> {
        if length > PIECE_MAX {
            return Err(Damage::Large);
        }
        self.check(offset, length)?;
        self.left.set(self.left.get().checked_sub(length).ok_or(Damage::Large)?);
        // It is at most PIECE_MAX.
        let mut bytes = vec![0; length as usize];
        match self.file.fill(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            // It has become shorter meanwhile.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Damage::Short),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes sure that a range lies in the file.
    pub fn check(&self, offset: u64, length: u64) -> Result<(), Damage> {
        let end = offset.checked_add(length).ok_or(Damage::Short)?;
        if end > self.size { Err(Damage::Short) } else { Ok(()) }
    }

    /// Shows a range piece by piece, each with its offset from the range's start. A piece begins with the last `overlap`
    /// bytes of the one before, so that nothing of up to `overlap` bytes is torn apart.
    pub fn for_each_piece(
        &self,
        range: &Range<u64>,
        overlap: u64,
        mut look: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Damage> {
        let length = range.end.checked_sub(range.start).ok_or(Damage::Short)?;
        self.check(range.start, length)?;
        if length > self.left.get() {
            return Err(Damage::Large);
        }
        let mut at = 0;
        while at < length {
            let end = (at + CHUNK).min(length);
            let from = at.saturating_sub(overlap);
            if look(from, &self.read(range.start + from, end - from)?).is_break() {
                break;
            }
            at = end;
        }
        Ok(())
    }

    /// To read small numbers that lie near each other.
    pub fn window(&self) -> Window<'_> {
        Window { reader: self, start: 0, bytes: Vec::new() }
    }
}

/// The part of a file where numbers are being read.
pub struct Window<'a> {
    reader: &'a Reader<'a>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The 32-bit number at a place.
    pub fn u32_at(&mut self, offset: u64) -> Result<u32, Damage> {
        Ok(u32::from_le_bytes(self.bytes_at(offset)?))
    }

    /// The 64-bit number at a place.
    pub fn u64_at(&mut self, offset: u64) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.bytes_at(offset)?))
    }

    fn bytes_at<const N: usize>(&mut self, offset: u64) -> Result<[u8; N], Damage> {
        if let Some(bytes) = self.held(offset) {
            return Ok(bytes);
        }
        self.reader.check(offset, N as u64)?;
        self.bytes = self.reader.read(offset, WINDOW.min(self.reader.size - offset))?;
        self.start = offset;
        self.held(offset).ok_or(Damage::Short)
    }

    fn held<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let start = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(start..)?.first_chunk().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_lies_outside_is_short_and_not_read() {
        let bytes = vec![1_u8; 10];
        let reader = Reader::new(&bytes).expect("in memory");
        for (offset, length) in [(0, 11), (11, 0), (10, 1), (u64::MAX, 1), (1, u64::MAX >> 50)] {
            assert!(matches!(reader.read(offset, length), Err(Damage::Short)), "{offset} {length}");
        }
        assert!(matches!(reader.read(0, u64::MAX), Err(Damage::Large)));
        assert!(reader.read(10, 0).expect("empty").is_empty());
    }

    #[test]
    fn a_file_is_not_read_for_ever() {
        let bytes = vec![0_u8; PIECE_MAX as usize];
        let reader = Reader::new(&bytes).expect("in memory");
        let reads = (0..=TOTAL_MAX / PIECE_MAX).take_while(|_| reader.read(0, PIECE_MAX).is_ok()).count();
        assert_eq!(reads as u64, TOTAL_MAX / PIECE_MAX);
    }

    proptest! {
        #[test]
        fn no_short_text_is_torn_apart(size in 0_u64..3 * CHUNK, overlap in 1_u64..64, at in 0_u64..3 * CHUNK) {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let reader = Reader::new(&bytes).expect("in memory");
            let wanted = at..(at + overlap).min(size);
            let mut is_whole = false;
            let look = |from: u64, piece: &[u8]| {
                assert_eq!(piece, &bytes[from as usize..][..piece.len()]);
                is_whole |= from <= wanted.start && from + piece.len() as u64 >= wanted.end;
                ControlFlow::Continue(())
            };
            reader.for_each_piece(&(0..size), overlap, look).expect("in memory");
            prop_assert!(is_whole || wanted.start >= size);
        }
    }
}
