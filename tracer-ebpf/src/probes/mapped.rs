//! Code is mapped: a program at its start, a library then or later by `dlopen`. Hook: the entry of `uprobe_mmap`, which the kernel
//! calls for each new mapping of a file, when it is in place. Only attached if probes may be put on TLS libraries.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use tracer_ebpf::{
    kind,
    ssl::{FileKey, MappedRecord},
};

use super::Outcome;
use crate::{
    identity::current_ids,
    kernel::{
        access::{Access, Direct, Pointer, Probe},
        file::File,
    },
    maps::{SETTLED_FILES, offset},
    output::{now, send_mapped},
    overlap::{Hook, programs, serve_by_mark},
    selection::current_process_selected,
};

/// What is mapped may be executed (`include/linux/mm.h`).
const VM_EXEC: u64 = 0x4;

programs! {
    /// `int uprobe_mmap(struct vm_area_struct *vma)`
    #[fentry(function = "uprobe_mmap")]
    mapped(FEntryContext): 1 mapped_fentry, 2 mapped_2_fentry, 3 mapped_3_fentry
}

#[inline(always)]
fn mapped<const PROGRAM: u32>(ctx: &FEntryContext) -> Outcome {
    let area: Pointer = ctx.arg(0);
    serve_by_mark::<PROGRAM>(Hook::Mapped, ctx, area, || try_mapped::<Direct>(area))
}

#[kprobe(function = "uprobe_mmap")]
pub fn mapped_kprobe(ctx: ProbeContext) -> u32 {
    let _ = ctx.arg(0).and_then(try_mapped::<Probe>);
    0
}

/// Tells user space, unless it has said that it knows all that it wants to of the file.
#[inline(always)]
fn try_mapped<A: Access>(area: Pointer) -> Outcome {
    let may_execute = A::read::<u64>(area, offset!(vma_flags)).is_none_or(|flags| flags & VM_EXEC != 0);
    if !may_execute || !current_process_selected() {
        return None;
    }
    let file: Pointer = A::read(area, offset!(vma_file))?;
    if file.is_null() {
        return None;
    }
    let (inode, device) = File::<A>::new(file).identity()?;
    // SAFETY: a u8 that only whole writes change.
    if unsafe { SETTLED_FILES.get(FileKey { inode, device, reserved: 0 }) }.is_some() {
        return None;
    }
    send_mapped(&MappedRecord { kind: kind::MAPPED, tgid: current_ids().0, at: now() });
    Some(())
}
