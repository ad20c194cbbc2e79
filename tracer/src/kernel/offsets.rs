//! From the kernel's BTF to the table of field offsets that the BPF side reads.

use tracer_ebpf::{Field, MISSING, Offsets};
use zerocopy::{FromBytes, IntoBytes};

use super::btf::Btf;

/// The table, and what is not in it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What goes into the BPF object's read-only data; [`MISSING`] where the kernel has no such field.
    pub offsets: Offsets,
    /// Name in the table, and why it is missing; optional entries are left out.
    pub missing: Vec<(&'static str, String)>,
}

/// Resolves every field and enumerator of the table. What the kernel lacks, or has in another size than the reader
/// expects, is missing: a wrong number would be worse.
pub fn resolve(btf: &Btf) -> Resolved {
    let fields = Offsets::FIELDS.iter().map(|field| (field.name, field.optional, resolve_field(btf, field)));
    let enumerators = Offsets::ENUMERATORS.iter();
    let enumerators = enumerators.map(|one| (one.name, one.optional, resolve_enumerator(btf, one.value)));
    let mut missing = Vec::new();
    let words: Vec<u32> = fields
        .chain(enumerators)
        .map(|(name, optional, found)| {
            found.unwrap_or_else(|reason| {
                if !optional {
                    missing.push((name, reason));
                }
                MISSING
            })
        })
        .collect();
    // The contract asserts that the table is exactly these words, so the fallback is never taken.
    let offsets = Offsets::read_from_bytes(words.as_bytes()).unwrap_or(Offsets::NONE);
    Resolved { offsets, missing }
}

/// The first of the field's paths that the kernel has; if it has none, why not the first of them.
fn resolve_field(btf: &Btf, field: &Field) -> Result<u32, String> {
    let mut found = field.paths.iter().map(|path| resolve_path(btf, field, path));
    let first = found.next().unwrap_or_else(|| Err(format!("{} has no path", field.name)));
    first.or_else(|reason| found.find_map(Result::ok).ok_or(reason))
}

fn resolve_path(btf: &Btf, field: &Field, path: &str) -> Result<u32, String> {
    let member = btf.member(field.of, path).map_err(|error| error.to_string())?;
    if member.size != field.size {
        return Err(format!("{}.{path} has {} bytes, not {}", field.of, member.size, field.size));
    }
    Ok(member.offset)
}

fn resolve_enumerator(btf: &Btf, name: &str) -> Result<u32, String> {
    let value = btf.enumerator(name).ok_or_else(|| format!("this kernel has no enumerator {name}"))?;
    u32::try_from(value).ok().filter(|value| *value != MISSING).ok_or_else(|| format!("{name} is {value}: too large"))
}
