//! Which processes the kernel side takes for targets: the map TARGETS. Its hooks add children and take off what ends; this
//! side adds what is there as the trace begins, and takes off what ended before the hooks were there to see it.

use std::borrow::BorrowMut;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use tracer_ebpf::target;

use super::{pid_namespace, process, selection::Selection};

const NO_MAP: &str = "the BPF object has no map TARGETS";

/// Marks the selected processes that exist now.
///
/// # Errors
/// If there is no room for all, or the map cannot be reached.
pub fn mark(ebpf: &mut Ebpf, selection: &Selection) -> Result<()> {
    let mut map = targets(ebpf)?;
    let key = |pid| pid_namespace::key(&selection.config(), pid);
    for pid in selection.present().unwrap_or_default() {
        map.insert(key(pid), target::TRACED | target::FOLLOWED, 0).context("too many processes to trace at once")?;
    }
    if selection.begins_with_our_children() {
        map.insert(key(std::process::id()), target::FOLLOWED, 0)?;
    }
    Ok(())
}

/// Takes off the marks of processes that have ended. Asked once the hooks are in place: what ends later takes off its own, and
/// whose end has begun counts as ended, for the hook may have run already.
///
/// # Errors
/// If the map cannot be reached.
pub fn forget_ended(ebpf: &mut Ebpf, selection: &Selection) -> Result<()> {
    let mut map = targets(ebpf)?;
    let marked = map.keys().collect::<Result<Vec<_>, _>>()?;
    let has_ended = |key: &u32| pid_namespace::number(&selection.config(), *key).is_some_and(process::has_ended);
    for key in marked.into_iter().filter(has_ended) {
        // The hook may have been quicker.
        let _ = map.remove(&key);
    }
    Ok(())
}

/// Whether the kernel lets this process look into the map: it may ask for a right.
pub fn can_be_read(ebpf: &mut Ebpf) -> bool {
    targets(ebpf).is_ok_and(|map| !matches!(map.keys().next(), Some(Err(_))))
}

/// Answers again and again whether any target is left. To find any key the kernel looks through a table of thousands of empty
/// places; to find one that is known, at one.
#[derive(Default)]
pub struct Left {
    known: Option<u32>,
}

impl Left {
    /// Whether a target is left, or a process whose children would be targets.
    ///
    /// # Errors
    /// If the map cannot be reached.
    pub fn is_any(&mut self, ebpf: &Ebpf) -> Result<bool> {
        let map = ebpf.map("TARGETS").context(NO_MAP)?;
        let map = HashMap::<_, u32, u32>::try_from(map)?;
        if self.known.is_some_and(|pid| map.get(&pid, 0).is_ok()) {
            return Ok(true);
        }
        let any = map.keys().next();
        self.known = any.as_ref().and_then(|pid| pid.as_ref().ok()).copied();
        Ok(any.is_some())
    }
}

fn targets(ebpf: &mut Ebpf) -> Result<HashMap<impl BorrowMut<MapData>, u32, u32>> {
    Ok(HashMap::try_from(ebpf.map_mut("TARGETS").context(NO_MAP)?)?)
}
