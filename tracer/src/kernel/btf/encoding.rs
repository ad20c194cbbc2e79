//! The encoding of BTF: a header, a section of type records, a section of strings (`Documentation/bpf/btf.rst`).
//!
//! This layer knows where records begin and end and what their words mean, and nothing of C. Every read is checked:
//! the bytes may come from a file that is cut short or is not BTF at all.

use std::{borrow::Cow, ops::Range};

use thiserror::Error;
use zerocopy::IntoBytes as _;

/// First word of every BTF file, in the byte order of its machine.
const MAGIC: u16 = 0xeb9f;
/// The one version there is.
const VERSION: u8 = 1;
/// Room of the longest name that the kernel has for a symbol, with the byte that ends it (`KSYM_NAME_LEN`). Strings may overlap, so
/// that without a bound a small file could have any number of long ones.
const NAME_ROOM: usize = 512;
/// Header up to and with `str_len`; later versions may append to it.
const HEADER_LEN: usize = 24;

/// Why bytes are not usable BTF.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// Too short, or another magic number.
    #[error("not BTF: the magic number is missing")]
    NotBtf,
    /// BTF of a machine with the other byte order.
    #[error("BTF of the other byte order: it was made for another machine")]
    ByteOrder,
    /// A header version this reader does not know.
    #[error("BTF version {0} is not known (only version {VERSION} is)")]
    Version(u8),
    /// A section reaches beyond the end of the bytes.
    #[error("BTF is cut short: its {0} section reaches beyond the end")]
    CutShort(&'static str),
    /// A type record reaches beyond its section.
    #[error("BTF is damaged: type {0} reaches beyond the type section")]
    Record(u32),
    /// A kind of type that is newer than this reader; its length is unknown, so nothing after it can be read.
    #[error("BTF type {id} is of unknown kind {kind}: it is newer than this program")]
    UnknownKind {
        /// Type id.
        id: u32,
        /// Kind number.
        kind: u32,
    },
}

/// What a type record describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Integer.
    Int = 1,
    /// Pointer.
    Pointer = 2,
    /// Array of a fixed length.
    Array = 3,
    /// Struct.
    Struct = 4,
    /// Union.
    Union = 5,
    /// Enumeration of 32-bit values.
    Enum = 6,
    /// Struct or union that is declared only.
    Forward = 7,
    /// `typedef`.
    Typedef = 8,
    /// `volatile`.
    Volatile = 9,
    /// `const`.
    Const = 10,
    /// `restrict`.
    Restrict = 11,
    /// Function.
    Function = 12,
    /// A function's parameters and return type.
    Prototype = 13,
    /// Variable.
    Variable = 14,
    /// Section of variables.
    Section = 15,
    /// Floating-point number.
    Float = 16,
    /// Attribute of a declaration.
    DeclarationTag = 17,
    /// Attribute of a type.
    TypeTag = 18,
    /// Enumeration of 64-bit values.
    Enum64 = 19,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Int,
            2 => Self::Pointer,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Forward,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Function,
            13 => Self::Prototype,
            14 => Self::Variable,
            15 => Self::Section,
            16 => Self::Float,
            17 => Self::DeclarationTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// Length in bytes of one entry of the record's list, and whether there are `count` of them (else exactly one).
    const fn entries(self) -> (usize, bool) {
        match self {
            Self::Struct | Self::Union | Self::Section | Self::Enum64 => (12, true),
            Self::Enum | Self::Prototype => (8, true),
            Self::Array => (12, false),
            Self::Int | Self::Variable | Self::DeclarationTag => (4, false),
            _ => (0, false),
        }
    }
}

/// One type record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Kind.
    pub kind: Kind,
    /// Offset of the name in the strings; 0 is the empty name.
    pub name: u32,
    /// Kind-dependent mark: members carry bitfield sizes, enumerators are signed, a forward declaration is a union.
    pub flag: bool,
    /// Size in bytes, or the id of the type that is referred to.
    pub size_or_type: u32,
    /// The list that follows: members, enumerators, parameters.
    pub list: &'a [u8],
}

impl<'a> Record<'a> {
    /// The list as entries of `N` words each.
    pub fn entries<const N: usize>(&self) -> impl Iterator<Item = [u32; N]> + use<'a, N> {
        self.list.chunks_exact(4 * N).map(|entry| std::array::from_fn(|i| word(entry, 4 * i).unwrap_or(0)))
    }

    /// The record's first `N` words after its head, for kinds with exactly one entry.
    pub fn entry<const N: usize>(&self) -> Option<[u32; N]> {
        self.entries().next()
    }
}

/// BTF bytes with the place of each type record known.
#[derive(Debug)]
pub struct Encoded {
    /// The whole file.
    bytes: Vec<u8>,
    types: Range<usize>,
    strings: Range<usize>,
    /// Start in `types` of each record; index 0 is type id 1, since id 0 is `void` and has no record.
    starts: Vec<u32>,
}

impl Encoded {
    /// Splits the bytes of a BTF file.
    ///
    /// # Errors
    /// If they are not BTF, cut short, or of a newer kind.
    pub fn parse<'a>(bytes: impl Into<Cow<'a, [u8]>>) -> Result<Self, ParseError> {
        let bytes = bytes.into().into_owned();
        check_head(&bytes)?;
        let header = |at| word(&bytes, at).ok_or(ParseError::CutShort("header"));
        let header_len = header(4)?;
        let section = |offset, len, name| section(&bytes, header_len, offset, len).ok_or(ParseError::CutShort(name));
        let types = section(header(8)?, header(12)?, "type")?;
        let strings = section(header(16)?, header(20)?, "string")?;
        let starts = find_records(bytes.get(types.clone()).unwrap_or_default())?;
        Ok(Self { bytes, types, strings, starts })
    }

    /// Number of the last type id.
    pub fn last_id(&self) -> u32 {
        // `find_records` counts ids in a u32.
        self.starts.len() as u32
    }

    /// The record of a type; `None` for `void` (id 0) and ids that do not exist.
    pub fn record(&self, id: u32) -> Option<Record<'_>> {
        let start = *self.starts.get((id as usize).checked_sub(1)?)? as usize;
        record_at(self.bytes.get(self.types.clone())?, start).ok()
    }

    /// The string at an offset; empty if there is none, or if it is longer than a name.
    pub fn string(&self, offset: u32) -> &[u8] {
        let strings = self.bytes.get(self.strings.clone()).unwrap_or_default();
        let tail = strings.get(offset as usize..).unwrap_or_default();
        let room = tail.get(..NAME_ROOM).unwrap_or(tail);
        memchr::memchr(0, room).and_then(|end| room.get(..end)).unwrap_or_default()
    }
}

/// A file of these records, as words, and strings.
pub fn encode(records: &[u32], strings: &[u8]) -> Vec<u8> {
    let [low, high] = MAGIC.to_ne_bytes();
    let types_len = size_of_val(records) as u32;
    let first = u32::from_ne_bytes([low, high, VERSION, 0]);
    let head = [first, HEADER_LEN as u32, 0, types_len, types_len, strings.len() as u32];
    [head.as_bytes(), records.as_bytes(), strings].concat()
}

/// Why a record cannot be read where it should begin.
enum BadRecord {
    CutShort,
    UnknownKind(u32),
}

fn check_head(bytes: &[u8]) -> Result<(), ParseError> {
    let [first, second, version, ..] = *bytes else {
        return Err(ParseError::NotBtf);
    };
    match u16::from_ne_bytes([first, second]) {
        MAGIC => {}
        other if other.swap_bytes() == MAGIC => return Err(ParseError::ByteOrder),
        _ => return Err(ParseError::NotBtf),
    }
    if version != VERSION {
        return Err(ParseError::Version(version));
    }
    if bytes.len() < HEADER_LEN { Err(ParseError::CutShort("header")) } else { Ok(()) }
}

fn section(bytes: &[u8], header_len: u32, offset: u32, len: u32) -> Option<Range<usize>> {
    let start = (header_len as usize).checked_add(offset as usize)?;
    let end = start.checked_add(len as usize)?;
    (end <= bytes.len()).then_some(start..end)
}

fn find_records(types: &[u8]) -> Result<Vec<u32>, ParseError> {
    let mut starts = Vec::with_capacity(types.len() / 32);
    let mut at = 0;
    while at < types.len() {
        let id = starts.len() as u32 + 1;
        let record = record_at(types, at).map_err(|bad| match bad {
            BadRecord::CutShort => ParseError::Record(id),
            BadRecord::UnknownKind(kind) => ParseError::UnknownKind { id, kind },
        })?;
        // The section's length came from a 32-bit word, so every offset in it fits.
        starts.push(at as u32);
        at += RECORD_HEAD_LEN + record.list.len();
    }
    Ok(starts)
}

const RECORD_HEAD_LEN: usize = 12;

fn record_at(types: &[u8], at: usize) -> Result<Record<'_>, BadRecord> {
    let read = |offset| word(types, at + offset).ok_or(BadRecord::CutShort);
    let (name, info, size_or_type) = (read(0)?, read(4)?, read(8)?);
    // Kind and count have 5 and 16 bits so far; the unused bits above each are zero, and the room to grow.
    let number = info >> 24 & 0x7f;
    let kind = Kind::from_number(number).ok_or(BadRecord::UnknownKind(number))?;
    let (entry_len, counted) = kind.entries();
    let count = if counted { info as usize & 0xff_ffff } else { 1 };
    let list_start = at + RECORD_HEAD_LEN;
    let list = types.get(list_start..list_start + entry_len * count).ok_or(BadRecord::CutShort)?;
    Ok(Record { kind, name, flag: info >> 31 == 1, size_or_type, list })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
