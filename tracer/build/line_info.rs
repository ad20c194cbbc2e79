//! Takes the line numbers out of the BPF object's BTF: which line of the source each instruction came from, for logs of the kernel's
//! verifier alone. They and their relocations are three fifths of the object. The library that loads programs takes each apart, and the
//! kernel moves them whenever it rewrites a program. The lines themselves stay, among the strings: 43 KB.

use object::build::elf::{Builder, SectionData};

/// Where they are, after what is said of functions, and the relocations of both.
const SECTION: &[u8] = b".BTF.ext";
const RELOCATIONS: &[u8] = b".rel.BTF.ext";

/// Places in the section's head (`Documentation/bpf/btf.rst`): its length; then, for what is said of functions, for line numbers and for
/// relocations of fields of structs, where they begin behind it and how long they are. This object has none of the last.
const HEAD_LEN: usize = 4;
const FUNCTIONS_OFFSET: usize = 8;
const FUNCTIONS_LEN: usize = 12;
const LINES_OFFSET: usize = 16;
const LINES_LEN: usize = 20;
const FIELDS_OFFSET: usize = 24;
const FIELDS_LEN: usize = 28;

/// # Errors
/// If the section is not as it is known.
pub fn remove(builder: &mut Builder<'_>) -> Result<(), String> {
    let Some(section) = builder.sections.iter_mut().find(|section| &section.name[..] == SECTION) else { return Ok(()) };
    let SectionData::Data(data) = &mut section.data else { return Err("its .BTF.ext has no data".to_owned()) };
    let end = end_of_functions(data.as_slice()).ok_or("its .BTF.ext is not as it is known")?;
    let bytes = data.to_mut();
    bytes.truncate(end);
    bytes[LINES_LEN..FIELDS_OFFSET].fill(0);
    bytes.copy_within(LINES_OFFSET..LINES_LEN, FIELDS_OFFSET);
    for section in builder.sections.iter_mut().filter(|section| &section.name[..] == RELOCATIONS) {
        if let SectionData::Relocation(relocations) = &mut section.data {
            relocations.retain(|relocation| relocation.r_offset < end as u64);
        }
    }
    Ok(())
}

/// Where the line numbers begin, if nothing comes behind them.
fn end_of_functions(bytes: &[u8]) -> Option<usize> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let begin = word(HEAD_LEN)? + word(LINES_OFFSET)?;
    let has_head = word(HEAD_LEN)? == FIELDS_LEN + size_of::<u32>();
    let are_behind_functions = word(FUNCTIONS_OFFSET)? + word(FUNCTIONS_LEN)? <= word(LINES_OFFSET)?;
    let are_last = word(FIELDS_LEN)? == 0 && begin + word(LINES_LEN)? == bytes.len();
    (has_head && are_behind_functions && are_last).then_some(begin)
}
