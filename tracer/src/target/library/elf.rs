//! The parts of an ELF file that lead to its functions: segments, dynamic section, sections.
//!
//! What the loader needs is read as the loader reads it, by segments: section headers may be missing or wrong.

use std::{mem::size_of, ops::Range};

use object::{
    LittleEndian as Little, elf,
    pod::{self, Pod},
    read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader},
};

use super::{
    reader::{Damage, Reader},
    symbols::Table,
};

/// What this machine's programs are.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { elf::EM_AARCH64 } else { elf::EM_X86_64 };

/// Most segments and sections that a file may have; larger files than programs have more.
const SEGMENTS_MAX: usize = 1_024;
const SECTIONS_MAX: usize = 8_192;

/// Longest soname and section name that are taken.
const NAME_MAX: u64 = 256;

/// An ELF file for this machine.
pub struct Elf<'a> {
    pub reader: &'a Reader<'a>,
    segments: Vec<Segment>,
    dynamic: Option<Dynamic>,
    sections: Vec<Section>,
}

/// What is loaded into memory.
#[derive(Debug)]
struct Segment {
    address: u64,
    offset: u64,
    /// Bytes in the file.
    size: u64,
    flags: u32,
}

/// A named part of the file.
#[derive(Debug)]
pub struct Section {
    pub name: String,
    pub address: u64,
    /// Where it is in the file; empty if it takes no place there.
    pub range: Range<u64>,
    kind: u32,
    link: usize,
}

/// What the dynamic section says, as addresses.
#[derive(Debug, Default)]
struct Dynamic {
    symbols: Option<u64>,
    strings: Option<u64>,
    strings_size: u64,
    hash: Option<u64>,
    gnu_hash: Option<u64>,
    /// Offset of the soname in the strings.
    soname: Option<u64>,
    relocations: Option<u64>,
    relocations_size: u64,
}

impl<'a> Elf<'a> {
    /// Reads headers and the dynamic section. `None` if the file is no ELF file.
    pub fn open(reader: &'a Reader<'a>) -> Result<Option<Self>, Damage> {
        const HEADER: u64 = size_of::<elf::FileHeader64<Little>>() as u64;
        let bytes = match reader.read(0, HEADER) {
            Ok(bytes) if bytes.starts_with(&elf::ELFMAG) => bytes,
            Ok(_) | Err(Damage::Short) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (header, _) = pod::from_bytes::<elf::FileHeader64<Little>>(&bytes).map_err(|()| Damage::Short)?;
        let is_ours = header.e_ident.class == elf::ELFCLASS64
            && header.e_ident.data == elf::ELFDATA2LSB
            && header.e_machine(Little) == MACHINE
            && matches!(header.e_type(Little), elf::ET_EXEC | elf::ET_DYN);
        if !is_ours {
            return Err(Damage::Foreign);
        }
        let programs = programs(reader, header)?;
        let loaded =
            programs.iter().filter(|program| program.p_type(Little) == elf::PT_LOAD).map(Segment::of).collect();
        let mut elf = Self {
            reader,
            segments: loaded,
            dynamic: None,
            // The loader does without them.
            sections: sections(reader, header).unwrap_or_default(),
        };
        if let Some(program) = programs.iter().find(|program| program.p_type(Little) == elf::PT_DYNAMIC) {
            elf.dynamic = Some(elf.read_dynamic(program.p_offset(Little), program.p_filesz(Little))?);
        }
        Ok(Some(elf))
    }

    fn read_dynamic(&self, offset: u64, size: u64) -> Result<Dynamic, Damage> {
        let mut dynamic = Dynamic::default();
        for entry in table::<elf::Dyn64<Little>>(self.reader, offset, size / size_of::<elf::Dyn64<Little>>() as u64)? {
            let value = entry.d_val(Little);
            match entry.d_tag(Little) {
                elf::DT_NULL => break,
                elf::DT_SYMTAB => dynamic.symbols = Some(value),
                elf::DT_STRTAB => dynamic.strings = Some(value),
                elf::DT_STRSZ => dynamic.strings_size = value,
                elf::DT_HASH => dynamic.hash = Some(value),
                elf::DT_GNU_HASH => dynamic.gnu_hash = Some(value),
                elf::DT_SONAME => dynamic.soname = Some(value),
                elf::DT_RELA => dynamic.relocations = Some(value),
                elf::DT_RELASZ => dynamic.relocations_size = value,
                _ => {}
            }
        }
        Ok(dynamic)
    }

    /// The dynamic symbols, which the loader uses; `None` if there are none.
    pub fn dynamic_symbols(&self) -> Result<Option<Table>, Damage> {
        let Some(dynamic) = &self.dynamic else { return Ok(None) };
        let (Some(symbols), Some(strings)) = (dynamic.symbols, dynamic.strings) else { return Ok(None) };
        let count = match (dynamic.gnu_hash, dynamic.hash) {
            (Some(hash), _) => self.count_by_gnu_hash(self.place(hash)?)?,
            // Its second number is that of chains, one for each symbol.
            (None, Some(hash)) => u64::from(self.reader.window().u32_at(self.place(hash)? + 4)?),
            (None, None) => return Ok(None),
        };
        let (symbols, strings) = (self.place(symbols)?, self.place(strings)?);
        let strings_end = strings.checked_add(dynamic.strings_size).ok_or(Damage::Short)?;
        Ok(Some(Table { symbols, count, strings: strings..strings_end }))
    }

    /// The table has no count: the last symbol is the end of the chain that begins last.
    fn count_by_gnu_hash(&self, hash: u64) -> Result<u64, Damage> {
        let mut window = self.reader.window();
        let [buckets, first, bloom] = [0, 4, 8].map(|at| window.u32_at(hash + at));
        let (buckets, first) = (u64::from(buckets?), u64::from(first?));
        let bucket_table = hash + 16 + u64::from(bloom?) * 8;
        let mut last = 0;
        for bucket in 0..buckets {
            last = last.max(u64::from(window.u32_at(bucket_table + bucket * 4)?));
        }
        if last < first {
            return Ok(first);
        }
        let chains = bucket_table + buckets * 4;
        while window.u32_at(chains + (last - first) * 4)? & 1 == 0 {
            last += 1;
        }
        Ok(last + 1)
    }

    /// The full symbol table; `None` if it was stripped.
    pub fn full_symbols(&self) -> Option<Table> {
        const SYMBOL: u64 = size_of::<elf::Sym64<Little>>() as u64;
        let symbols = self.sections.iter().find(|section| section.kind == elf::SHT_SYMTAB)?;
        let strings = self.sections.get(symbols.link).filter(|section| section.kind == elf::SHT_STRTAB)?;
        let count = (symbols.range.end - symbols.range.start) / SYMBOL;
        Some(Table { symbols: symbols.range.start, count, strings: strings.range.clone() })
    }

    /// The name that a library calls itself, such as `libssl.so.3`.
    pub fn soname(&self) -> Option<String> {
        let dynamic = self.dynamic.as_ref()?;
        let soname = dynamic.soname.filter(|offset| *offset < dynamic.strings_size)?;
        let at = self.place(dynamic.strings?).ok()?.checked_add(soname)?;
        let bytes = self.reader.read(at, NAME_MAX.min(dynamic.strings_size - soname)).ok()?;
        text_at(&bytes, 0)
    }

    /// Whether there are section headers.
    pub fn has_sections(&self) -> bool {
        !self.sections.is_empty()
    }

    /// A section whose name ends so.
    pub fn section(&self, suffix: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name.ends_with(suffix))
    }

    /// Where in the file a function's code at an address is, and the part of the file that is loaded there; `None` if no code is.
    pub fn code_offset(&self, address: u64) -> Option<(u64, Range<u64>)> {
        let mut code = self.segments.iter().filter(|segment| segment.flags & elf::PF_X != 0);
        code.find_map(|segment| Some((segment.offset_of(address)?, segment.range())))
    }

    /// Where in the file that is which is loaded at an address; `None` if nothing of the file is.
    pub fn offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| segment.offset_of(address))
    }

    /// The address at which is loaded what is somewhere in the file; `None` if it is not.
    pub fn address(&self, offset: u64) -> Option<u64> {
        let mut segments = self.segments.iter().filter(|segment| segment.range().contains(&offset));
        segments.find_map(|segment| segment.address.checked_add(offset - segment.offset))
    }

    /// The pointer at an address, relative to where the file is loaded. Where the file itself has 0, a relocation may hold
    /// it.
    pub fn pointer(&self, address: u64) -> Result<u64, Damage> {
        let offset = self.offset(address).ok_or(Damage::Short)?;
        let value = self.reader.window().u64_at(offset)?;
        if value != 0 { Ok(value) } else { self.relocated(address) }
    }

    /// What the relocation of an address sets it to; 0 if there is none.
    fn relocated(&self, address: u64) -> Result<u64, Damage> {
        const SIZE: u64 = size_of::<elf::Rela64<Little>>() as u64;
        let Some(dynamic) = &self.dynamic else { return Ok(0) };
        let Some(start) = dynamic.relocations.map(|start| self.place(start)).transpose()? else { return Ok(0) };
        self.reader.check(start, dynamic.relocations_size)?;
        let mut window = self.reader.window();
        for at in 0..dynamic.relocations_size / SIZE {
            // Address, kind, addend.
            if window.u64_at(start + at * SIZE)? == address {
                return window.u64_at(start + at * SIZE + 16);
            }
        }
        Ok(0)
    }

    fn place(&self, address: u64) -> Result<u64, Damage> {
        self.offset(address).ok_or(Damage::Malformed("its dynamic section points to nothing"))
    }

    /// Where the file has what programs cannot change: their constants, at any rate.
    pub fn constants(&self) -> impl Iterator<Item = Range<u64>> {
        let section = self.section(".rodata").map(|section| section.range.clone());
        let is_constant = |segment: &&Segment| segment.flags & elf::PF_W == 0;
        let segments = self.segments.iter().filter(is_constant).map(Segment::range);
        let use_segments = section.is_none();
        section.into_iter().chain(segments.filter(move |_| use_segments))
    }

    /// Where the file has the initial values of what programs can change.
    pub fn variables(&self) -> impl Iterator<Item = Range<u64>> {
        self.segments.iter().filter(|segment| segment.flags & elf::PF_W != 0).map(Segment::range)
    }

    /// Where the file has what is loaded.
    pub fn loaded(&self) -> impl Iterator<Item = Range<u64>> {
        self.segments.iter().map(Segment::range)
    }
}

impl Segment {
    fn of(program: &elf::ProgramHeader64<Little>) -> Self {
        Self {
            address: program.p_vaddr(Little),
            offset: program.p_offset(Little),
            size: program.p_filesz(Little),
            flags: program.p_flags(Little),
        }
    }

    fn offset_of(&self, address: u64) -> Option<u64> {
        let within = address.checked_sub(self.address).filter(|within| *within < self.size)?;
        // Later sums with offsets of up to four gigabytes times eight stay in range.
        self.offset.checked_add(within).filter(|offset| *offset < 1 << 62)
    }

    fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.size)
    }
}

fn programs(
    reader: &Reader<'_>,
    header: &elf::FileHeader64<Little>,
) -> Result<Vec<elf::ProgramHeader64<Little>>, Damage> {
    let count = usize::from(header.e_phnum(Little));
    if count > SEGMENTS_MAX {
        return Err(Damage::Large);
    }
    table(reader, header.e_phoff(Little), count as u64)
}

fn sections(reader: &Reader<'_>, header: &elf::FileHeader64<Little>) -> Option<Vec<Section>> {
    let count = usize::from(header.e_shnum(Little));
    if count > SECTIONS_MAX {
        return None;
    }
    let headers = table::<elf::SectionHeader64<Little>>(reader, header.e_shoff(Little), count as u64).ok()?;
    let names = headers.get(usize::from(header.e_shstrndx(Little)))?;
    let names = reader.read(names.sh_offset(Little), names.sh_size(Little)).ok()?;
    let section = |header: &elf::SectionHeader64<Little>| {
        let start = header.sh_offset(Little);
        let takes_place = header.sh_type(Little) != elf::SHT_NOBITS;
        let size = if takes_place { header.sh_size(Little) } else { 0 };
        Section {
            name: text_at(&names, header.sh_name(Little) as usize).unwrap_or_default(),
            address: header.sh_addr(Little),
            range: start..start.saturating_add(size),
            kind: header.sh_type(Little),
            link: header.sh_link(Little) as usize,
        }
    };
    Some(headers.iter().map(section).collect())
}

/// `count` headers or entries at an offset.
fn table<T: Pod>(reader: &Reader<'_>, offset: u64, count: u64) -> Result<Vec<T>, Damage> {
    let bytes = reader.read(offset, count.checked_mul(size_of::<T>() as u64).ok_or(Damage::Large)?)?;
    let (items, _) = pod::slice_from_bytes::<T>(&bytes, count as usize).map_err(|()| Damage::Short)?;
    Ok(items.to_vec())
}

/// The text at an offset up to its NUL, if it is short enough.
fn text_at(bytes: &[u8], at: usize) -> Option<String> {
    let rest = bytes.get(at..)?;
    let end = memchr::memchr(0, &rest[..rest.len().min(NAME_MAX as usize)])?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}
