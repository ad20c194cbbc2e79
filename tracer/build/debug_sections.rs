//! Takes the debugging information out of the BPF object: three quarters of it. bpf-linker makes its BTF from it, and then nothing needs
//! it.

use object::build::elf::Builder;

/// What LLVM writes for debuggers, and where in it addresses go.
const OF_DEBUGGERS: [&[u8]; 2] = [b".debug_", b".rel.debug_"];

/// Marks it for deletion.
pub fn remove(builder: &mut Builder<'_>) {
    for section in builder.sections.iter_mut() {
        section.delete |= OF_DEBUGGERS.iter().any(|prefix| section.name.starts_with(prefix));
    }
}
