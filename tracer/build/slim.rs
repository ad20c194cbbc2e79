//! The BPF object without debugging information and line numbers, which only people read. Every tracer carries it along and takes it apart at its start.

use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

#[path = "debug_sections.rs"]
mod debug_sections;
#[path = "line_info.rs"]
mod line_info;

/// The name of the section that holds sections' names. LLVM puts them with those of the symbols.
const NAMES: &[u8] = b".shstrtab";

/// # Errors
/// If it is no ELF file, or one that cannot be written again.
pub fn slim(object: &[u8], with_lines: bool) -> Result<Vec<u8>, String> {
    let mut builder = Builder::read(object).map_err(|error| error.to_string())?;
    debug_sections::remove(&mut builder);
    if !with_lines {
        line_info::remove(&mut builder)?;
    }
    write(builder)
}

fn write(mut builder: Builder<'_>) -> Result<Vec<u8>, String> {
    if !builder.sections.iter().any(|section| &section.name[..] == NAMES) {
        let names = builder.sections.add();
        names.name = NAMES.into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    builder.delete_orphans();
    builder.set_section_sizes();
    let mut written = Vec::new();
    builder.write(&mut written).map_err(|error| error.to_string())?;
    Ok(written)
}
