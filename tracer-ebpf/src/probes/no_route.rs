//! A connect that fails before any SYN: no route, no free port, forbidden by a firewall. Hook: the return of
//! `tcp_v4_connect` and `tcp_v6_connect`, because `tcp_connect` is never reached and the state never changes.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel},
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use tracer_ebpf::{flag, kind, role};

use super::Outcome;
use crate::{
    kernel::{
        access::{Access, Direct, Pointer, Probe},
        sock::{AF_INET, AF_INET6, Ends, Sock, is_v4_mapped, v4_mapped},
    },
    maps::{CONNECT_ARGS, ConnectArgs},
    output::{now, send_life},
    overlap::{Hook, programs, serve_by_mark},
    selection::{connection_selected, current_process_selected},
    socket::{EMPTY, fill, is_now_filled},
};

/// A wrong call rather than a failed connection.
const EINVAL: i32 = 22;
/// Likewise.
const EAFNOSUPPORT: i32 = 97;

programs! {
    /// `int tcp_v4_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)`
    #[fexit(function = "tcp_v4_connect")]
    v4_connect(FExitContext):
    1 v4_connect_fexit, 2 v4_connect_2_fexit, 3 v4_connect_3_fexit, 4 v4_connect_4_fexit, 5 v4_connect_5_fexit, 6 v4_connect_6_fexit
}

programs! {
    /// `int tcp_v6_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)`
    #[fexit(function = "tcp_v6_connect")]
    v6_connect(FExitContext):
    1 v6_connect_fexit, 2 v6_connect_2_fexit, 3 v6_connect_3_fexit, 4 v6_connect_4_fexit, 5 v6_connect_5_fexit, 6 v6_connect_6_fexit
}

#[inline(always)]
fn v4_connect<const PROGRAM: u32>(ctx: &FExitContext) -> Outcome {
    connect_returns::<PROGRAM>(ctx, Hook::ConnectV4, AF_INET)
}

#[inline(always)]
fn v6_connect<const PROGRAM: u32>(ctx: &FExitContext) -> Outcome {
    connect_returns::<PROGRAM>(ctx, Hook::ConnectV6, AF_INET6)
}

#[inline(always)]
fn connect_returns<const PROGRAM: u32>(ctx: &FExitContext, hook: Hook, family: u16) -> Outcome {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    // The return value follows the three arguments; bpf_get_func_ret is missing before 5.17.
    let (address, result) = (ctx.arg(1), ctx.arg::<i32>(3));
    // A failure leaves no record that would tell whether it has been served.
    serve_by_mark::<PROGRAM>(hook, ctx, sock.pointer, || try_no_route(sock, address, result, family))
}

#[kprobe(function = "tcp_v4_connect")]
pub fn v4_connect_kprobe(ctx: ProbeContext) -> u32 {
    let _ = keep_arguments(&ctx);
    0
}

#[kretprobe(function = "tcp_v4_connect")]
pub fn v4_connect_kretprobe(ctx: RetProbeContext) -> u32 {
    let _ = take_arguments(ctx.ret(), AF_INET);
    0
}

#[kprobe(function = "tcp_v6_connect")]
pub fn v6_connect_kprobe(ctx: ProbeContext) -> u32 {
    let _ = keep_arguments(&ctx);
    0
}

#[kretprobe(function = "tcp_v6_connect")]
pub fn v6_connect_kretprobe(ctx: RetProbeContext) -> u32 {
    let _ = take_arguments(ctx.ret(), AF_INET6);
    0
}

#[inline(always)]
fn keep_arguments(ctx: &ProbeContext) -> Outcome {
    let arguments = ConnectArgs { sock: ctx.arg(0)?, address: ctx.arg(1)? };
    // A full table costs no more than the report of this one failure.
    CONNECT_ARGS.insert(bpf_get_current_pid_tgid(), arguments, u64::from(BPF_ANY)).ok()
}

#[inline(always)]
fn take_arguments(result: i32, family: u16) -> Outcome {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes its entry.
    let arguments = unsafe { CONNECT_ARGS.get(thread) }.copied()?;
    // A v4-mapped IPv6 connect calls tcp_v4_connect inside and leaves nothing for the outer return.
    let _ = CONNECT_ARGS.remove(thread);
    try_no_route(Sock::<Probe>::new(arguments.sock as Pointer), arguments.address as Pointer, result, family)
}

#[inline(always)]
fn try_no_route<A: Access>(sock: Sock<A>, address: Pointer, result: i32, family: u16) -> Outcome {
    if result >= 0 || result == -EINVAL || result == -EAFNOSUPPORT || !current_process_selected() {
        return None;
    }
    let ends = destination(address, family)?;
    // A connect that got as far as its SYN is reported by the state machine.
    if !connection_selected(role::CLIENT, &ends) || crate::socket::find(sock).is_some() {
        return None;
    }
    let at = now();
    let mut record = EMPTY;
    fill(&mut record, sock, &ends, role::CLIENT, at);
    is_now_filled(&mut record, sock);
    record.ended_at = at;
    record.end_sign_at = at;
    record.error = result.unsigned_abs();
    record.flags = flag::NO_SYN | flag::FINISHED;
    send_life(&mut record, kind::ENDED, at);
    Some(())
}

/// Where the connect was to go. `None` for a v4-mapped address seen by the IPv6 hook: the IPv4 hook has reported it.
#[inline(always)]
fn destination(address: Pointer, family: u16) -> Option<Ends> {
    let port = u16::from_be(read(address, SOCKADDR_PORT)?);
    let remote = if family == AF_INET {
        v4_mapped(read(address, SOCKADDR_IN_ADDRESS)?)
    } else {
        let remote: [u8; 16] = read(address, SOCKADDR_IN6_ADDRESS)?;
        if is_v4_mapped(&remote) {
            return None;
        }
        remote
    };
    let local = if family == AF_INET { v4_mapped(0) } else { [0; 16] };
    Some(Ends { local, remote, local_port: 0, remote_port: port })
}

/// Offsets in `sockaddr_in` and `sockaddr_in6`: a user-space interface, the same on every kernel (`linux/in.h`, `in6.h`).
const SOCKADDR_PORT: usize = 2;
const SOCKADDR_IN_ADDRESS: usize = 4;
const SOCKADDR_IN6_ADDRESS: usize = 8;

#[inline(always)]
fn read<T>(address: Pointer, offset: usize) -> Option<T> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel(address.byte_add(offset).cast::<T>()) }.ok()
}
