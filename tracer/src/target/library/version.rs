//! The version that a library states in its constants.

use std::ops::ControlFlow;

use memchr::memmem;

use super::{
    elf::Elf,
    reader::{Damage, Reader},
};

/// Longest statement that is looked at, in bytes.
const STATEMENT_MAX: usize = 96;

/// Most bytes of constants that are searched: more than the largest executables have.
const SEARCH_MAX: u64 = 256 << 20;

/// Whose version it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    OpenSsl,
    LibreSsl,
    GnuTls,
}

impl Product {
    /// What stands before the version, and, as the text may be part of another, how the version must end.
    fn recognise(statement: &str) -> Option<(Self, &str)> {
        if let Some(rest) = statement.strip_prefix("OpenSSL ") {
            let (version, date) = rest.split_once(' ')?;
            is_date(date).then_some((Self::OpenSsl, version))
        } else if let Some(version) = statement.strip_prefix("LibreSSL ") {
            Some((Self::LibreSsl, version))
        } else {
            let version = statement.strip_prefix("Enabled GnuTLS ")?.strip_suffix(" logging...\n")?;
            Some((Self::GnuTls, version))
        }
    }
}

/// The first statement of a version among a file's constants: a text of its own like `OpenSSL 3.0.19 27 Jan 2026`. What
/// cannot be read states none.
pub fn find(elf: &Elf<'_>) -> Option<(Product, String)> {
    let mut left = SEARCH_MAX;
    elf.constants().find_map(|mut range| {
        let length = range.end.saturating_sub(range.start).min(left);
        (range.end, left) = (range.start + length, left - length);
        find_in(elf.reader, &range).ok().flatten()
    })
}

fn find_in(reader: &Reader<'_>, range: &std::ops::Range<u64>) -> Result<Option<(Product, String)>, Damage> {
    let finders = ["SSL ", "GnuTLS "].map(memmem::Finder::new);
    let mut found = None;
    reader.for_each_piece(range, STATEMENT_MAX as u64, |_, piece| {
        let places = finders.iter().flat_map(|finder| finder.find_iter(piece));
        found = places.filter_map(|at| statement(piece, at)).find_map(stated);
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

/// The text between two NULs around a place.
fn statement(piece: &[u8], at: usize) -> Option<&str> {
    let before = &piece[at.saturating_sub(STATEMENT_MAX)..at];
    let start = at - before.len() + memchr::memrchr(0, before)? + 1;
    let rest = &piece[start..piece.len().min(start + STATEMENT_MAX)];
    std::str::from_utf8(&rest[..memchr::memchr(0, rest)?]).ok()
}

fn stated(statement: &str) -> Option<(Product, String)> {
    let (product, version) = Product::recognise(statement)?;
    let is_version = version.starts_with(|first: char| first.is_ascii_digit())
        && version.contains('.')
        && version.chars().all(|each| each.is_ascii_alphanumeric() || matches!(each, '.' | '-' | '+' | '_'));
    is_version.then(|| (product, version.to_owned()))
}

/// `27 Jan 2026`; versions before 3 have two spaces before it.
fn is_date(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let is_number = |word: Option<&str>| word.is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    is_number(words.next()) && words.next().is_some_and(|month| month.len() == 3) && is_number(words.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in_text(text: &str) -> Option<(Product, String)> {
        let bytes = text.as_bytes().to_vec();
        let reader = Reader::new(&bytes).expect("in memory");
        find_in(&reader, &(0..bytes.len() as u64)).expect("readable")
    }

    #[test]
    fn only_a_text_that_is_the_statement_counts() {
        let table = [
            ("x\0OpenSSL 3.0.19 27 Jan 2026\0y", Some((Product::OpenSsl, "3.0.19"))),
            ("\0OpenSSL 1.1.1w  11 Sep 2023\0", Some((Product::OpenSsl, "1.1.1w"))),
            ("\0OpenSSL 3.0.15+quic 3 Sep 2024\0", Some((Product::OpenSsl, "3.0.15+quic"))),
            ("\0LibreSSL 3.8.2\0", Some((Product::LibreSsl, "3.8.2"))),
            ("\0Enabled GnuTLS 3.7.9 logging...\n\0", Some((Product::GnuTls, "3.7.9"))),
            ("\0Enabled GnuTLS 3.7.9 logging...\n", None),
            ("\0// since OpenSSL 1.1.0 11 Sep 2023\0", None),
            ("\0OpenSSL 1.1.0 is too old\0", None),
            ("\0OpenSSL 3.0.19 27 Jan 2026", None),
            ("SSL \0SSL ", None),
        ];
        for (text, expected) in table {
            let expected = expected.map(|(product, version)| (product, version.to_owned()));
            assert_eq!(find_in_text(text), expected, "{text:?}");
        }
    }
}
