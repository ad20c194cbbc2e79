//! The hooks that only detail `exchanges` has. They can be taken off and put back while the rest goes on.

use std::{
    any::Any,
    thread::{self, JoinHandle},
};

use anyhow::Result;
use aya::Ebpf;

use super::{
    hooks::{Attach, Program},
    load::{attach, reload},
};

/// A link of whatever kind; dropping it detaches its program.
pub type Link = Box<dyn Any + Send>;

/// The programs of those hooks, in the order in which they go on.
#[derive(Default)]
pub struct DetailHooks {
    programs: Vec<Program>,
    links: Vec<Link>,
    /// Takes off what is no longer wanted.
    going: Option<JoinHandle<()>>,
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

    /// Takes them off, beside what goes on: the kernel waits for whoever is in a hook, seconds in all on a busy machine, and its buffers
    /// have to be emptied meanwhile.
    pub fn take_off(&mut self) {
        let links = std::mem::take(&mut self.links);
        // Without a thread they go with this call.
        self.going = thread::Builder::new().name("detach".to_owned()).spawn(move || drop(links)).ok();
    }

    /// Puts back those that are off, once all are.
    ///
    /// # Errors
    /// If the kernel refuses one that it has taken before; then none is on.
    pub fn put_back(&mut self, ebpf: &mut Ebpf) -> Result<()> {
        if !self.links.is_empty() {
            return Ok(());
        }
        self.await_gone();
        let links: Result<Vec<_>> = self.programs.iter().map(|program| attach_again(ebpf, *program)).collect();
        self.links = links?;
        Ok(())
    }

    /// Whether a probe of them, if there is one, can be attached with the rights that are in effect: the kernel asks for others than for
    /// typed programs.
    pub fn probes_can_be_attached(&self, ebpf: &mut Ebpf) -> bool {
        let is_probe = |program: &&Program| matches!(program.attach, Attach::Kprobe(_) | Attach::Kretprobe(_));
        self.programs.iter().find(is_probe).is_none_or(|probe| attach(ebpf, *probe).is_ok())
    }

    fn await_gone(&mut self) {
        if let Some(going) = self.going.take() {
            // It only drops links, and a panic there would leave them dropped as well.
            let _ = going.join();
        }
    }
}

impl Drop for DetailHooks {
    /// Nothing is attached any more when this is gone.
    fn drop(&mut self) {
        self.links.clear();
        self.await_gone();
    }
}

/// Attaches a program that was attached before. Kernels before 5.13 take a typed one once only, and then anew (`ENOENT` in
/// `bpf_tracing_prog_attach`).
fn attach_again(ebpf: &mut Ebpf, program: Program) -> Result<Link> {
    attach(ebpf, program).or_else(|_| {
        reload(ebpf, program)?;
        attach(ebpf, program)
    })
}
