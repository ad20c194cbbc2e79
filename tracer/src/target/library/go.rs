//! Go programs: the version they were built with, and their functions even where the symbol table was stripped.
//!
//! Go's runtime needs a table of all functions (`pclntab`) for its stack traces, so it is in every program.

use std::ops::{ControlFlow, Range};

use memchr::memmem;

use super::{
    elf::Elf,
    reader::{Damage, Reader},
    symbols::{Names, Symbol},
};

/// What the build information begins with.
const BUILD_INFO: &[u8] = b"\xff Go buildinf:";

/// Bytes of a data segment in which Go's own reader looks for it, where there are no section headers.
const BUILD_INFO_AREA: u64 = 1 << 16;

/// Longest version that is taken, in bytes.
const VERSION_MAX: u64 = 128;

/// How a function table begins: a number for its form, two zero bytes, the size of an instruction's unit, that of a pointer.
/// The forms are those of Go 1.20 and of 1.18; older ones hold no offsets, and such programs are not searched.
const TABLE_HEADS: [[u8; 8]; 2] = [[0xf1, 0xff, 0xff, 0xff, 0, 0, UNIT, 8], [0xf0, 0xff, 0xff, 0xff, 0, 0, UNIT, 8]];
const UNIT: u8 = if cfg!(target_arch = "aarch64") { 4 } else { 1 };

/// Where Go 1.26 and later keep what was in the function table's header before: the first code's address.
const MODULE: &str = ".go.module";
/// Which of the numbers there: the function table's address, the lowest and the highest address of a function, the beginning
/// and the end of the code.
const MODULE_TABLE: u64 = 0;
const MODULE_LOW: u64 = 20;
const MODULE_HIGH: u64 = 21;
const MODULE_TEXT: u64 = 22;
const MODULE_END: u64 = 23;

/// What makes a program one of Go's.
pub struct Program {
    /// Such as `1.19.8`; `None` if it is not told in a known way.
    pub version: Option<String>,
}

/// Tells whether a program was built by Go.
pub fn program(elf: &Elf<'_>) -> Result<Option<Program>, Damage> {
    let Some(at) = build_info(elf)? else {
        return Ok(elf.section(".gopclntab").map(|_| Program { version: None }));
    };
    Ok(Some(Program { version: version(elf, at).ok().flatten() }))
}

/// Where the build information is in the file.
fn build_info(elf: &Elf<'_>) -> Result<Option<u64>, Damage> {
    if let Some(section) = elf.section(".go.buildinfo") {
        let head = elf.reader.read(section.range.start, BUILD_INFO.len() as u64);
        return Ok(head.is_ok_and(|head| head == BUILD_INFO).then_some(section.range.start));
    }
    if elf.has_sections() {
        return Ok(None);
    }
    for segment in elf.variables() {
        let length = BUILD_INFO_AREA.min(segment.end.saturating_sub(segment.start));
        let area = elf.reader.read(segment.start, length)?;
        if let Some(at) = memmem::find(&area, BUILD_INFO) {
            return Ok(Some(segment.start + at as u64));
        }
    }
    Ok(None)
}

/// The version is behind the build information's head since Go 1.18; before, a pointer led to it.
fn version(elf: &Elf<'_>, build_info: u64) -> Result<Option<String>, Damage> {
    const INLINE: u8 = 2;
    let head = elf.reader.read(build_info, 34)?;
    let (start, length) = if head[15] & INLINE != 0 {
        let length = u64::from(head[32]);
        (build_info + 33, length)
    } else {
        let Some(pointer) = head[16..].first_chunk() else { return Ok(None) };
        let text = u64::from_le_bytes(*pointer);
        let (start, length) = (elf.pointer(text)?, elf.pointer(text.saturating_add(8))?);
        (elf.offset(start).ok_or(Damage::Short)?, length)
    };
    if length >= VERSION_MAX {
        return Ok(None);
    }
    let text = String::from_utf8(elf.reader.read(start, length)?).ok();
    Ok(text.and_then(|text| Some(text.strip_prefix("go")?.split(' ').next()?.to_owned())))
}

/// Functions of some names, by the program's function table.
pub fn functions<T: Copy>(elf: &Elf<'_>, names: &Names<T>) -> Result<Vec<Symbol<T>>, Damage> {
    let table = FunctionTable::open(elf)?;
    let places = names.places(elf.reader, &table.names)?;
    let mut found = Vec::new();
    if places.is_empty() {
        return Ok(found);
    }
    let text = table.text(elf)?;
    let (mut entries, mut details) = (elf.reader.window(), elf.reader.window());
    for index in 0..table.count {
        let entry = table.entries + index * 8;
        let start = entries.u32_at(entry)?;
        // Its second number is that of its name.
        let detail = table.entries + u64::from(entries.u32_at(entry + 4)?);
        let Some(name) = places.get(&details.u32_at(detail + 4)?) else { continue };
        let size = entries.u32_at(entry + 8)?.saturating_sub(start);
        let address = text.checked_add(u64::from(start)).ok_or(Damage::Short)?;
        found.push(Symbol { name: *name, address, size: u64::from(size) });
        if found.len() > places.len() {
            return Err(Damage::Malformed("its functions come again and again"));
        }
    }
    Ok(found)
}

/// A function table, by places in the file.
struct FunctionTable {
    /// Where it begins.
    start: u64,
    count: u64,
    names: Range<u64>,
    /// Two 32-bit numbers for each function: its code from the code's beginning, its details from here.
    entries: u64,
}

impl FunctionTable {
    fn open(elf: &Elf<'_>) -> Result<Self, Damage> {
        const UNKNOWN: Damage = Damage::Malformed("Go's function table is not in a known form");
        if let Some(section) = elf.section(".gopclntab") {
            return Self::read(elf.reader, section.range.start).ok_or(UNKNOWN);
        }
        // Another linker than Go's puts it among other data.
        elf.loaded().find_map(|range| Self::search(elf.reader, &range)).ok_or(UNKNOWN)
    }

    fn search(reader: &Reader<'_>, range: &Range<u64>) -> Option<Self> {
        let finders = TABLE_HEADS.each_ref().map(memmem::Finder::new);
        let mut found = None;
        let look = |from, piece: &[u8]| {
            let mut places = finders.iter().flat_map(|finder| finder.find_iter(piece));
            found = places.find_map(|at| Self::read(reader, range.start + from + at as u64));
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        reader.for_each_piece(range, TABLE_HEADS[0].len() as u64, look).ok()?;
        found
    }

    /// The header's numbers behind its head: functions, files, the code's address, then offsets of the tables of function
    /// names, of units, of files, of numbers, of functions.
    fn read(reader: &Reader<'_>, start: u64) -> Option<Self> {
        let head = reader.read(start, 8 + 8 * 8).ok()?;
        if !TABLE_HEADS.iter().any(|known| head.starts_with(known)) {
            return None;
        }
        let number = |index: usize| {
            let bytes = head.get(8 + index * 8..)?.first_chunk()?;
            // No file is that large; what is, would make later sums overflow.
            Some(u64::from_le_bytes(*bytes)).filter(|number| *number < 1 << 40)
        };
        let (count, names, units, functions) = (number(0)?, number(3)?, number(4)?, number(7)?);
        let table = Self { start, count, names: start + names..start + units, entries: start + functions };
        reader.check(table.entries, count * 8 + 4).ok()?;
        (table.names.start <= table.names.end).then_some(table)
    }

    /// The address of the code's beginning.
    fn text(&self, elf: &Elf<'_>) -> Result<u64, Damage> {
        const UNKNOWN: Damage = Damage::Malformed("it is not told where Go's code begins");
        let table = elf.address(self.start).ok_or(UNKNOWN)?;
        let text = elf.pointer(table.checked_add(8 + 2 * 8).ok_or(UNKNOWN)?)?;
        if text != 0 {
            return Ok(text);
        }
        let module = elf.section(MODULE).ok_or(UNKNOWN)?.address;
        let number = |index: u64| elf.pointer(module.saturating_add(index * 8));
        let (low, high) = (number(MODULE_LOW)?, number(MODULE_HIGH)?);
        let (text, end) = (number(MODULE_TEXT)?, number(MODULE_END)?);
        // An offset that is wrong would put probes into the middle of instructions.
        let fits = number(MODULE_TABLE)? == table && text <= low && low < high && high <= end;
        if fits && elf.code_offset(text).is_some() { Ok(text) } else { Err(UNKNOWN) }
    }
}
