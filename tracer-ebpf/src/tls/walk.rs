//! Where a stream of TLS records stands: between two calls of send or receive a record may end anywhere.

use super::record::{HEADER_LEN, Header};

/// One direction of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Bytes of the present record's body that are still to come.
    pub remaining: u32,
    /// Bytes of the next header that have come.
    have: u8,
    /// The body of the present record has not begun.
    pub at_body: u8,
    /// The present record's header, or what has come of the next.
    header: [u8; HEADER_LEN],
    reserved: u8,
}

const _: () = assert!(size_of::<Walk>() == 12);

impl Walk {
    /// Begins anew. Word by word and volatile: the compiler would otherwise call its own memset, whose result the verifier does
    /// not understand ("R0 invalid mem access 'scalar'").
    #[inline(always)]
    pub fn restart(&mut self) {
        const { assert!(size_of::<Self>() == 3 * size_of::<u32>() && align_of::<Self>() == align_of::<u32>()) };
        let words = core::ptr::from_mut(self).cast::<u32>();
        for index in 0..3 {
            // SAFETY: inside the value, all of which may be zero.
            unsafe { words.add(index).write_volatile(0) };
        }
    }

    /// Whether the next byte is the first of a header.
    #[inline(always)]
    pub fn is_between_records(&self) -> bool {
        self.remaining == 0 && self.have == 0
    }

    /// Whether what came last was of a header: a part of it, or all of it and nothing of the body.
    #[inline(always)]
    pub fn is_at_header(&self) -> bool {
        self.have != 0 || self.at_body != 0
    }

    /// The header of the record whose body is at hand.
    #[inline(always)]
    pub fn header(&self) -> Option<Header> {
        Header::parse(&self.header)
    }

    /// Takes a whole header. `false` if it is none.
    #[inline(always)]
    pub fn whole_header(&mut self, bytes: [u8; HEADER_LEN]) -> bool {
        self.header = bytes;
        self.begin()
    }

    /// Takes one byte of a header that comes in pieces. `false` if it is none.
    #[inline(always)]
    pub fn header_byte(&mut self, byte: u8) -> bool {
        // Compared one by one: the verifier knows no bound of `have`.
        if self.have == 0 {
            self.header[0] = byte;
        } else if self.have == 1 {
            self.header[1] = byte;
        } else if self.have == 2 {
            self.header[2] = byte;
        } else if self.have == 3 {
            self.header[3] = byte;
        } else {
            self.header[4] = byte;
        }
        self.have += 1;
        if (self.have as usize) < HEADER_LEN {
            return true;
        }
        self.begin()
    }

    #[inline(always)]
    fn begin(&mut self) -> bool {
        self.have = 0;
        match Header::parse(&self.header) {
            Some(header) => {
                self.remaining = u32::from(header.length);
                self.at_body = 1;
                true
            }
            None => false,
        }
    }

    /// Passes over bytes of the body; returns how many of `available` were of it.
    #[inline(always)]
    pub fn body(&mut self, available: u32) -> u32 {
        let passed = if available < self.remaining { available } else { self.remaining };
        self.remaining -= passed;
        self.at_body = 0;
        passed
    }
}
