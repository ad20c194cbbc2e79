//! What the kernel side lost, by cause.

use std::{
    fs::File,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::FileExt as _,
    },
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData, PerCpuArray},
    programs::Program,
};
use tracer_ebpf::{KEPT_LEN, Loss, SocketRecord};

use super::hooks::{HOOKS, Part};

/// Counters that are losses, with their words in the output.
const CAUSES: &[(Loss, &str)] = &[
    (Loss::RingFull, "ring_full"),
    (Loss::NoRecord, "no_record"),
    (Loss::BadRead, "bad_read"),
    (Loss::TargetsFull, "targets_full"),
    (Loss::ExchangeRingFull, "exchange_ring_full"),
    (Loss::UnreadablePayload, "unreadable_payload"),
    (Loss::CallMissed, "call_missed"),
    (Loss::AmbiguousSession, "ambiguous_session"),
];

/// The kernel lets no program interrupt itself on one processor: a hook that fires in an interrupt, or after a preemption,
/// while all of its programs are at work there is skipped. It counts that (5.12 on; for kprobes 6.7 on).
const SKIPPED: &str = "hook_skipped";

/// Reads the kernel side's counters and tells what is new.
pub struct Losses {
    counters: PerCpuArray<MapData, u64>,
    reported: [u64; CAUSES.len()],
    /// Where the kernel tells how often it skipped each first program.
    infos: Vec<File>,
    /// Runs of first programs that had been skipped at the last look.
    skipped: u64,
    skipped_reported: u64,
}

impl Losses {
    /// Takes the counters' map. The programs must be loaded.
    ///
    /// # Errors
    /// If the object has no such map.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self> {
        let map = ebpf.take_map("LOSSES").context("the BPF object has no map LOSSES")?;
        // That a further program was skipped itself means nothing: one before it ran then, or the first one's count tells.
        let counting = ebpf.programs().filter(|(name, _)| is_first(name));
        Ok(Self {
            counters: PerCpuArray::try_from(map)?,
            reported: [0; CAUSES.len()],
            infos: counting.filter_map(|(_, program)| info(program)).collect(),
            skipped: 0,
            skipped_reported: 0,
        })
    }

    /// Causes and counts since the last call.
    ///
    /// # Errors
    /// If the kernel refuses to read the map.
    pub fn new_losses(&mut self) -> Result<Vec<(&'static str, u64)>> {
        let mut news = Vec::new();
        for ((cause, word), reported) in CAUSES.iter().zip(&mut self.reported) {
            let total = total(&self.counters, *cause)?;
            if total > *reported {
                news.push((*word, total - *reported));
                *reported = total;
            }
        }
        Ok(news)
    }

    /// Events that all programs of their hook were skipped for, since the last call. Dearer to ask than the counters. The
    /// programs must still be loaded.
    ///
    /// While hooks run, those that the first program was skipped for just now may still be served, so only what was skipped
    /// at the last call is held against what has been served by now; at the end (`is_end`) all of it is.
    ///
    /// # Errors
    /// If the kernel refuses to read the map.
    pub fn new_skipped(&mut self, _loaded: &Ebpf, is_end: bool) -> Result<(&'static str, u64)> {
        let skipped = self.infos.iter().filter_map(skipped_runs).sum();
        // After the skipped, so that nothing has been skipped unnoticed that is counted as served.
        let served = total(&self.counters, Loss::SkippedAndServed)?;
        let skipped_before = std::mem::replace(&mut self.skipped, skipped);
        let due = if is_end { skipped } else { skipped_before };
        let news = due.saturating_sub(served).saturating_sub(self.skipped_reported);
        self.skipped_reported += news;
        Ok((SKIPPED, news))
    }

    /// Records that the LRU hash threw out to make room: made, less deleted, less those still there.
    ///
    /// # Errors
    /// If the kernel refuses to read the maps.
    pub fn evicted(&self, ebpf: &Ebpf) -> Result<u64> {
        // One of the two is in use, the other is empty.
        let present = keys::<{ size_of::<SocketRecord>() }>(ebpf, "SOCKETS_LRU")?
            + keys::<KEPT_LEN>(ebpf, "SOCKETS_LRU_DETAILED")?;
        let made = total(&self.counters, Loss::LruInserted)?;
        let deleted = total(&self.counters, Loss::LruDeleted)?;
        Ok(made.saturating_sub(deleted).saturating_sub(present))
    }
}

/// Number of keys in a hash.
fn keys<const VALUE_LEN: usize>(ebpf: &Ebpf, name: &str) -> Result<u64> {
    let map = ebpf.map(name).with_context(|| format!("the BPF object has no map {name}"))?;
    let records = HashMap::<_, u64, [u8; VALUE_LEN]>::try_from(map)?;
    Ok(records.keys().filter(Result::is_ok).count() as u64)
}

/// Whether a program is the first of its hook, rather than one that serves what others were skipped for.
fn is_first(name: &str) -> bool {
    let mut programs = HOOKS.iter().flat_map(|spec| spec.choices.iter().copied().flatten());
    programs.any(|program| program.name == name && program.part == Part::First)
}

/// What the kernel tells about a loaded program. Opened once, and read again and again: opening costs more than reading.
fn info(program: &Program) -> Option<File> {
    let number = program.fd().ok()?.as_fd().as_raw_fd();
    File::open(format!("/proc/self/fdinfo/{number}")).ok()
}

/// How often the kernel skipped a program; `None` if it does not tell.
fn skipped_runs(info: &File) -> Option<u64> {
    // About 300 bytes on the kernel with the most to tell.
    let mut text = [0; 1024];
    let length = info.read_at(&mut text, 0).ok()?;
    let text = str::from_utf8(text.get(..length)?).ok()?;
    let count = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?;
    count.trim().parse().ok()
}

fn total(counters: &PerCpuArray<MapData, u64>, cause: Loss) -> Result<u64> {
    let slots = counters.get(&(cause as u32), 0).with_context(|| format!("cannot read the loss counter {cause:?}"))?;
    Ok(slots.iter().sum())
}
