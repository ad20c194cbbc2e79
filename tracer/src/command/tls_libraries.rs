//! The TLS and C libraries of a trace under way: finds those of its processes, and puts probes on them.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use tracer_ebpf::ssl::FileKey;

use super::talk;
use crate::{
    bpf::library_probes::LibraryProbes,
    rights::{advice, table},
    target::{
        library::{FileId, Kind, Libraries, Library},
        process,
    },
};

/// How long probes stay on a library that nobody uses. A shell starts one short process after the other, and each would be
/// through with its first calls before the probes were back.
const STAY: Duration = Duration::from_secs(60);

/// Libraries and probes.
pub struct TlsLibraries {
    libraries: Rc<RefCell<Libraries>>,
    probes: LibraryProbes,
    /// Libraries that nobody uses, and since when, the longest first.
    unused: VecDeque<(Instant, Rc<Library>)>,
    /// No probes are wanted for now.
    paused: bool,
}

impl TlsLibraries {
    /// Loads the programs; see [`LibraryProbes::load`].
    ///
    /// # Errors
    /// Likewise.
    pub fn load(ebpf: &mut Ebpf, heads: bool, numbers: bool) -> Result<Self> {
        let probes = LibraryProbes::load(ebpf, heads, numbers)?;
        Ok(Self { libraries: Rc::default(), probes, unused: VecDeque::new(), paused: false })
    }

    /// The libraries, for who names them.
    pub fn shared(&self) -> Rc<RefCell<Libraries>> {
        Rc::clone(&self.libraries)
    }

    /// Looks at processes that have begun, or have mapped code since they were looked at. What cannot be probed is told once, and
    /// is seen on the wire only.
    ///
    /// # Errors
    /// If the maps of the kernel side cannot be reached.
    pub fn look_at(&mut self, ebpf: &mut Ebpf, pids: impl IntoIterator<Item = u32>) -> Result<()> {
        let Self { libraries, probes, .. } = self;
        let mut libraries = libraries.borrow_mut();
        if self.paused {
            return Ok(());
        }
        for pid in pids {
            put_all_on(probes, ebpf, libraries.examine(pid));
        }
        // By now the probes are in place.
        let mut settled = settled(ebpf)?;
        for key in libraries.take_settled().iter().filter_map(kernel_key) {
            settled.insert(key, 1, 0)?;
        }
        for unreadable in libraries.take_unreadable() {
            talk(&format!("{}: {}; a TLS library in it is not seen", unreadable.name, unreadable.why));
        }
        Ok(())
    }

    /// Takes all probes off until [`TlsLibraries::resume`].
    pub fn pause(&mut self) {
        self.paused = true;
        self.probes.take_all_off();
    }

    /// Puts the probes back on the libraries that are known. Processes that have begun since are to be looked at.
    pub fn resume(&mut self, ebpf: &mut Ebpf) {
        self.paused = false;
        let known = self.libraries.borrow().in_use().map(Rc::clone).collect();
        put_all_on(&mut self.probes, ebpf, known);
    }

    /// Forgets processes that have ended, and takes the probes off libraries that nobody has used for a while.
    ///
    /// # Errors
    /// If the maps of the kernel side cannot be reached.
    pub fn forget(&mut self, ebpf: &mut Ebpf, pids: impl IntoIterator<Item = u32>) -> Result<()> {
        let Self { libraries, probes, unused, .. } = self;
        let mut libraries = libraries.borrow_mut();
        // Of a process with several threads each tells its end.
        pids.into_iter().filter(|pid| process::has_ended(*pid)).for_each(|pid| libraries.forget(pid));
        let now = Instant::now();
        unused.extend(libraries.take_released().into_iter().map(|library| (now, library)));
        while let Some((_, library)) = unused.pop_front_if(|(since, _)| now.duration_since(*since) >= STAY) {
            // One that was used again meanwhile stands here again, further behind.
            let was_used_again = unused.iter().any(|(_, later)| later.id == library.id);
            if was_used_again || libraries.in_use().any(|used| used.id == library.id) {
                continue;
            }
            if is_used_unseen(ebpf, &library)? {
                unused.push_back((now, library));
            } else {
                probes.take_off(&library);
            }
        }
        Ok(())
    }
}

/// Puts probes on libraries; says which cannot have any.
fn put_all_on(probes: &mut LibraryProbes, ebpf: &mut Ebpf, mut found: Vec<Rc<Library>>) {
    // What tells the records of a call comes behind what tells the calls.
    found.sort_by_key(|library| library.kind == Kind::Crypto);
    for library in found {
        if let Err(error) = probes.put_on(ebpf, &library) {
            let advice = advice::if_refused(&error, &table::PROBES);
            let left = match library.kind {
                Kind::Libc => "; its lookups are seen on port 53 only",
                _ => "; its TLS is seen on the wire only",
            };
            talk(&format!("{}: {error:#}{advice}{left}", library.name));
        }
    }
}

/// Whether there are users of a library of whom the kernel side did not tell. If not, it tells of the next.
fn is_used_unseen(ebpf: &mut Ebpf, library: &Library) -> Result<bool> {
    let Some(key) = kernel_key(&library.id).filter(|_| library.is_settled()) else { return Ok(false) };
    let mut settled = settled(ebpf)?;
    // Before the look, or one that begins now would be missed. It may be missing: the map forgets what is unused for longest, and of
    // a file that holds a TLS library too the kernel side always tells.
    let was_settled = settled.remove(&key).is_ok();
    let is_used = library.id.is_mapped_by_any();
    if is_used && was_settled {
        settled.insert(key, 1, 0)?;
    }
    Ok(is_used)
}

/// A file as the kernel side has it for a key.
type Key = [u8; size_of::<FileKey>()];

fn kernel_key(file: &FileId) -> Option<Key> {
    file.kernel_key().map(|key| zerocopy::transmute!(key))
}

/// The files of which the kernel side need not tell any more.
fn settled(ebpf: &mut Ebpf) -> Result<HashMap<&mut MapData, Key, u8>> {
    let map = ebpf.map_mut("SETTLED_FILES").context("the BPF object has no map SETTLED_FILES")?;
    Ok(HashMap::try_from(map)?)
}
