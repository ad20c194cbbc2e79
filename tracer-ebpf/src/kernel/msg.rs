//! `struct msghdr` and its `struct iov_iter`: where the bytes of a send or receive lie in user memory, and who is on the
//! other side.
//!
//! Kernels differ: the kind of iterator was a set of bits up to 5.13, a single segment has had a kind of its own since 6.0
//! (`ITER_UBUF`), and members were renamed in 6.4. The table of offsets has what the running kernel has.

use core::marker::PhantomData;

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated::bpf_probe_read_user};
use tracer_ebpf::{Address, Loss, MISSING};

use super::{
    access::{Access, Pointer, Probe},
    sock::{AF_INET, AF_INET6, join, v4_mapped},
};
use crate::{maps::offset, output::count, verifier::at_most};

/// Flags of a call to receive (`include/linux/socket.h`): what is looked at stays, and is received again; errors and timestamps
/// instead of data.
const MSG_PEEK: i32 = 0x2;
const MSG_ERRQUEUE: i32 = 0x2000;

/// Whether a call to receive, with these flags and this result, took data.
#[inline(always)]
pub fn consumes(flags: i32, result: i32) -> bool {
    result > 0 && flags & (MSG_PEEK | MSG_ERRQUEUE) == 0
}

/// Offsets in `sockaddr_in` and `sockaddr_in6`: a user-space interface, the same on every kernel (`linux/in.h`, `in6.h`).
const SOCKADDR_PORT: usize = 2;
const SOCKADDR_IN_ADDRESS: usize = 4;
const SOCKADDR_IN6_ADDRESS: usize = 8;

/// What a call to send or receive takes, read by `A`.
#[derive(Clone, Copy)]
pub struct MsgHdr<A> {
    /// `struct msghdr *`.
    pub pointer: Pointer,
    access: PhantomData<A>,
}

/// An address and a port in host order; IPv4 v4-mapped.
#[derive(Clone, Copy)]
pub struct Peer {
    pub address: Address,
    pub port: u16,
}

/// Bytes in one piece in the current task's memory. May be anything: the application names it.
#[derive(Clone, Copy)]
pub struct UserSlice {
    pub address: u64,
    pub length: u64,
}

impl UserSlice {
    /// Copies as much as there is, `MOST` bytes at most; returns how many. `None`, and counted, if it cannot be read.
    ///
    /// # Safety
    /// There is room for `MOST` bytes.
    #[inline(always)]
    pub unsafe fn copy<const MOST: i32>(self, to: *mut u8) -> Option<u64> {
        let length = at_most::<MOST>(self.length);
        // SAFETY: no more bytes than there is room for; the helper checks the source and fails on a bad one.
        let outcome = unsafe { bpf_probe_read_user(to.cast(), length as u32, self.address as Pointer) };
        if outcome != 0 {
            count(Loss::UnreadablePayload);
            return None;
        }
        Some(length)
    }
}

impl<A: Access> MsgHdr<A> {
    #[inline(always)]
    pub fn new(pointer: Pointer) -> Self {
        Self { pointer, access: PhantomData }
    }

    /// The address that the message carries: where a datagram is to go, or came from if the caller wanted to know. The
    /// kernel's copy. `None` where there is none, or of another family.
    #[inline(always)]
    pub fn name(self) -> Option<Peer> {
        let name: Pointer = A::read(self.pointer, offset!(msg_name))?;
        if name.is_null() {
            return None;
        }
        let family: u16 = read(name, 0)?;
        let port = u16::from_be(read(name, SOCKADDR_PORT)?);
        let address = match family {
            AF_INET => v4_mapped(read(name, SOCKADDR_IN_ADDRESS)?),
            AF_INET6 => join(read(name, SOCKADDR_IN6_ADDRESS)?, read(name, SOCKADDR_IN6_ADDRESS + 8)?),
            _ => return None,
        };
        Some(Peer { address, port })
    }

    /// Where the bytes lie.
    #[inline(always)]
    pub fn iter(self) -> IovIter<A> {
        IovIter { msg: self.pointer, access: PhantomData }
    }
}

/// A message's bytes: one segment or a list of them. The kernel moves it on as it copies.
#[derive(Clone, Copy)]
pub struct IovIter<A> {
    /// The offsets count from the message.
    msg: Pointer,
    access: PhantomData<A>,
}

/// How the segments are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One, in the iterator.
    Single,
    /// A list.
    List,
}

impl<A: Access> IovIter<A> {
    /// What is about to be sent, as far as it lies in one piece. `None` if nothing is, or if it lies in kernel memory
    /// (`sendfile`, in-kernel users).
    #[inline(always)]
    pub fn first_segment(self) -> Option<UserSlice> {
        self.segment(0)
    }

    /// The segment of that number, counted from where the iterator stands.
    #[inline(always)]
    pub fn segment(self, index: u32) -> Option<UserSlice> {
        if self.kind()? == Kind::Single {
            if index != 0 {
                return None;
            }
            let address = self.single()?.wrapping_add(self.offset()?);
            return not_empty(UserSlice { address, length: self.left()? });
        }
        if u64::from(index) >= A::read::<u64>(self.msg, offset!(msg_iter_segments))? {
            return None;
        }
        let [address, length] = self.list_entry(i64::from(index))?;
        let done = if index == 0 { self.offset()? } else { 0 };
        not_empty(UserSlice { address: address.wrapping_add(done), length: length.checked_sub(done)? })
    }

    /// Where the `copied` bytes just received lie; asked after the copy. `None` if they do not lie in one piece of user
    /// memory.
    #[inline(always)]
    pub fn filled(self, copied: u64) -> Option<UserSlice> {
        let offset = self.offset()?;
        let (address, end) = match self.kind()? {
            Kind::Single => (self.single()?, offset),
            // A segment that was filled to its end is left behind.
            Kind::List if offset == 0 => {
                let [address, length] = self.list_entry(-1)?;
                (address, length)
            }
            Kind::List => (self.list_entry(0)?[0], offset),
        };
        not_empty(UserSlice { address: address.wrapping_add(end.checked_sub(copied)?), length: copied })
    }

    #[inline(always)]
    fn kind(self) -> Option<Kind> {
        let kind = match A::read::<u8>(self.msg, offset!(msg_iter_type)) {
            Some(kind) => u32::from(kind),
            None => A::read::<u32>(self.msg, offset!(msg_iter_type_bits))? & !1,
        };
        let single = offset!(iter_ubuf_kind);
        if single != MISSING && kind == single {
            return Some(Kind::Single);
        }
        (kind == offset!(iter_iovec_kind)).then_some(Kind::List)
    }

    #[inline(always)]
    fn offset(self) -> Option<u64> {
        A::read(self.msg, offset!(msg_iter_offset))
    }

    /// Bytes that are still to be sent, or that there is still room for.
    #[inline(always)]
    pub fn left(self) -> Option<u64> {
        A::read(self.msg, offset!(msg_iter_count))
    }

    /// Address of the only segment. Through the helper: it shares its place with pointers to lists, the verifier takes it
    /// for one of those, and forbids to add to it.
    #[inline(always)]
    fn single(self) -> Option<u64> {
        Probe::read(self.msg, offset!(msg_iter_ubuf))
    }

    /// Address and length of a segment of the list: `struct iovec`, a user-space interface (`linux/uio.h`).
    #[inline(always)]
    fn list_entry(self, index: i64) -> Option<[u64; 2]> {
        // Through the helper, because the verifier allows no index into what it takes for one iovec.
        let list: u64 = Probe::read(self.msg, offset!(msg_iter_iov))?;
        let entry = list.wrapping_add_signed(index * size_of::<[u64; 2]>() as i64);
        read(entry as Pointer, 0)
    }
}

#[inline(always)]
fn not_empty(slice: UserSlice) -> Option<UserSlice> {
    (slice.length != 0).then_some(slice)
}

/// Reads kernel memory that no type describes.
#[inline(always)]
pub fn read<T>(address: Pointer, offset: usize) -> Option<T> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel(address.byte_add(offset).cast::<T>()) }.ok()
}
