//! Takes over the sockets that were open before the trace, without a gap and without a double.
//!
//! The hooks run already. The sockets are listed, announced to the kernel side, and listed again: one that is in both
//! lists was there before and is announced, so that its end will be seen. One that closed in between either was
//! announced in time, and the kernel side reports it by itself, or ended before the trace knew of it. One that is only
//! in the second list opened meanwhile, and the hooks saw it.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use aya::{Ebpf, maps::HashMap};
use tracer_ebpf::adopted;

use super::{open_sockets, selection::Selection};
use crate::stage::event::OpenSocket;

/// What was found.
#[derive(Default)]
pub struct Adoption {
    /// Sockets that the trace follows from here on.
    pub sockets: Vec<OpenSocket>,
    /// What could not be looked at, in words for the user.
    pub limitations: Vec<String>,
    /// Sockets for which the kernel side had no room.
    pub left_out: u64,
}

/// Adopts the open sockets of the selected processes.
///
/// # Errors
/// If the kernel side's map cannot be reached.
pub fn adopt(ebpf: &mut Ebpf, selection: &Selection) -> Result<Adoption> {
    let pids = selection.present();
    let before = open_sockets::snapshot(pids.as_deref());
    let candidates: Vec<_> = before.sockets.into_iter().filter(|socket| selection.admits(socket)).collect();
    if candidates.is_empty() {
        return Ok(Adoption { limitations: before.limitations, ..Adoption::default() });
    }
    let (announced, left_out) = announce(ebpf, &candidates)?;
    let after = open_sockets::snapshot(pids.as_deref());
    let sockets = after.sockets.into_iter().filter(|socket| announced.contains(&socket.cookie)).collect();
    Ok(Adoption { sockets, limitations: before.limitations, left_out })
}

/// Tells the kernel side whose sockets these are. Returns the cookies it took, and how many it had no room for.
fn announce(ebpf: &mut Ebpf, sockets: &[OpenSocket]) -> Result<(HashSet<u64>, u64)> {
    let map = ebpf.map_mut("ADOPTED").context("the BPF object has no map ADOPTED")?;
    let mut map = HashMap::<_, u64, u64>::try_from(map)?;
    let mut announced = HashSet::with_capacity(sockets.len());
    let mut left_out = 0;
    for socket in sockets {
        match map.insert(socket.cookie, adopted::pack(socket.pid, socket.role), 0) {
            Ok(()) => drop(announced.insert(socket.cookie)),
            Err(_) => left_out += 1,
        }
    }
    Ok((announced, left_out))
}
