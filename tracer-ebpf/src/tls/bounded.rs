//! Values of bounded size without allocation: what does not fit is counted or left out, never cut.

use core::fmt;

/// Up to `N` bytes (at most 255). Debug output is escaped: the bytes come from the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bytes<const N: usize> {
    // Zero behind `len`, so that equality can be derived.
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> Bytes<N> {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the place of so many bytes, to be filled in; `None` if they do not fit.
    pub(super) fn room(&mut self, length: usize) -> Option<&mut [u8]> {
        self.len = u8::try_from(length).ok().filter(|length| usize::from(*length) <= N)?;
        self.bytes.get_mut(..length)
    }
}

impl<const N: usize> Default for Bytes<N> {
    fn default() -> Self {
        Self { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_slice().escape_ascii())
    }
}

/// The first `N` of what was offered, in the order of the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct List<T, const N: usize> {
    items: [T; N],
    len: usize,
    left_out: usize,
}

impl<T: Copy + Default, const N: usize> List<T, N> {
    /// What was kept.
    pub fn as_slice(&self) -> &[T] {
        self.items.get(..self.len).unwrap_or_default()
    }

    /// How many more there were.
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// Keeps one more, or counts it.
    pub(super) fn push(&mut self, item: T) {
        match self.items.get_mut(self.len) {
            Some(slot) => (*slot, self.len) = (item, self.len + 1),
            None => self.leave_out(),
        }
    }

    /// Counts one that is not kept.
    pub(super) const fn leave_out(&mut self) {
        self.left_out += 1;
    }
}

impl<T: Copy + Default, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self { items: [T::default(); N], len: 0, left_out: 0 }
    }
}

impl<T: Copy + Default + fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} and {} more", self.as_slice(), self.left_out)
    }
}
