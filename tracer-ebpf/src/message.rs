//! The first bytes of a message on its way through a send or receive, copied once from the application's memory.

use aya_ebpf::helpers::bpf_probe_read_user;
use tracer_ebpf::{
    HELLO_LEN, HelloRecord, Loss, MESSAGE_HOOKS,
    http::{HEAD_LEN, HeadRecord},
};

use crate::{
    kernel::{
        access::Access,
        msg::{IovIter, UserSlice},
    },
    maps::MESSAGES,
    output::count,
    verifier::{at_most, below, load, opaque},
};

/// Segments of a message that are looked at behind the first. A library that gathers writes puts each TLS record into one of its own.
const SEGMENTS: u32 = 3;
/// Bytes of each segment after the first.
const LATER_SEGMENT: i32 = 512;
/// Where the last of them may begin.
const LAST_PLACE: i32 = HELLO_LEN as i32 - LATER_SEGMENT;

/// Room behind a message, so that a few bytes can be read at once from any place in it.
pub const SLACK: usize = 16;

/// The first bytes of a message, in the form in which they go to user space if they are part of a hello.
#[repr(C)]
pub struct Message {
    /// Of these, `length` and `bytes` are valid.
    pub hello: HelloRecord,
    /// Never written.
    slack: [u8; SLACK],
    /// Length of the whole message.
    length: u32,
    /// How far its records have been followed.
    position: u32,
}

/// The room that a message takes.
pub const ROOM: usize = size_of::<Message>();

/// Places in the message are kept in the map, and read and written each time: what comes from a map is just a number to the
/// verifier, so that all ways through a step over one record come out the same for the next step. With a variable it
/// distinguishes every sum of lengths, and gives up ("BPF program is too large. Processed 1000001 insn").
impl Message {
    /// Before the first record.
    #[inline(always)]
    pub fn rewind(&mut self, length: u32) {
        self.length = length;
        self.go_to(0);
    }

    /// How far its records have been followed.
    #[inline(always)]
    pub fn position(&self) -> u32 {
        // SAFETY: a field of a live value.
        unsafe { (&raw const self.position).read_volatile() }
    }

    /// Bytes from there to the end of the message.
    #[inline(always)]
    pub fn left(&self) -> u32 {
        // SAFETY: likewise.
        let length = unsafe { (&raw const self.length).read_volatile() };
        length.saturating_sub(self.position())
    }

    /// Goes on by so many bytes.
    #[inline(always)]
    pub fn advance(&mut self, by: u32) {
        self.go_to(self.position().wrapping_add(by));
    }

    #[inline(always)]
    fn go_to(&mut self, position: u32) {
        // SAFETY: likewise.
        unsafe { (&raw mut self.position).write_volatile(position) };
    }

    /// `N` bytes from there, if they have been copied.
    #[inline(always)]
    pub fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        const { assert!(N <= SLACK) };
        let position = self.position();
        // SAFETY: likewise.
        let have = unsafe { (&raw const self.hello.length).read_volatile() };
        if position >= HELLO_LEN as u32 || position + N as u32 > have {
            return None;
        }
        // SAFETY: the buffer has `SLACK` bytes behind the 2048th.
        Some(unsafe { load(self.hello.bytes.as_ptr().add(below::<2048>(position))) })
    }
}

/// Which hook looks.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    Send = 0,
    Receive = 1,
}

/// Which of its programs, counted from 1.
#[derive(Clone, Copy)]
pub struct Program {
    pub hook: Hook,
    pub number: u32,
}

impl Program {
    /// Its place in [`MESSAGES`]: first programs come first, as elsewhere there are no others.
    #[inline(always)]
    fn buffer(self) -> u32 {
        (self.number - 1) * MESSAGE_HOOKS as u32 + self.hook as u32
    }
}

/// Where a message lies in user memory.
#[derive(Clone, Copy)]
pub enum Source<A> {
    /// It is about to be sent.
    ToSend(IovIter<A>),
    /// It has been received: so many bytes.
    Received(IovIter<A>, u32),
}

impl<A: Access> Source<A> {
    #[inline(always)]
    fn first(self) -> Option<UserSlice> {
        match self {
            Self::ToSend(iter) => iter.first_segment(),
            Self::Received(iter, copied) => iter.filled(u64::from(copied)),
        }
    }

    /// The first `N` bytes. `None` if there are fewer in one piece, or if they cannot be read.
    #[inline(always)]
    pub fn head<const N: usize>(self) -> Option<[u8; N]> {
        let first = self.first()?;
        if first.length < N as u64 {
            return None;
        }
        // SAFETY: the helper checks the address and fails on a bad one.
        let read = unsafe { bpf_probe_read_user(first.address as *const [u8; N]) };
        if read.is_err() {
            count(Loss::UnreadablePayload);
        }
        read.ok()
    }

    /// Copies the beginning, as far as it lies in one piece, into a program's buffer, in the form in which HTTP heads go to user
    /// space. Of that, `length` and `bytes` are valid.
    #[inline(always)]
    pub fn copy_head(self, by: Program) -> Option<&'static mut HeadRecord> {
        let buffer = MESSAGES.get_ptr_mut(by.buffer())?;
        // SAFETY: the slot belongs to this processor and this program, which does not overlap with itself, and is large enough.
        let head = unsafe { &mut *buffer.cast::<HeadRecord>() };
        // SAFETY: there is room for so many bytes.
        head.length = unsafe { self.first()?.copy::<{ HEAD_LEN as i32 }>(head.bytes.as_mut_ptr()) }? as u32;
        Some(head)
    }

    /// Copies as much as fits into a program's buffer, of which `length` says how much.
    #[inline(always)]
    pub fn copy(self, by: Program) -> Option<&'static mut Message> {
        let buffer = MESSAGES.get_ptr_mut(by.buffer())?;
        // SAFETY: the slot belongs to this processor and this program, which does not overlap with itself.
        let buffer = unsafe { &mut *buffer };
        let first = self.first()?;
        let bytes = buffer.hello.bytes.as_mut_ptr();
        // SAFETY: there is room for so many bytes.
        let mut filled = unsafe { first.copy::<{ HELLO_LEN as i32 }>(bytes) }?;
        if let Self::ToSend(iter) = self {
            let mut index = 0;
            while index < opaque(SEGMENTS) {
                index += 1;
                if filled > LAST_PLACE as u64 {
                    break;
                }
                let Some(segment) = iter.segment(index) else { break };
                // No change: it is for the verifier.
                let place = at_most::<LAST_PLACE>(filled) as usize;
                // SAFETY: there is room for so many bytes behind the last place.
                filled += unsafe { segment.copy::<LATER_SEGMENT>(bytes.add(place)) }?;
            }
        }
        buffer.hello.length = filled as u32;
        Some(buffer)
    }
}
