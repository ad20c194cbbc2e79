//! The two ways to read kernel memory: directly, where the verifier knows the pointer's type (fentry, fexit, tp_btf),
//! and through a helper, where it is just a number (kprobe, raw tracepoint).

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_skc_to_tcp_sock,
};
use tracer_ebpf::{MISSING, storage};

use crate::maps::config;

/// A pointer into kernel memory. Kept opaque: only an [`Access`] dereferences it.
pub type Pointer = *const c_void;

/// A way to read kernel memory.
pub trait Access: Copy {
    /// Whether pointers carry a type that helpers accept.
    const TYPED: bool;

    /// Reads a field of `base`; `None` if the kernel lacks the field or the read failed.
    fn read<T: Copy>(base: Pointer, offset: u32) -> Option<T>;

    /// The `tcp_sock` behind a `sock`.
    fn tcp_sock(sock: Pointer) -> Option<Pointer>;

    /// The current task.
    fn current_task() -> Pointer;

    /// The socket's cookie from the helper, which makes one if there is none yet.
    fn make_cookie(sock: Pointer) -> Option<u64>;
}

/// Reads through typed pointers; a fault reads as 0. `CAST` says that sockets have been cast to `tcp_sock`.
#[derive(Clone, Copy)]
pub struct Typed<const CAST: bool>;

/// Reads through the pointers that a hook is given.
pub type Direct = Typed<false>;

/// Reads through what [`Sock::as_tcp`](super::sock::Sock::as_tcp) has cast.
pub type DirectTcp = Typed<true>;

/// Reads through `bpf_probe_read_kernel`.
#[derive(Clone, Copy)]
pub struct Probe;

impl<const CAST: bool> Access for Typed<CAST> {
    const TYPED: bool = true;

    #[inline(always)]
    fn read<T: Copy>(base: Pointer, offset: u32) -> Option<T> {
        if offset == MISSING {
            return None;
        }
        // SAFETY: the verifier knows the type behind `base` and checks the access; volatile, because the compiler must
        // neither widen nor merge what the verifier matches against one member.
        Some(unsafe { core::ptr::read_volatile(base.byte_add(offset as usize).cast::<T>()) })
    }

    #[inline(always)]
    fn tcp_sock(sock: Pointer) -> Option<Pointer> {
        if CAST {
            return Some(sock);
        }
        // A load behind sizeof(struct sock) is refused ("access beyond struct sock"), so the pointer is cast first.
        // SAFETY: a typed socket pointer.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sock.cast_mut()) };
        if tcp.is_null() { None } else { Some(tcp.cast_const().cast()) }
    }

    #[inline(always)]
    fn current_task() -> Pointer {
        // SAFETY: takes nothing.
        unsafe { bpf_get_current_task_btf().cast_const().cast() }
    }

    #[inline(always)]
    fn make_cookie(sock: Pointer) -> Option<u64> {
        if !newer_helpers() {
            return None;
        }
        // SAFETY: a typed socket pointer.
        Some(unsafe { bpf_get_socket_cookie(sock.cast_mut()) })
    }
}

impl Access for Probe {
    const TYPED: bool = false;

    #[inline(always)]
    fn read<T: Copy>(base: Pointer, offset: u32) -> Option<T> {
        if offset == MISSING {
            return None;
        }
        // SAFETY: the helper checks the address and fails on a bad one.
        unsafe { bpf_probe_read_kernel(base.byte_add(offset as usize).cast::<T>()) }.ok()
    }

    #[inline(always)]
    fn tcp_sock(sock: Pointer) -> Option<Pointer> {
        Some(sock)
    }

    #[inline(always)]
    fn current_task() -> Pointer {
        // SAFETY: takes nothing.
        unsafe { bpf_get_current_task() as Pointer }
    }

    #[inline(always)]
    fn make_cookie(_: Pointer) -> Option<u64> {
        None
    }
}

/// Whether tracing programs have the helpers that came together with socket storage for them (5.11, 5.12): cookies and
/// the typed current task. User space has found out by loading the programs.
#[inline(always)]
pub fn newer_helpers() -> bool {
    config!(storage) == storage::SOCKET
}
