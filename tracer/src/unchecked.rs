//! All unsafe code of this crate: what the compiler cannot check, each with the reason why it holds. Elsewhere it refuses such code.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use aya::maps::{MapData, RingBuf};
use memmap2::MmapRaw;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use tokio::io::{Interest, unix::AsyncFd};

/// A ring buffer that can be waited for.
///
/// # Errors
/// If it cannot be polled.
pub fn polled_ring(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring buffer owns its one descriptor and closes it when it is dropped, inside the AsyncFd.
    Ok(unsafe { AsyncFd::register(ring) }?)
}

/// A descriptor that can be waited for until it can be read.
///
/// # Errors
/// If it cannot be polled.
pub fn polled(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, and closed only when it is dropped, inside the AsyncFd.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// The word at this offset of memory that the kernel or another process may write to; ordered before all that is read after it.
///
/// # Panics
/// If the word is not wholly within the memory, or not where words are.
pub fn shared_word(memory: &MmapRaw, offset: usize) -> usize {
    let size = size_of::<AtomicUsize>();
    assert!(offset.is_multiple_of(size) && offset.checked_add(size).is_some_and(|end| end <= memory.len()));
    // SAFETY: it is within the mapping, which is page-aligned and lives as long as the reference. Who else writes to it does so at once.
    let word = unsafe { AtomicUsize::from_ptr(memory.as_mut_ptr().add(offset).cast()) };
    word.load(Ordering::Acquire)
}

/// Maps the first page of a file for as long as `look` takes, and hands it the page's address. Nothing is read from it.
///
/// # Errors
/// If the file cannot be mapped.
pub fn while_mapped<T>(file: &File, look: impl FnOnce(u64) -> T) -> io::Result<T> {
    /// Pages are at least this large.
    const PAGE: usize = 4096;
    // SAFETY: a new mapping at a place that the kernel chooses; nothing is read from it or written to it.
    let start = unsafe { mmap(ptr::null_mut(), PAGE, ProtFlags::READ, MapFlags::PRIVATE, file.as_fd(), 0)? };
    let found = look(start.addr() as u64);
    // SAFETY: it is the mapping made above, of that size, and nothing refers to it.
    unsafe { munmap(start, PAGE)? };
    Ok(found)
}
