//! Takes the debugging information out of the BPF object. bpf-linker makes its BTF from it, and then nothing needs it: it is three
//! quarters of the object, which every tracer carries along and reads at its start.

use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// What LLVM writes for debuggers, and where in it addresses go.
const OF_DEBUGGERS: [&[u8]; 2] = [b".debug_", b".rel.debug_"];

/// The name of the section that holds sections' names. LLVM puts them with those of the symbols.
const NAMES: &[u8] = b".shstrtab";

/// The object without it.
///
/// # Errors
/// If it is no ELF file, or one that cannot be written again.
pub fn remove(object: &[u8]) -> Result<Vec<u8>, String> {
    let mut builder = Builder::read(object).map_err(|error| error.to_string())?;
    for section in builder.sections.iter_mut() {
        section.delete = OF_DEBUGGERS.iter().any(|prefix| section.name.starts_with(prefix));
    }
    if !builder.sections.iter().any(|section| &section.name[..] == NAMES) {
        let names = builder.sections.add();
        names.name = NAMES.into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    builder.delete_orphans();
    builder.set_section_sizes();
    let mut slim = Vec::new();
    builder.write(&mut slim).map_err(|error| error.to_string())?;
    Ok(slim)
}
