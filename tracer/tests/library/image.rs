//! Small ELF files with whatever is asked for, for what no compiler here makes. The fuzz target makes them too.

/// Where the files are loaded: an address is this and the offset.
const BASE: u64 = 0x10_0000;

/// Bytes of code that each function has.
pub const FUNCTION: u64 = 16;

const HEADER: usize = 64;
const PROGRAM: usize = 56;

/// How the dynamic symbols are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hash {
    #[default]
    Gnu,
    SysV,
}

/// Where Go's code is told to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoText {
    /// In the function table, as up to Go 1.25.
    InTable,
    /// In the module's data, as since.
    InModule,
    Nowhere,
}

/// What a file is to have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Image<'a> {
    pub soname: &'a str,
    pub dynamic: &'a [&'a str],
    pub hash: Hash,
    /// Names that are used, not defined.
    pub imported: &'a [&'a str],
    /// Names in the full symbol table.
    pub full: &'a [&'a str],
    pub constants: &'a str,
    /// Names in Go's function table.
    pub go: Option<(&'a [&'a str], GoText)>,
}

/// A file that is being put together.
#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    /// Name, kind, start, end, linked section.
    sections: Vec<(&'static str, u32, u64, u64, u32)>,
}

impl Image<'_> {
    /// The file, and the offset of its first function: the others follow in order, those of the dynamic table first, then
    /// the full one's, then Go's.
    pub fn build(&self) -> (Vec<u8>, u64) {
        let mut file = File { bytes: vec![0; HEADER + 2 * PROGRAM], sections: vec![("", 0, 0, 0, 0)] };
        let text = file.append(&[0x90; 2_048]);
        file.section(".rodata", 1, self.constants.as_bytes(), 0);
        let dynamic = self.dynamic_part(&mut file, text);
        let mut function = text + FUNCTION * self.dynamic.len() as u64;
        let (strings, symbols) = table(self.full, &[], "", function);
        let link = file.sections.len() as u32 + 1;
        file.section(".symtab", 2, &symbols, link);
        file.section(".strtab", 3, &strings, 0);
        function += FUNCTION * self.full.len() as u64;
        if let Some((names, place)) = self.go {
            file.section(".go.buildinfo", 1, &build_info(), 0);
            let start = if place == GoText::InTable { BASE + function } else { 0 };
            let table = file.section(".gopclntab", 1, &function_table(names, start), 0);
            if place == GoText::InModule {
                file.section(".go.module", 1, &module(BASE + table, BASE + function, names.len()), 0);
            }
        }
        (file.finish(dynamic), text)
    }

    /// Where the dynamic section is, and its size.
    fn dynamic_part(&self, file: &mut File, text: u64) -> (u64, u64) {
        let (strings, symbols) = table(self.dynamic, self.imported, self.soname, text);
        let count = symbols.len() as u32 / 24;
        let (strings_at, symbols_at) = (file.append(&strings), file.append(&symbols));
        let (tag, hash) = match self.hash {
            Hash::Gnu => (0x6fff_fef5, gnu_hash(count, self.imported.len() as u32 + 1)),
            Hash::SysV => (4, words(&[1, count, 0])),
        };
        let hash = file.append(&hash);
        let soname = (strings.len() - self.soname.len() - 1) as u64;
        let entries = [
            (tag, BASE + hash),
            (5, BASE + strings_at),
            (10, strings.len() as u64),
            (6, BASE + symbols_at),
            (14, soname),
            (0, 0),
        ];
        let bytes: Vec<u8> =
            entries.iter().flat_map(|(tag, value)| [*tag, *value]).flat_map(u64::to_le_bytes).collect();
        (file.append(&bytes), bytes.len() as u64)
    }
}

impl File {
    fn append(&mut self, bytes: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let at = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        at
    }

    fn section(&mut self, name: &'static str, kind: u32, bytes: &[u8], link: u32) -> u64 {
        let at = self.append(bytes);
        self.sections.push((name, kind, at, at + bytes.len() as u64, link));
        at
    }

    fn finish(mut self, (dynamic, dynamic_size): (u64, u64)) -> Vec<u8> {
        let names: String = self.sections.iter().map(|(name, ..)| format!("{name}\0")).collect();
        self.section(".shstrtab", 3, format!("{names}.shstrtab\0").as_bytes(), 0);
        let (mut headers, mut name_at) = (Vec::new(), 0_u32);
        for (name, kind, start, end, link) in &self.sections {
            headers.extend(words(&[name_at, *kind]));
            headers.extend([2, BASE + start, *start, end - start].into_iter().flat_map(u64::to_le_bytes));
            headers.extend(words(&[*link, 0]));
            headers.extend([1_u64, 0].into_iter().flat_map(u64::to_le_bytes));
            name_at += name.len() as u32 + 1;
        }
        let (count, at) = (self.sections.len() as u16, self.append(&headers));
        let all = self.bytes.len() as u64;
        let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0".to_vec();
        head.extend(if cfg!(target_arch = "aarch64") { 183_u16 } else { 62 }.to_le_bytes());
        head.extend(words(&[1]));
        head.extend([0, HEADER as u64, at].into_iter().flat_map(u64::to_le_bytes));
        head.extend(words(&[0]));
        head.extend([HEADER as u16, PROGRAM as u16, 2, 64, count, count - 1].into_iter().flat_map(u16::to_le_bytes));
        head.extend(program(1, 5, 0, all));
        head.extend(program(2, 4, dynamic, dynamic_size));
        self.bytes[..head.len()].copy_from_slice(&head);
        self.bytes
    }
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn program(kind: u32, flags: u32, offset: u64, size: u64) -> Vec<u8> {
    let rest = [offset, BASE + offset, BASE + offset, size, size, 4_096];
    [words(&[kind, flags]), rest.into_iter().flat_map(u64::to_le_bytes).collect()].concat()
}

/// Strings and symbols: imported ones, then those that are defined one after the other from a place on. `last` is the last of
/// the strings.
fn table(defined: &[&str], imported: &[&str], last: &str, text: u64) -> (Vec<u8>, Vec<u8>) {
    let (mut strings, mut symbols) = (vec![0], vec![0; 24]);
    let mut add = |name: &str, section: u16, address: u64| {
        symbols.extend(words(&[strings.len() as u32]));
        // A function that others may use.
        symbols.extend([0x12, 0]);
        symbols.extend(section.to_le_bytes());
        symbols.extend([address, FUNCTION].into_iter().flat_map(u64::to_le_bytes));
        strings.extend(name.bytes().chain([0]));
    };
    imported.iter().for_each(|name| add(name, 0, 0));
    (0..).zip(defined).for_each(|(index, name)| add(name, 1, BASE + text + index * FUNCTION));
    strings.extend(last.bytes().chain([0]));
    (strings, symbols)
}

/// One bucket; its chain ends at the last symbol.
fn gnu_hash(count: u32, first: u32) -> Vec<u8> {
    let mut numbers = vec![1, first, 1, 0, u32::MAX, u32::MAX, if first < count { first } else { 0 }];
    numbers.extend((first..count).map(|index| u32::from(index + 1 == count)));
    words(&numbers)
}

fn build_info() -> Vec<u8> {
    let mut bytes = b"\xff Go buildinf:\x08\x02".to_vec();
    bytes.resize(32, 0);
    bytes.extend(b"\x06go1.26\x00");
    bytes
}

fn function_table(names: &[&str], text: u64) -> Vec<u8> {
    const HEADER: usize = 72;
    let mut strings = vec![0];
    let places: Vec<u32> = names
        .iter()
        .map(|name| {
            let place = strings.len() as u32;
            strings.extend(name.bytes().chain([0]));
            place
        })
        .collect();
    let functions = (HEADER + strings.len()).next_multiple_of(8);
    let unit = if cfg!(target_arch = "aarch64") { 4 } else { 1 };
    let mut table = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, unit, 8];
    let rest = (functions as u64, functions as u64);
    table.extend(
        [names.len() as u64, 0, text, HEADER as u64, rest.0, 0, 0, rest.1].into_iter().flat_map(u64::to_le_bytes),
    );
    table.extend(strings);
    table.resize(functions, 0);
    let details = names.len() as u32 * 8 + 4;
    for index in 0..names.len() as u32 {
        table.extend(words(&[index * FUNCTION as u32, details + index * 8]));
    }
    table.extend(words(&[names.len() as u32 * FUNCTION as u32]));
    for (index, place) in places.iter().enumerate() {
        table.extend(words(&[index as u32 * FUNCTION as u32, *place]));
    }
    table
}

fn module(table: u64, text: u64, functions: usize) -> Vec<u8> {
    let end = text + FUNCTION * functions as u64;
    let mut numbers = [0; 24];
    numbers[0] = table;
    numbers[20..].copy_from_slice(&[text, end, text, end]);
    numbers.into_iter().flat_map(u64::to_le_bytes).collect()
}
