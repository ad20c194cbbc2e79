//! Searching a symbol table for a few names.
//!
//! The names are searched for among the strings first: most files have none of them, and then no symbol is looked at.

use std::{collections::HashMap, mem::size_of, ops::ControlFlow, ops::Range};

use foldhash::fast::FixedState;
use object::{LittleEndian as Little, elf, pod, read::elf::Sym};

use super::reader::{Damage, Reader};

/// Most places of names, and symbols of such names, that a file may have: a few versions of each are usual.
const FOUND_MAX: usize = 4_096;

/// Bytes of a name's end that tell whether a closer look is worth it.
const TAIL: usize = 4;

/// A symbol table, by places in the file.
pub struct Table {
    pub symbols: u64,
    pub count: u64,
    pub strings: Range<u64>,
}

/// Names that are searched for, each with what it means.
pub struct Names<T> {
    by_tail: HashMap<[u8; TAIL], Vec<Name<T>>, FixedState>,
    longest: usize,
}

struct Name<T> {
    text: &'static [u8],
    meaning: T,
}

/// What is named at a place.
type Places<T> = HashMap<u32, T, FixedState>;

/// A function of one of the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<T> {
    pub name: T,
    pub address: u64,
    /// In bytes; 0 if it is not told.
    pub size: u64,
}

impl<T: Copy> Names<T> {
    /// Names of [`TAIL`] bytes and more; shorter ones would not be found.
    pub fn new(names: impl IntoIterator<Item = (&'static str, T)>) -> Self {
        let mut all = Self { by_tail: HashMap::default(), longest: 0 };
        for (name, meaning) in names {
            let text = name.as_bytes();
            let Some(tail) = text.last_chunk() else { continue };
            all.by_tail.entry(*tail).or_default().push(Name { text, meaning });
            all.longest = all.longest.max(text.len());
        }
        all
    }

    /// Where in a range of texts, each with a NUL behind it, the names are: by offset from the range's start. A name may
    /// be the end of a longer text, as linkers save the place where they can.
    pub fn places(&self, reader: &Reader<'_>, strings: &Range<u64>) -> Result<Places<T>, Damage> {
        let mut places = HashMap::default();
        reader.for_each_piece(strings, self.longest as u64 + 1, |from, piece| {
            let ends = memchr::memchr_iter(0, piece);
            // Files may have long stretches of zeroes.
            for end in ends.filter(|end| *end > 0 && piece[end - 1] != 0) {
                self.ending_at(&piece[..end], |name, start| {
                    places.extend(u32::try_from(from + start as u64).map(|place| (place, name)));
                });
                if places.len() > FOUND_MAX {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        if places.len() > FOUND_MAX { Err(Damage::Malformed("names come again and again")) } else { Ok(places) }
    }

    fn ending_at(&self, text: &[u8], mut found: impl FnMut(T, usize)) {
        let Some(names) = text.last_chunk().and_then(|tail: &[u8; TAIL]| self.by_tail.get(tail)) else { return };
        for name in names {
            if text.ends_with(name.text) {
                found(name.meaning, text.len() - name.text.len());
            }
        }
    }

    /// The functions of these names that a file defines.
    pub fn find(&self, reader: &Reader<'_>, table: &Table) -> Result<Vec<Symbol<T>>, Damage> {
        const SIZE: u64 = size_of::<elf::Sym64<Little>>() as u64;
        /// Symbols that are read at a time.
        const BATCH: u64 = 8_192;
        let places = self.places(reader, &table.strings)?;
        let mut found = Vec::new();
        if places.is_empty() {
            return Ok(found);
        }
        let size = table.count.checked_mul(SIZE).ok_or(Damage::Short)?;
        reader.check(table.symbols, size)?;
        let mut at = 0;
        while at < table.count {
            let count = BATCH.min(table.count - at);
            let bytes = reader.read(table.symbols + at * SIZE, count * SIZE)?;
            let symbols = pod::slice_from_bytes::<elf::Sym64<Little>>(&bytes, count as usize);
            let (symbols, _) = symbols.map_err(|()| Damage::Short)?;
            found.extend(symbols.iter().filter_map(|symbol| function(symbol, &places)));
            if found.len() > FOUND_MAX {
                return Err(Damage::Malformed("symbols come again and again"));
            }
            at += count;
        }
        Ok(found)
    }
}

fn function<T: Copy>(symbol: &elf::Sym64<Little>, places: &Places<T>) -> Option<Symbol<T>> {
    let is_function = symbol.st_type() == elf::STT_FUNC && symbol.st_shndx(Little) != elf::SHN_UNDEF;
    let name = is_function.then(|| places.get(&symbol.st_name(Little)))??;
    Some(Symbol { name: *name, address: symbol.st_value(Little), size: symbol.st_size(Little) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<(u32, &'static str)> {
        let names = Names::new(["SSL_read", "SSL_write", "xSSL_write"].map(|name| (name, name)));
        let bytes = text.as_bytes().to_vec();
        let reader = Reader::new(&bytes).expect("in memory");
        let mut places: Vec<_> =
            names.places(&reader, &(0..bytes.len() as u64)).expect("readable").into_iter().collect();
        places.sort_unstable();
        places
    }

    #[test]
    fn names_are_found_whole_and_at_the_end_of_longer_ones() {
        assert_eq!(places("\0SSL_read\0SSL_reads\0my_SSL_write\0"), [(1, "SSL_read"), (23, "SSL_write")]);
        assert_eq!(places("xSSL_write\0"), [(0, "xSSL_write"), (1, "SSL_write")]);
        assert_eq!(places("SSL_read"), [], "no NUL, no name");
    }

    #[test]
    fn a_name_is_found_across_pieces() {
        let far = (1 << 18) - 4;
        assert_eq!(places(&format!("{}SSL_read\0", "\0".repeat(far))), [(far as u32, "SSL_read")]);
    }

    #[test]
    fn names_without_end_are_refused() {
        let names = Names::new([("SSL_read", ())]);
        let bytes = b"SSL_read\0".repeat(FOUND_MAX + 1);
        let reader = Reader::new(&bytes).expect("in memory");
        assert!(matches!(names.places(&reader, &(0..bytes.len() as u64)), Err(Damage::Malformed(_))));
    }
}
