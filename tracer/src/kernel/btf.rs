//! Questions to the kernel's own type information: where is a member, how big is it, what is an enumerator's value,
//! what does a function take.
//!
//! All answers hold for the kernel whose BTF was read. Nothing here trusts the bytes: ids may point anywhere, types
//! may contain themselves. Chains are followed to a fixed depth, and a search looks at a fixed number of members.

pub mod encoding;
pub mod extract;
pub mod names;

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use thiserror::Error;

use encoding::{Encoded, Kind, ParseError, Record};
use names::{Named, Names};

/// Where the running kernel shows its BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Size of a pointer on every machine this runs on.
const POINTER_SIZE: u32 = 8;
/// Longest chain of typedefs, qualifiers or nested anonymous structs that is followed. The kernel's have less than ten.
const MAX_DEPTH: u32 = 32;
/// Most members looked at in search of one: `task_struct` and `net` have a few hundred.
const MAX_MEMBERS: u32 = 100_000;
/// Largest BTF file that is read. A kernel's has 3 to 15 MiB.
const MAX_FILE_LEN: u64 = 256 << 20;

/// Why BTF could not be had.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The kernel was built without it.
    #[error(
        "this kernel has no BTF ({KERNEL_BTF} does not exist): conntracer needs a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y, as those of all current distributions are"
    )]
    NoKernelBtf,
    /// The file cannot be read.
    #[error("cannot read BTF from {}: {error}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is not usable BTF.
    #[error("cannot use the BTF in {}: {error}", path.display())]
    Parse {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        error: ParseError,
    },
}

/// Why a member has no answer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MemberError {
    /// No such struct or union.
    #[error("this kernel has no struct {0}")]
    NoStruct(String),
    /// The struct has no such member.
    #[error("{of} has no member {member}")]
    NoMember {
        /// Struct, with the path that led to it.
        of: String,
        /// The member that is missing.
        member: String,
    },
    /// The member has no byte address.
    #[error("{0} is a bitfield")]
    Bitfield(String),
    /// The type information contradicts itself.
    #[error("the type of {0} is damaged")]
    Damaged(String),
}

/// Where a member lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the outermost struct.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
}

/// What a function takes and returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// Parameters in order.
    pub parameters: Vec<Parameter>,
    /// Return type as C writes it, `void` if none.
    pub returns: String,
}

/// A function's parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Name; empty if the kernel does not tell.
    pub name: String,
    /// Type as C writes it.
    pub type_name: String,
}

/// Parsed BTF, with indexes for what is asked often.
#[derive(Debug)]
pub struct Btf {
    encoded: Encoded,
    names: Names,
    /// Ids of enumerations: of enumerators few are asked for.
    enums: Vec<u32>,
}

impl Btf {
    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    /// If the kernel has none, or it cannot be read or understood.
    pub fn of_running_kernel() -> Result<Self, LoadError> {
        match Self::from_file(Path::new(KERNEL_BTF)) {
            Err(LoadError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Err(LoadError::NoKernelBtf)
            }
            other => other,
        }
    }

    /// Reads BTF from a file.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub fn from_file(path: &Path) -> Result<Self, LoadError> {
        let bytes = read(path).map_err(|error| LoadError::Read { path: path.into(), error })?;
        Self::parse(bytes).map_err(|error| LoadError::Parse { path: path.into(), error })
    }

    /// Parses the bytes of a BTF file.
    ///
    /// # Errors
    /// If they are not BTF, cut short, or of a newer kind.
    pub fn parse<'a>(bytes: impl Into<Cow<'a, [u8]>>) -> Result<Self, ParseError> {
        let encoded = Encoded::parse(bytes)?;
        let is_enum = |record: Record<'_>| matches!(record.kind, Kind::Enum | Kind::Enum64);
        let enums = (1..=encoded.last_id()).filter(|id| encoded.record(*id).is_some_and(is_enum)).collect();
        Ok(Self { names: Names::of(&encoded), encoded, enums })
    }

    /// The layer below, for tools that copy types.
    pub fn encoded(&self) -> &Encoded {
        &self.encoded
    }

    /// Id of the first type of a name.
    pub fn id(&self, named: Named, name: &str) -> Option<u32> {
        self.names.find(&self.encoded, named, name.as_bytes())
    }

    /// Id of the first struct or union of a name.
    pub fn struct_id(&self, name: &str) -> Option<u32> {
        self.id(Named::Composite, name)
    }

    /// Id of the first function of a name.
    pub fn function_id(&self, name: &str) -> Option<u32> {
        self.id(Named::Function, name)
    }

    /// Id of the first enumeration that has an enumerator.
    pub fn enum_id_with(&self, enumerator: &str) -> Option<u32> {
        self.find_enumerator(enumerator).map(|(id, _)| id)
    }

    /// Finds a member of a struct or union. The path's parts are joined by dots; members of anonymous structs and
    /// unions are found as if they stood in the outer struct, as in C.
    ///
    /// # Errors
    /// If there is no such struct or member, or it is a bitfield.
    pub fn member(&self, of: &str, path: &str) -> Result<Member, MemberError> {
        let mut type_id = self.struct_id(of).ok_or_else(|| MemberError::NoStruct(of.into()))?;
        let mut offset = 0u32;
        let mut walked = of.to_owned();
        for name in path.split('.') {
            let found = self.search(type_id, name.as_bytes(), &walked)?;
            let found = found.ok_or_else(|| MemberError::NoMember { of: walked.clone(), member: name.into() })?;
            walked = format!("{walked}.{name}");
            offset = offset.checked_add(found.offset).ok_or_else(|| MemberError::Damaged(walked.clone()))?;
            type_id = found.type_id;
        }
        let size = self.size(type_id).ok_or(MemberError::Damaged(walked))?;
        Ok(Member { offset, size })
    }

    /// Value of an enumerator of any enumeration; `None` if there is none, or it does not fit.
    pub fn enumerator(&self, name: &str) -> Option<i64> {
        self.find_enumerator(name).and_then(|(_, value)| value)
    }

    /// Prototype of a kernel function; `None` if BTF has no such function.
    pub fn prototype(&self, function: &str) -> Option<Prototype> {
        let function = self.encoded.record(self.function_id(function)?)?;
        let prototype = self.encoded.record(function.size_or_type).filter(|record| record.kind == Kind::Prototype)?;
        let parameters = prototype
            .entries::<2>()
            .map(|[name, type_id]| Parameter { name: self.text(name), type_name: self.type_name(type_id) })
            .collect();
        Some(Prototype { parameters, returns: self.type_name(prototype.size_or_type) })
    }

    /// The record behind typedefs, qualifiers and tags; `None` for `void` and damaged chains.
    fn behind_names(&self, mut id: u32) -> Option<Record<'_>> {
        for _ in 0..MAX_DEPTH {
            let record = self.encoded.record(id)?;
            match record.kind {
                Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                    id = record.size_or_type;
                }
                _ => return Some(record),
            }
        }
        None
    }

    fn size(&self, mut id: u32) -> Option<u32> {
        let mut elements = 1u32;
        for _ in 0..MAX_DEPTH {
            let record = self.behind_names(id)?;
            let size = match record.kind {
                Kind::Array => {
                    let [element, _, count] = record.entry()?;
                    elements = elements.checked_mul(count)?;
                    id = element;
                    continue;
                }
                Kind::Pointer => POINTER_SIZE,
                Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Float => record.size_or_type,
                _ => return None,
            };
            return elements.checked_mul(size);
        }
        None
    }

    fn search(&self, type_id: u32, name: &[u8], walked: &str) -> Result<Option<Found>, MemberError> {
        let mut budget = MAX_MEMBERS;
        self.search_in(type_id, name, 0, &mut budget).map_err(|bad| {
            let member = format!("{walked}.{}", String::from_utf8_lossy(name));
            match bad {
                BadMember::Bitfield => MemberError::Bitfield(member),
                BadMember::Damaged => MemberError::Damaged(member),
            }
        })
    }

    fn search_in(&self, type_id: u32, name: &[u8], depth: u32, budget: &mut u32) -> Result<Option<Found>, BadMember> {
        if depth > MAX_DEPTH {
            return Err(BadMember::Damaged);
        }
        let Some(outer) = self.behind_names(type_id).filter(|outer| matches!(outer.kind, Kind::Struct | Kind::Union))
        else {
            return Ok(None);
        };
        for [member_name, member_type, position] in outer.entries() {
            *budget = budget.checked_sub(1).ok_or(BadMember::Damaged)?;
            let member_name = self.encoded.string(member_name);
            if member_name == name {
                let offset = self.byte_offset(outer.flag, member_type, position)?;
                return Ok(Some(Found { offset, type_id: member_type }));
            }
            if member_name.is_empty()
                && let Some(inner) = self.search_in(member_type, name, depth + 1, budget)?
            {
                let outer_offset = self.byte_offset(outer.flag, member_type, position)?;
                let offset = outer_offset.checked_add(inner.offset).ok_or(BadMember::Damaged)?;
                return Ok(Some(Found { offset, type_id: inner.type_id }));
            }
        }
        Ok(None)
    }

    /// Bitfields are told in two ways: by a size in the upper byte of the position where the struct's flag is set,
    /// or by an integer type with fewer bits than its bytes.
    fn byte_offset(&self, flag: bool, type_id: u32, position: u32) -> Result<u32, BadMember> {
        let (bits, bit_offset) = if flag { (position >> 24, position & 0xff_ffff) } else { (0, position) };
        if bits != 0 || bit_offset % 8 != 0 || self.is_partial_integer(type_id) {
            return Err(BadMember::Bitfield);
        }
        Ok(bit_offset / 8)
    }

    fn is_partial_integer(&self, type_id: u32) -> bool {
        let Some(record) = self.behind_names(type_id).filter(|record| record.kind == Kind::Int) else {
            return false;
        };
        let [encoding] = record.entry().unwrap_or([0]);
        let (bit_offset, bits) = (encoding >> 16 & 0xff, encoding & 0xff);
        bit_offset != 0 || bits != record.size_or_type.saturating_mul(8)
    }

    /// The enumeration that has an enumerator, and its value if it fits.
    fn find_enumerator(&self, name: &str) -> Option<(u32, Option<i64>)> {
        self.enums.iter().find_map(|id| {
            let record = self.encoded.record(*id)?;
            let is_wanted = |offset: u32| self.encoded.string(offset) == name.as_bytes();
            let value = if record.kind == Kind::Enum {
                let [_, value] = record.entries().find(|[offset, _]| is_wanted(*offset))?;
                Some(if record.flag { i64::from(value as i32) } else { i64::from(value) })
            } else {
                let [_, low, high] = record.entries().find(|[offset, _, _]| is_wanted(*offset))?;
                let value = u64::from(high) << 32 | u64::from(low);
                if record.flag { Some(value as i64) } else { value.try_into().ok() }
            };
            Some((*id, value))
        })
    }

    /// A type as C writes it, as far as prototypes need it: `const struct sock *`.
    fn type_name(&self, mut id: u32) -> String {
        let (mut qualifiers, mut stars) = (String::new(), String::new());
        for _ in 0..MAX_DEPTH {
            let Some(record) = self.encoded.record(id) else {
                let base = if id == 0 { "void" } else { "?" };
                return assemble(&qualifiers, base, &stars);
            };
            let name = self.text(record.name);
            let base = match record.kind {
                Kind::Pointer => {
                    // Qualifiers seen so far belong to the pointer, not to what it points to: of no interest.
                    qualifiers.clear();
                    stars.push('*');
                    id = record.size_or_type;
                    continue;
                }
                Kind::Const | Kind::Volatile => {
                    qualifiers.push_str(if record.kind == Kind::Const { "const " } else { "volatile " });
                    id = record.size_or_type;
                    continue;
                }
                Kind::Restrict | Kind::TypeTag => {
                    id = record.size_or_type;
                    continue;
                }
                Kind::Struct => format!("struct {name}"),
                Kind::Union => format!("union {name}"),
                Kind::Forward => format!("{} {name}", if record.flag { "union" } else { "struct" }),
                Kind::Enum | Kind::Enum64 => format!("enum {name}"),
                Kind::Prototype => "function".into(),
                _ => name,
            };
            return assemble(&qualifiers, &base, &stars);
        }
        "?".into()
    }

    fn text(&self, offset: u32) -> String {
        String::from_utf8_lossy(self.encoded.string(offset)).into_owned()
    }
}

/// A file, as long as it says or longer, and no longer than is good.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let expected = file.metadata()?.len().min(MAX_FILE_LEN);
    // One more: the end is only seen where there is room left.
    let mut bytes = Vec::with_capacity(expected as usize + 1);
    file.take(MAX_FILE_LEN).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn assemble(qualifiers: &str, base: &str, stars: &str) -> String {
    let space = if stars.is_empty() { "" } else { " " };
    format!("{qualifiers}{base}{space}{stars}")
}

/// A member before its size is asked for.
struct Found {
    offset: u32,
    type_id: u32,
}

/// Why a search had to stop.
enum BadMember {
    Bitfield,
    Damaged,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes BTF from records of words and a string section.
    fn encode(records: &[&[u32]], strings: &[u8]) -> Vec<u8> {
        encoding::encode(&records.concat(), strings)
    }

    const fn info(kind: Kind, flag: bool, count: u32) -> u32 {
        (flag as u32) << 31 | (kind as u32) << 24 | count
    }

    #[test]
    fn members_of_anonymous_unions_are_found_through_them() {
        let strings = b"\0outer\0wanted\0int\0alias\0";
        let btf = Btf::parse(encode(
            &[
                &[14, info(Kind::Int, false, 0), 4, 32],
                // struct outer { int [8]; union { volatile alias wanted; }; } with the union at byte 32.
                &[1, info(Kind::Struct, false, 2), 36, 0, 3, 0, 0, 4, 256],
                &[0, info(Kind::Array, false, 0), 0, 1, 1, 8],
                &[0, info(Kind::Union, false, 1), 4, 7, 5, 0],
                &[0, info(Kind::Volatile, false, 0), 6],
                &[18, info(Kind::Typedef, false, 0), 1],
            ],
            strings,
        ));
        assert_eq!(btf.expect("well formed").member("outer", "wanted"), Ok(Member { offset: 32, size: 4 }));
    }

    #[test]
    fn bitfields_are_refused_in_both_encodings() {
        let strings = b"\0new\0old\0bit\0int\0";
        let btf = Btf::parse(encode(
            &[
                &[13, info(Kind::Int, false, 0), 4, 32],
                &[13, info(Kind::Int, false, 0), 4, 1],
                &[1, info(Kind::Struct, true, 1), 4, 9, 1, 1 << 24],
                &[5, info(Kind::Struct, false, 1), 4, 9, 2, 0],
            ],
            strings,
        ));
        let btf = btf.expect("well formed");
        assert_eq!(btf.member("new", "bit"), Err(MemberError::Bitfield("new.bit".into())));
        assert_eq!(btf.member("old", "bit"), Err(MemberError::Bitfield("old.bit".into())));
    }

    #[test]
    fn enumerators_have_their_sign_and_width() {
        let strings = b"\0minus\0large\0huge\0";
        let btf = Btf::parse(encode(
            &[
                &[0, info(Kind::Enum, true, 1), 4, 1, u32::MAX],
                &[0, info(Kind::Enum, false, 1), 4, 7, u32::MAX],
                &[0, info(Kind::Enum64, false, 1), 8, 13, 1, 1],
            ],
            strings,
        ));
        let btf = btf.expect("well formed");
        let values = ["minus", "large", "huge", "absent"].map(|name| btf.enumerator(name));
        assert_eq!(values, [Some(-1), Some(u32::MAX.into()), Some((1 << 32) + 1), None]);
    }

    #[test]
    fn types_that_contain_themselves_are_damaged_not_endless() {
        let strings = b"\0knot\0end\0wide\0";
        let anonymous_members_of_itself = [0, 2, 0].repeat(60_000);
        let wide = [&[10, info(Kind::Struct, false, 60_000), 8], anonymous_members_of_itself.as_slice()].concat();
        let btf = Btf::parse(encode(
            &[
                // struct knot { struct knot; knot end; } where the type of `end` is a typedef of itself.
                &[1, info(Kind::Struct, false, 1), 8, 6, 3, 0],
                &wide,
                &[0, info(Kind::Typedef, false, 0), 3],
            ],
            strings,
        ));
        let btf = btf.expect("each record is well formed");
        assert_eq!(btf.member("knot", "end"), Err(MemberError::Damaged("knot.end".into())));
        assert_eq!(btf.member("wide", "end"), Err(MemberError::Damaged("wide.end".into())));
    }

    #[test]
    fn of_types_with_a_name_the_first_is_found_and_each_kind_has_names_of_its_own() {
        let btf = Btf::parse(encode(
            &[
                &[1, info(Kind::Typedef, false, 0), 0],
                &[1, info(Kind::Struct, false, 0), 8],
                &[1, info(Kind::Union, false, 0), 16],
                &[1, info(Kind::Function, false, 0), 0],
                &[0, info(Kind::Struct, false, 0), 8],
            ],
            b"\0same\0",
        ));
        let btf = btf.expect("well formed");
        let ids = [Named::Composite, Named::Function, Named::Typedef].map(|named| btf.id(named, "same"));
        assert_eq!(ids, [Some(2), Some(4), Some(1)]);
        assert_eq!((btf.struct_id(""), btf.struct_id("sam")), (None, None), "nothing is found that has no name");
    }

    #[test]
    fn names_longer_than_any_of_the_kernel_are_none() {
        let strings = |length: usize| [&b"\0"[..], &b"x".repeat(length), b"\0"].concat();
        for (length, found) in [(511, Some(1)), (512, None), (100_000, None)] {
            let btf = Btf::parse(encode(&[&[1, info(Kind::Struct, false, 0), 8]], &strings(length)));
            assert_eq!(btf.expect("well formed").struct_id(&"x".repeat(length)), found, "{length}");
        }
    }

    #[test]
    fn what_is_not_btf_is_said_to_be_so() {
        let mut swapped = encode(&[], b"\0");
        swapped.swap(0, 1);
        let table = [
            (b"".to_vec(), ParseError::NotBtf),
            (b"\x7fELF----------------------".to_vec(), ParseError::NotBtf),
            (swapped, ParseError::ByteOrder),
            (encode(&[&[0, 31 << 24, 0]], b"\0"), ParseError::UnknownKind { id: 1, kind: 31 }),
            (encode(&[&[0, info(Kind::Struct, false, 9), 0]], b"\0"), ParseError::Record(1)),
        ];
        for (bytes, error) in table {
            assert_eq!(Btf::parse(bytes).expect_err("refused"), error);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Btf::from_file(Path::new("/nonexistent/btf")).expect_err("not there");
        assert!(error.to_string().contains("/nonexistent/btf"), "{error}");
    }
}
