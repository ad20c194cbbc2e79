//! From the kernel's BTF to the table of field offsets that the BPF side reads.

use tracer_ebpf::{Field, MISSING, Offsets};
use zerocopy::{FromBytes, IntoBytes};

use super::btf::Btf;

/// The table, and what is not in it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What goes into the BPF object's read-only data; [`MISSING`] where the kernel has no such field.
    pub offsets: Offsets,
    /// Name in the table, and why it is missing.
    pub missing: Vec<(&'static str, String)>,
}

/// Resolves every field and enumerator of the table. What the kernel lacks, or has in another size than the reader
/// expects, is missing: a wrong number would be worse.
pub fn resolve(btf: &Btf) -> Resolved {
    let fields = Offsets::FIELDS.iter().map(|field| (field.name, resolve_field(btf, field)));
    let enumerators = Offsets::ENUMERATORS.iter().map(|(name, value)| (*name, resolve_enumerator(btf, value)));
    let mut missing = Vec::new();
    let words: Vec<u32> = fields
        .chain(enumerators)
        .map(|(name, found)| {
            found.unwrap_or_else(|reason| {
                missing.push((name, reason));
                MISSING
            })
        })
        .collect();
    // The contract asserts that the table is exactly these words, so the fallback is never taken.
    let offsets = Offsets::read_from_bytes(words.as_bytes()).unwrap_or(Offsets::NONE);
    Resolved { offsets, missing }
}

/// Index of `inet_csk_accept`'s return value among a fexit program's arguments: it follows the parameters, of which
/// there are 4 up to Linux 6.8 and 2 after. `None` if BTF does not have the function.
pub fn accept_return_index(btf: &Btf) -> Option<u32> {
    u32::try_from(btf.prototype("inet_csk_accept")?.parameters.len()).ok()
}

fn resolve_field(btf: &Btf, field: &Field) -> Result<u32, String> {
    let member = btf.member(field.of, field.path).map_err(|error| error.to_string())?;
    if member.size != field.size {
        return Err(format!("{}.{} has {} bytes, not {}", field.of, field.path, member.size, field.size));
    }
    Ok(member.offset)
}

fn resolve_enumerator(btf: &Btf, name: &str) -> Result<u32, String> {
    let value = btf.enumerator(name).ok_or_else(|| format!("this kernel has no enumerator {name}"))?;
    u32::try_from(value).ok().filter(|value| *value != MISSING).ok_or_else(|| format!("{name} is {value}: too large"))
}
