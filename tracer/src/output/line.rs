//! Text in small pieces: most of a line is literals and numbers whose longest form is known, so that a piece is a copy
//! of constant length into room that is known to be there.

/// Bytes that the pieces of one line may take; names, which may be longer, go round it. A test holds the longest line
/// against it.
const ROOM: usize = 2048;

/// What pieces of text are appended to.
pub(super) trait Put {
    /// Appends the first `length` of these bytes. Copying all of them is cheaper than a copy of variable length.
    fn put<const N: usize>(&mut self, bytes: &[u8; N], length: usize);

    /// Appends all of these bytes.
    #[inline]
    fn literal<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.put(bytes, N);
    }

    /// Appends a short word; what is beyond 64 bytes is cut off.
    fn word(&mut self, word: &[u8]) {
        let mut bytes = [0; 64];
        let length = word.len().min(bytes.len());
        bytes[..length].copy_from_slice(&word[..length]);
        self.put(&bytes, length);
    }
}

impl Put for Vec<u8> {
    #[inline]
    fn put<const N: usize>(&mut self, bytes: &[u8; N], length: usize) {
        self.extend_from_slice(bytes);
        self.truncate(self.len() - N.saturating_sub(length));
    }
}

/// Room for the pieces of a line, used again for each.
pub(super) struct Room(Box<[u8; ROOM]>);

impl Default for Room {
    fn default() -> Self {
        Self(Box::new([0; ROOM]))
    }
}

impl Room {
    /// Appends what `write` puts together.
    #[inline(always)]
    pub fn line(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Line)) {
        let mut line = Line { room: &mut self.0, length: 0 };
        write(&mut line);
        let length = line.length.min(ROOM);
        out.extend_from_slice(&self.0[..length]);
    }
}

/// A line in the making. What does not fit overwrites its end.
pub(super) struct Line<'r> {
    room: &'r mut [u8; ROOM],
    length: usize,
}

impl Put for Line<'_> {
    #[inline(always)]
    fn put<const N: usize>(&mut self, bytes: &[u8; N], length: usize) {
        let at = self.length.min(ROOM - N);
        self.room[at..at + N].copy_from_slice(bytes);
        self.length = at + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_places_take_the_same_pieces() {
        let write = |out: &mut dyn FnMut(&[u8; 4], usize)| {
            out(b"abcd", 4);
            out(b"efgh", 1);
            out(b"ijkl", 0);
        };
        let (mut plain, mut lined) = (Vec::new(), Vec::new());
        write(&mut |bytes, length| plain.put(bytes, length));
        Room::default().line(&mut lined, |line| write(&mut |bytes, length| line.put(bytes, length)));
        assert_eq!((plain.as_slice(), lined.as_slice()), (&b"abcde"[..], &b"abcde"[..]));
    }

    #[test]
    fn too_much_is_cut_and_nothing_panics() {
        let mut out = Vec::new();
        Room::default().line(&mut out, |line| (0..100).for_each(|_| line.word(&[b'x'; 99])));
        assert_eq!(out.len(), ROOM);
    }
}
