//! Which file a mapping is of.
//!
//! Probes go on a file's code, not on a process: two mappings of one file must be known as such, and two files never taken
//! for one. Device and inode number, as `/proc/PID/maps` tells them, do for most filesystems. On btrfs each subvolume counts
//! its inodes by itself, but only `stat` tells the subvolume. On overlayfs, since Linux 6.7, each mount is a device of its own,
//! though containers of one image share their files; there the inode number and the time of its last change, to the
//! nanosecond, stand for the file below. (Kernels before 6.13 round that time to a tick: if two containers change their copies
//! of one file in the same tick, the copies are taken for one.)

use std::{fs::File, io, os::unix::fs::MetadataExt};

use rustix::fs::{Dev, FsWord, fstatfs, major, minor};
use tracer_ebpf::ssl::FileKey;

use super::maps::{self, Mapping};
use crate::target::process;

const BTRFS: FsWord = 0x9123_683e;
const OVERLAYFS: FsWord = 0x794c_7630;

/// A file that is in use: as long as it is mapped, no other file has the same. It is none to keep for longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    device: Dev,
    inode: u64,
    /// What tells files apart that have both in common: a subvolume, or a time.
    apart: u64,
}

impl FileId {
    /// Of a mapping whose filesystem needs no closer look; `None` if it does.
    pub fn plain(mapping: &Mapping) -> Option<Self> {
        (major(mapping.device) != 0).then_some(Self::blurred(mapping))
    }

    /// Of a mapping whose file cannot be looked at.
    pub fn blurred(mapping: &Mapping) -> Self {
        Self { device: mapping.device, inode: mapping.inode, apart: 0 }
    }

    /// As the kernel side names it. `None` where it may see another inode than `/proc` tells.
    pub fn kernel_key(&self) -> Option<FileKey> {
        (major(self.device) != 0).then(|| FileKey {
            inode: self.inode,
            device: major(self.device) << 20 | minor(self.device),
            reserved: 0,
        })
    }

    /// Whether any process of this machine maps it as code. Only of a file that needs no closer look, see [`FileId::plain`].
    pub fn is_mapped_by_any(&self) -> bool {
        let mappings = process::all().into_iter().filter_map(|pid| maps::executable(pid).ok()).flatten();
        mappings.into_iter().any(|mapping| Self::plain(&mapping) == Some(*self))
    }

    /// Of a mapping and its file.
    ///
    /// # Errors
    /// If the file's filesystem does not answer.
    pub fn of(mapping: &Mapping, file: &File) -> io::Result<Self> {
        let stat = file.metadata()?;
        Ok(match fstatfs(file)?.f_type {
            BTRFS => Self { apart: stat.dev(), ..Self::blurred(mapping) },
            OVERLAYFS => Self { device: 0, inode: stat.ino(), apart: nanoseconds(&stat) },
            _ => Self::blurred(mapping),
        })
    }
}

/// Of the last change of a file or its inode, since 1970. It wraps around in a few hundred years, which still tells apart.
fn nanoseconds(stat: &std::fs::Metadata) -> u64 {
    stat.ctime().wrapping_mul(1_000_000_000).wrapping_add(stat.ctime_nsec()) as u64
}
