//! A ring buffer of the kernel side, which can be waited for and tells an item that is still being written from none.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use memmap2::{MmapOptions, MmapRaw};
use tokio::io::unix::AsyncFd;

use super::merge::{Next, Source};
use crate::unchecked;

/// The buffer.
pub struct Ring {
    items: AsyncFd<RingBuf<MapData>>,
    positions: Positions,
}

impl Ring {
    /// Takes over the object's ring buffer of this name.
    ///
    /// # Errors
    /// If there is none, or it cannot be mapped or polled.
    pub fn take(ebpf: &mut Ebpf, name: &str) -> Result<Self> {
        let map = ebpf.take_map(name).with_context(|| format!("the BPF object has no map {name}"))?;
        let ring = RingBuf::try_from(map)?;
        let positions = Positions::of(&ring)?;
        let items = unchecked::polled_ring(ring).context("cannot wait for the ring buffer")?;
        Ok(Self { items, positions })
    }

    /// Waits until the kernel side asks to be read.
    ///
    /// # Errors
    /// If the buffer cannot be polled.
    pub async fn urged(&self) -> Result<()> {
        self.items.readable().await.context("cannot wait for the ring buffer")?.clear_ready();
        Ok(())
    }
}

impl Source for Ring {
    #[inline]
    fn next<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Next<R> {
        if let Some(item) = self.items.get_mut().next() {
            return Next::Item(take(&item));
        }
        if self.positions.are_equal() {
            return Next::Empty;
        }
        // Either the item is not finished, or it came since.
        self.items.get_mut().next().map_or(Next::Blocked, |item| Next::Item(take(&item)))
    }
}

/// How far the buffer has been written and read: the first words of its first two pages (`kernel/bpf/ringbuf.c`, which maps
/// them for user space). aya reads them, and tells neither.
struct Positions {
    pages: MmapRaw,
    page: usize,
}

impl Positions {
    fn of(ring: &RingBuf<MapData>) -> Result<Self> {
        let page = rustix::param::page_size();
        let pages = MmapOptions::new().len(2 * page).map_raw_read_only(ring);
        Ok(Self { pages: pages.context("cannot map the positions of the ring buffer")?, page })
    }

    /// Whether all that was written, or is being written, has been read.
    fn are_equal(&self) -> bool {
        let (read, written) = (unchecked::shared_word(&self.pages, 0), unchecked::shared_word(&self.pages, self.page));
        read == written
    }
}
