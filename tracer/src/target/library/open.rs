//! Opening the very file that is mapped, not another one that has its path now.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use rustix::{
    fs::{Dev, FileType, Mode, OFlags, ResolveFlags, fstat, major, open as open_path, openat2},
    io::Errno,
};
use thiserror::Error;

use super::maps::{self, Mapping};
use crate::{
    rights::{advice, table},
    unchecked,
};

/// Why a mapped file cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It is not mapped any more: the process has ended, or let go of it.
    #[error("is not mapped any more")]
    Gone,
    /// It is mapped, but cannot be had.
    #[error("cannot be opened: {0}")]
    Failed(io::Error),
    /// Its path leads to nothing or to another file, as after an upgrade, and the kernel does not let us take it from the
    /// process.
    #[error("was deleted or replaced while in use")]
    Replaced,
}

impl OpenError {
    /// What to tell the user, and how to get the right that may be missing.
    pub fn advised(&self) -> String {
        let feature = match self {
            Self::Replaced => &table::REPLACED,
            Self::Failed(error) if error.kind() == io::ErrorKind::PermissionDenied => &table::OWNERS,
            _ => return self.to_string(),
        };
        format!("{self} ({})", advice::how_to_get(feature))
    }
}

/// Opens the file of a process's mapping to read it.
///
/// # Errors
/// If it is gone, or neither the process's list of mapped files nor a path gives it.
pub fn open(pid: u32, mapping: &Mapping) -> Result<File, OpenError> {
    let addresses = &mapping.addresses;
    match File::open(format!("/proc/{pid}/map_files/{:x}-{:x}", addresses.start, addresses.end)) {
        Ok(file) => Ok(file),
        Err(error) if is(&error, Errno::NOENT) || is(&error, Errno::SRCH) => Err(OpenError::Gone),
        Err(error) if is(&error, Errno::PERM) || is(&error, Errno::ACCESS) => open_by_path(pid, mapping),
        Err(error) => Err(OpenError::Failed(error)),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// By the paths as the process sees them, as we see them (what changed its root is listed by our paths), and the executable
/// by the process itself, which also works when it was deleted.
fn open_by_path(pid: u32, mapping: &Mapping) -> Result<File, OpenError> {
    let mut refused = None;
    let root =
        open_path(format!("/proc/{pid}/root"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut candidates = Vec::new();
    for path in mapping.paths() {
        candidates.push(root.as_ref().map_err(|errno| *errno).and_then(|root| open_below(root, &path)));
        candidates.push(locate(&path));
    }
    candidates.push(locate(Path::new(&format!("/proc/{pid}/exe"))));
    for candidate in candidates {
        match candidate.map_err(io::Error::from).and_then(|found| reopen_if_mapped(&found, mapping)) {
            Ok(Some(file)) => return Ok(file),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = Some(error),
            Err(_) => {}
        }
    }
    Err(refused.map_or(OpenError::Replaced, OpenError::Failed))
}

/// Only finds the file: opening a pipe would wait, and opening a device may act.
fn locate(path: &Path) -> Result<OwnedFd, Errno> {
    open_path(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Symbolic links lead to where the process would get by them.
fn open_below(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn reopen_if_mapped(found: &OwnedFd, mapping: &Mapping) -> io::Result<Option<File>> {
    let stat = fstat(found)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Ok(None);
    }
    let own = format!("/proc/self/fd/{}", found.as_raw_fd());
    let file = File::open(own)?;
    Ok(is_of(&file, mapping)?.then_some(file))
}

/// Whether a mapping is of this file. Where `stat` gives another device or inode number than the list of mappings (btrfs,
/// overlayfs), the file is mapped here and looked up in our own list.
fn is_of(file: &File, mapping: &Mapping) -> io::Result<bool> {
    let stat = file.metadata()?;
    if (stat.dev(), stat.ino()) == (mapping.device, mapping.inode) {
        return Ok(true);
    }
    if major(mapping.device) != 0 && major(stat.dev()) != 0 {
        // Both are disks, which have one name for all.
        return Ok(false);
    }
    Ok(name_when_mapped(file)? == Some((mapping.device, mapping.inode)))
}

fn name_when_mapped(file: &File) -> io::Result<Option<(Dev, u64)>> {
    unchecked::while_mapped(file, maps::own_file_at)?
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::PathBuf,
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// A copy of a program that waits, in a folder of its own, and its process.
    struct Waiting {
        folder: PathBuf,
        child: Child,
    }

    impl Waiting {
        fn start(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("conntracer-open-{}-{name}", std::process::id()));
            fs::create_dir_all(&folder).expect("a folder");
            let program = folder.join(name);
            fs::copy("/bin/cat", &program).expect("copied");
            let mut child =
                Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
            // It has got to its work when it gives back what it was given.
            io::Write::write_all(child.stdin.as_mut().expect("piped"), b"x").expect("written");
            io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut [0]).expect("read");
            Self { folder, child }
        }

        fn program(&self) -> PathBuf {
            self.folder.join(self.folder.file_name().and_then(|name| name.to_str()?.rsplit('-').next()).expect("named"))
        }

        /// The mapping of a file whose name begins so.
        fn mapping(&self, name: &str) -> Mapping {
            let mut listed = maps::executable(self.child.id()).expect("readable").into_iter();
            listed.find(|mapping| mapping.name().contains(name)).expect("it is mapped")
        }
    }

    impl Drop for Waiting {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    fn inode(file: &File) -> u64 {
        file.metadata().expect("readable").ino()
    }

    #[test]
    fn a_file_is_found_by_its_path_however_odd() {
        for name in ["plain", "a b", "a\nb", r"a\012b", "a (deleted)"] {
            let waiting = Waiting::start(name);
            let mapping = waiting.mapping("conntracer-open");
            let found = open_by_path(waiting.child.id(), &mapping).expect("found");
            assert_eq!(inode(&found), mapping.inode, "{name:?}");
            let libc = waiting.mapping("libc");
            assert_eq!(inode(&open_by_path(waiting.child.id(), &libc).expect("found")), libc.inode);
        }
    }

    #[test]
    fn an_executable_that_was_deleted_or_replaced_is_taken_from_its_process() {
        let waiting = Waiting::start("upgraded");
        fs::rename(waiting.program(), waiting.folder.join("old")).expect("renamed");
        fs::copy("/bin/sleep", waiting.program()).expect("another program");
        fs::remove_file(waiting.folder.join("old")).expect("deleted");
        let mapping = waiting.mapping("conntracer-open");
        for found in [open_by_path(waiting.child.id(), &mapping), open(waiting.child.id(), &mapping)] {
            assert_eq!(inode(&found.expect("found")), mapping.inode);
        }
    }

    #[test]
    fn another_file_at_the_path_is_not_taken_for_the_one_that_is_mapped() {
        let waiting = Waiting::start("other");
        let mut mapping = waiting.mapping("conntracer-open");
        mapping.inode = u64::MAX;
        let found = open_by_path(waiting.child.id(), &mapping);
        assert!(matches!(found, Err(OpenError::Replaced)), "{found:?}");
    }

    #[test]
    fn a_pipe_at_the_path_is_not_waited_for() {
        let waiting = Waiting::start("pipe");
        let mut mapping = waiting.mapping("conntracer-open");
        mapping.inode = u64::MAX;
        fs::remove_file(waiting.program()).expect("deleted");
        assert!(Command::new("mkfifo").arg(waiting.program()).status().expect("mkfifo runs").success());
        let found = open_by_path(waiting.child.id(), &mapping);
        assert!(matches!(found, Err(OpenError::Replaced)), "{found:?}");
    }

    #[test]
    fn what_is_not_mapped_any_more_is_gone() {
        let mapping = Waiting::start("gone").mapping("conntracer-open");
        let found = open(std::process::id(), &mapping);
        assert!(matches!(found, Err(OpenError::Gone)), "{found:?}");
    }

    #[test]
    fn the_name_of_a_file_when_mapped_is_that_in_the_list_of_mappings() {
        let exe = fs::canonicalize("/proc/self/exe").expect("readable");
        let listed = maps::executable(std::process::id()).expect("readable");
        let mapping = listed.iter().find(|mapping| Path::new(&mapping.name()) == exe).expect("listed");
        let file = File::open(exe).expect("readable");
        assert_eq!(name_when_mapped(&file).expect("mapped"), Some((mapping.device, mapping.inode)));
        assert!(is_of(&file, mapping).expect("readable"));
        let other = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).expect("readable");
        assert!(!is_of(&other, mapping).expect("readable"));
    }
}
