//! The hooks that only detail `exchanges` has. They can be taken off and put back while the rest goes on.

use std::any::Any;

use anyhow::Result;
use aya::{Btf, Ebpf};

use super::{
    detaching::Detaching,
    hooks::{Attach, Program},
    load::{attach, kernel_types, reload},
};
use crate::kernel::btf;

/// A link of whatever kind; dropping it detaches its program.
pub type Link = Box<dyn Any + Send>;

/// The programs of those hooks, in the order in which they go on.
#[derive(Default)]
pub struct DetailHooks {
    programs: Vec<Program>,
    links: Vec<Link>,
    /// Those that are no longer wanted.
    going: Detaching,
}

impl DetailHooks {
    /// Attaches a hook's program, and keeps it to be detached.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn add(&mut self, ebpf: &mut Ebpf, program: Program) -> Result<()> {
        self.links.push(attach(ebpf, program)?);
        self.programs.push(program);
        Ok(())
    }

    /// Takes them off, beside what goes on.
    pub fn take_off(&mut self) {
        let links = std::mem::take(&mut self.links);
        self.going.begin(move || drop(links));
    }

    /// Puts back those that are off, once all are.
    ///
    /// # Errors
    /// If the kernel refuses one that it has taken before; then none is on.
    pub fn put_back(&mut self, ebpf: &mut Ebpf) -> Result<()> {
        if !self.links.is_empty() {
            return Ok(());
        }
        self.going.wait();
        let mut types = None;
        let links: Result<Vec<_>> =
            self.programs.iter().map(|program| attach_again(ebpf, &mut types, *program)).collect();
        self.links = links?;
        Ok(())
    }

    /// Whether a probe of them, if there is one, can be attached with the rights that are in effect: the kernel asks for others than for
    /// typed programs.
    pub fn probes_can_be_attached(&self, ebpf: &mut Ebpf) -> bool {
        let is_probe = |program: &&Program| matches!(program.attach, Attach::Kprobe(_) | Attach::Kretprobe(_));
        self.programs.iter().find(is_probe).is_none_or(|probe| attach(ebpf, *probe).is_ok())
    }
}

/// Attaches a program that was attached before. Kernels before 5.13 take a typed one once only, and then anew (`ENOENT` in
/// `bpf_tracing_prog_attach`); the kernel's `types` are read for the first of these.
fn attach_again(ebpf: &mut Ebpf, types: &mut Option<Btf>, program: Program) -> Result<Link> {
    attach(ebpf, program).or_else(|_| {
        let types = match types {
            Some(types) => types,
            None => types.insert(kernel_types(&btf::Btf::of_running_kernel()?)?),
        };
        reload(ebpf, types, program)?;
        attach(ebpf, program)
    })
}
