//! The hooks that only detail `exchanges` has. They can be taken off and put back while the rest goes on.

use std::any::Any;

use anyhow::Result;
use aya::Ebpf;

use super::{hooks::Program, load::attach};

/// A link of whatever kind; dropping it detaches its program.
pub type Link = Box<dyn Any>;

/// The programs of those hooks, in the order in which they go on.
#[derive(Default)]
pub struct DetailHooks {
    programs: Vec<Program>,
    links: Vec<Link>,
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

    /// Takes them off.
    pub fn take_off(&mut self) {
        self.links.clear();
    }

    /// Puts back those that are off.
    ///
    /// # Errors
    /// If the kernel refuses one that it has taken before; then none is on.
    pub fn put_back(&mut self, ebpf: &mut Ebpf) -> Result<()> {
        if !self.links.is_empty() {
            return Ok(());
        }
        let links: Result<Vec<_>> = self.programs.iter().map(|program| attach(ebpf, *program)).collect();
        self.links = links?;
        Ok(())
    }
}
