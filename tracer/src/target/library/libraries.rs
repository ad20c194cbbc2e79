//! The libraries in use: each file is read once, and kept as long as one process maps it.

use std::{
    collections::HashMap,
    fs::{File, Metadata},
    io,
    ops::Range,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt as _, MetadataExt},
    },
    path::PathBuf,
    rc::Rc,
};

use hashlink::LruCache;

use super::{
    analysis::{Analysis, Part, analyse},
    file_id::FileId,
    function::Function,
    kind::{Kind, Release},
    maps::{self, Mapping},
    open::{OpenError, open},
    returns,
};
use crate::rights::{advice, table};

/// Most processes that are followed at a time.
const PROCESSES_MAX: usize = 1 << 15;

/// Most files that one process may map, and that all of them may.
const FILES_EACH_MAX: usize = 2_048;
const FILES_MAX: usize = 1 << 16;

/// Most files whose contents are remembered in case they are used again.
const REMEMBERED_MAX: usize = 4_096;

/// Most bytes of a function that are read: those that probes go on have a few hundred.
const CODE_MAX: u64 = 1 << 16;

/// Most letters of a version.
const VERSION_MAX: usize = 32;

/// Most files about which nothing more is to be told that wait to be taken.
const SETTLED_MAX: usize = 1_024;

/// Most remarks, and most released libraries, that wait to be taken.
const REMARKS_MAX: usize = 256;
const RELEASED_MAX: usize = 4_096;

/// A TLS or C library that processes use.
#[derive(Debug)]
pub struct Library {
    /// What it is.
    pub kind: Kind,
    /// The version it states, such as `3.0.19`.
    pub version: Option<String>,
    /// Its path as the first process that was seen to use it sees it. Not to be opened: another file may be there now.
    pub name: String,
    /// Which file it is.
    pub id: FileId,
    /// A number that no other library has. From 1 on.
    pub number: u64,
    /// Its functions.
    pub functions: Vec<Function>,
    file: Rc<File>,
}

impl Library {
    /// Its name and version, such as `OpenSSL 3.0.17`. Only letters, digits and `.+-` of what the file states.
    pub fn product(&self) -> String {
        let version: String =
            self.version.iter().flat_map(|version| version.chars()).filter(is_plain).take(VERSION_MAX).collect();
        let name = self.kind.name();
        if version.is_empty() { name.to_owned() } else { format!("{name} {version}") }
    }

    /// Whether its probes serve whoever maps it, with nothing to be known of the process.
    pub fn is_settled(&self) -> bool {
        self.kind == Kind::Libc
    }

    /// The code of one of its functions. Empty if the file does not say how long it is.
    ///
    /// # Errors
    /// If the file cannot be read, or ends before.
    pub fn code(&self, function: &Function) -> io::Result<Vec<u8>> {
        let mut code = vec![0; function.size.min(CODE_MAX) as usize];
        self.file.read_exact_at(&mut code, function.offset)?;
        Ok(code)
    }

    /// Where calls of one of its functions return, see [`returns::returns`]. `None` if not all of that is known.
    pub fn returns(&self, function: &Function) -> Option<Vec<u64>> {
        let end = function.offset.checked_add(function.size.min(CODE_MAX))?;
        returns::returns(&CodeOf { file: &self.file, function }, function.offset..end)
    }

    /// A path that leads to the very file, for probes to be put on, from within this process and while this lives.
    pub fn probe_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Learns the version of the libcrypto beside it, if it is a libssl that does not know its own.
    fn is_of(&mut self, crypto: &str) {
        if let (Kind::OpenSsl { release }, None) = (&mut self.kind, &self.version)
            && release.is_some_and(|known| Release::of(crypto).is_some_and(|of| of.major == known.major))
        {
            *release = Release::of(crypto);
            self.version = Some(crypto.to_owned());
        }
    }
}

/// The code that a function is a part of.
struct CodeOf<'l> {
    file: &'l File,
    function: &'l Function,
}

impl returns::Code for CodeOf<'_> {
    fn stretch(&self) -> Range<u64> {
        let [start, end] = self.function.segment;
        start..end
    }

    fn read(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        let mut code = vec![0; length.min(CODE_MAX) as usize];
        self.file.read_exact_at(&mut code, offset).ok()?;
        Some(code)
    }
}

/// What could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The file's path as its process sees it, or that of the process in `/proc`.
    pub name: String,
    /// Why, to be read behind the name.
    pub why: String,
}

/// The libraries that processes use.
#[derive(Debug)]
pub struct Libraries {
    processes: HashMap<u32, Vec<FileId>>,
    files: HashMap<FileId, InUse>,
    remembered: LruCache<Stamp, Rc<Analysis>>,
    released: Vec<Rc<Library>>,
    settled: Vec<FileId>,
    /// Families and names of libraries that were handed out, by number.
    products: LruCache<u64, (Option<u32>, Rc<str>)>,
    last_number: u64,
    unreadable: Vec<Unreadable>,
    left_out: u64,
}

impl Default for Libraries {
    fn default() -> Self {
        Self {
            processes: HashMap::new(),
            files: HashMap::new(),
            remembered: LruCache::new(REMEMBERED_MAX),
            released: Vec::new(),
            settled: Vec::new(),
            products: LruCache::new(REMEMBERED_MAX),
            last_number: 0,
            unreadable: Vec::new(),
            left_out: 0,
        }
    }
}

/// A file that processes map.
#[derive(Debug)]
struct InUse {
    users: u32,
    /// None for most files, and for those that could not be read.
    libraries: Vec<Rc<Library>>,
}

/// A file's contents, unless somebody takes pains to hide a change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified_at: (i64, i64),
    changed_at: (i64, i64),
}

impl Libraries {
    /// Looks at what a process maps now, and returns the TLS libraries among it: new ones, and those that others use
    /// already. To be called when a process is first seen, also after a fork, and when it has executed a program or loaded
    /// a library. A process that has ended uses none.
    pub fn examine(&mut self, pid: u32) -> Vec<Rc<Library>> {
        let mappings = maps::executable(pid).unwrap_or_else(|error| {
            let error = anyhow::Error::from(error);
            let advice = advice::if_refused(&error, &table::PROCESSES);
            self.remark(format!("/proc/{pid}/maps"), format!("cannot be read: {error}{advice}"));
            Vec::new()
        });
        let is_new = !self.processes.contains_key(&pid);
        if mappings.is_empty() || (is_new && self.processes.len() >= PROCESSES_MAX) {
            self.left_out += u64::from(!mappings.is_empty());
            self.forget(pid);
            return Vec::new();
        }
        self.left_out += mappings.len().saturating_sub(FILES_EACH_MAX) as u64;
        let mut ids: Vec<_> =
            mappings.iter().take(FILES_EACH_MAX).filter_map(|mapping| self.file(pid, mapping)).collect();
        ids.sort_unstable();
        ids.dedup();
        self.name_versions(&ids);
        let mut libraries = Vec::new();
        for id in &ids {
            if let Some(file) = self.files.get_mut(id) {
                file.users += 1;
                libraries.extend(file.libraries.iter().cloned());
            }
        }
        let before = self.processes.insert(pid, ids);
        self.release(before.unwrap_or_default());
        for library in &libraries {
            self.products.insert(library.number, (library.kind.family(), library.product().into()));
        }
        libraries
    }

    /// A process has ended. Also to be called for one that was never examined.
    pub fn forget(&mut self, pid: u32) {
        let files = self.processes.remove(&pid);
        self.release(files.unwrap_or_default());
    }

    /// Forgets the processes that have ended, as far as nobody has told.
    pub fn retain(&mut self, lives: impl Fn(u32) -> bool) {
        let ended: Vec<u32> = self.processes.keys().copied().filter(|pid| !lives(*pid)).collect();
        ended.into_iter().for_each(|pid| self.forget(pid));
    }

    /// The libraries that no process uses any more since this was last called: their probes may go. One that is dropped here
    /// is closed if nobody else holds it.
    pub fn take_released(&mut self) -> Vec<Rc<Library>> {
        std::mem::take(&mut self.released)
    }

    /// Files found since this was last called that need not be told of again when other processes map them: those without a library,
    /// and C libraries, which every process maps. So not all users of a C library are known, see [`Library::is_settled`].
    pub fn take_settled(&mut self) -> Vec<FileId> {
        std::mem::take(&mut self.settled)
    }

    /// Name and version of the library with this number, if it is known. Else of that of a family (one of
    /// `tracer_ebpf::ssl::family`) that a process uses; `None` if it uses none or several, or is gone and several of the family were
    /// handed out.
    pub fn name(&mut self, pid: u32, family: u32, number: u64) -> Option<Rc<str>> {
        if let Some((_, product)) = self.products.get(&number) {
            return Some(Rc::clone(product));
        }
        if let Some(product) = self.only_product(family) {
            return Some(product);
        }
        let known = self.processes.get(&pid).map(Vec::as_slice).unwrap_or_default();
        let known = known.iter().filter_map(|id| self.files.get(id)).flat_map(|file| &file.libraries);
        let is_of_family = |library: &&Rc<Library>| library.kind.family() == Some(family);
        // It may have loaded the library since it was looked at.
        let libraries = match known.filter(is_of_family).cloned().collect::<Vec<_>>() {
            none if none.is_empty() => self.examine(pid),
            known => known,
        };
        let mut products = libraries.iter().filter(is_of_family).map(|library| library.product());
        let product = products.next()?;
        products.all(|other| other == product).then(|| product.into())
    }

    /// Name and version of a family's libraries that were handed out, if all are the same: no other has probes.
    fn only_product(&self, family: u32) -> Option<Rc<str>> {
        if self.products.len() >= REMEMBERED_MAX {
            // Some may be forgotten.
            return None;
        }
        let mut products = self.products.iter().filter(|(_, (of, _))| *of == Some(family)).map(|(_, (_, name))| name);
        let first = products.next()?;
        products.all(|other| other == first).then(|| Rc::clone(first))
    }

    /// What could not be looked at since this was last called, each file once as long as it is in use.
    pub fn take_unreadable(&mut self) -> Vec<Unreadable> {
        std::mem::take(&mut self.unreadable)
    }

    /// Processes and files that were beyond the bounds; remarks and released libraries that nobody took in time.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// All libraries in use.
    pub fn in_use(&self) -> impl Iterator<Item = &Rc<Library>> {
        self.files.values().flat_map(|file| &file.libraries)
    }

    /// From OpenSSL 3 on libssl does not state its version, but libcrypto, which is of the same, does.
    fn name_versions(&mut self, ids: &[FileId]) {
        let of = |id: &FileId| self.files.get(id).map(|file| file.libraries.as_slice()).unwrap_or_default();
        let mut cryptos = ids.iter().flat_map(of).filter(|library| library.kind == Kind::Crypto);
        let Some(version) = cryptos.find_map(|library| library.version.clone()) else { return };
        for id in ids {
            let libraries = self.files.get_mut(id).map(|file| file.libraries.as_mut_slice()).unwrap_or_default();
            // Those that were handed out already stay as they are.
            libraries.iter_mut().filter_map(Rc::get_mut).for_each(|library| library.is_of(&version));
        }
    }

    /// Makes sure that the file of a mapping is known. `None` if it is gone or beyond the bounds.
    fn file(&mut self, pid: u32, mapping: &Mapping) -> Option<FileId> {
        if let Some(id) = FileId::plain(mapping).filter(|id| self.files.contains_key(id)) {
            return Some(id);
        }
        let opened = open(pid, mapping);
        let id = match &opened {
            Err(OpenError::Gone) => return None,
            Err(_) => FileId::blurred(mapping),
            Ok(file) => FileId::of(mapping, file).unwrap_or(FileId::blurred(mapping)),
        };
        if self.files.contains_key(&id) {
            return Some(id);
        }
        if self.files.len() >= FILES_MAX {
            self.left_out += 1;
            return None;
        }
        let libraries = opened.map_err(|error| error.advised()).and_then(|file| self.libraries(id, file, mapping));
        let is_settled = libraries.as_ref().is_ok_and(|all| all.iter().all(|library| library.is_settled()));
        if is_settled && self.settled.len() < SETTLED_MAX {
            self.settled.push(id);
        }
        let libraries = libraries.unwrap_or_else(|why| {
            self.remark(mapping.name(), why);
            Vec::new()
        });
        self.files.insert(id, InUse { users: 0, libraries });
        Some(id)
    }

    fn libraries(&mut self, id: FileId, file: File, mapping: &Mapping) -> Result<Vec<Rc<Library>>, String> {
        let analysis = self.analysis(&file)?;
        let file = Rc::new(file);
        let library = |part: &Part| {
            let Part { kind, version, functions } = part.clone();
            self.last_number += 1;
            let number = self.last_number;
            Rc::new(Library { kind, version, name: mapping.name(), id, number, functions, file: Rc::clone(&file) })
        };
        Ok(analysis.parts.iter().map(library).collect())
    }

    /// What was in the file when it was last used, if it is the same still.
    fn analysis(&mut self, file: &File) -> Result<Rc<Analysis>, String> {
        let stamp = Stamp::of(&file.metadata().map_err(|error| unread(&error))?);
        if let Some(known) = self.remembered.get(&stamp) {
            return Ok(Rc::clone(known));
        }
        let analysis = Rc::new(analyse(file).map_err(|damage| damage.to_string())?);
        self.remembered.insert(stamp, Rc::clone(&analysis));
        Ok(analysis)
    }

    fn release(&mut self, files: Vec<FileId>) {
        for id in files {
            let Some(file) = self.files.get_mut(&id) else { continue };
            file.users -= 1;
            if file.users == 0 {
                let libraries = self.files.remove(&id).map(|file| file.libraries).unwrap_or_default();
                let kept = libraries.len().min(RELEASED_MAX - self.released.len());
                self.left_out += (libraries.len() - kept) as u64;
                self.released.extend(libraries.into_iter().take(kept));
            }
        }
    }

    fn remark(&mut self, name: String, why: String) {
        if self.unreadable.len() < REMARKS_MAX {
            self.unreadable.push(Unreadable { name, why });
        } else {
            self.left_out += 1;
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified_at: (metadata.mtime(), metadata.mtime_nsec()),
            changed_at: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn is_plain(letter: &char) -> bool {
    letter.is_ascii_alphanumeric() || ".+-".contains(*letter)
}

fn unread(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}
