//! Names are looked up: what goes to port 53 and comes from there. Hooks: the entry of `udp_sendmsg` and `udpv6_sendmsg`,
//! where a query still lies in the application's memory, and the return of `udp_recvmsg` and `udpv6_recvmsg`, where an answer
//! lies there. Over TCP, [`try_sent_stream`] and [`try_received_stream`] take what passes. User space parses it.
//!
//! Without fexit the second one is the entry of `skb_consume_udp`, by which a receive lets go of the datagram that it has
//! copied; where the copy lies is known from the entry of the receive. A return probe would do, but leaves out returns in silence
//! when many threads wait for a datagram; it is there for kernels without that function, and what it leaves out is counted.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_get_current_pid_tgid,
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use tracer_ebpf::{
    Loss,
    dns::{DnsRecord, MESSAGE_LEN, PORT, flag},
    kind,
};

use super::Outcome;
use crate::{
    calls,
    identity::{current_ids, current_name},
    kernel::{
        access::{Access, Direct, Pointer, Probe},
        msg::{MsgHdr, Peer, UserSlice, consumes},
        skb::source_port,
        sock::{Sock, is_v4_mapped},
    },
    maps::{Call, RECEIVES},
    output::{count, now, send_filled},
    overlap::{Hook, programs, serve_by_mark},
    selection::current_process_selected,
};

/// Most pieces of one send over TCP that are looked at: two queries, each with its length in a piece of its own.
const MAX_SEGMENTS: u32 = 4;

programs! {
    /// `int udp_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)`
    #[fentry(function = "udp_sendmsg")]
    udp_send(FEntryContext): 1 udp_send_fentry, 2 udp_send_2_fentry, 3 udp_send_3_fentry
}

programs! {
    /// `int udpv6_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)`
    #[fentry(function = "udpv6_sendmsg")]
    udpv6_send(FEntryContext): 1 udpv6_send_fentry, 2 udpv6_send_2_fentry, 3 udpv6_send_3_fentry
}

#[inline(always)]
fn udp_send<const PROGRAM: u32>(ctx: &FEntryContext) -> Outcome {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    serve_by_mark::<PROGRAM>(Hook::UdpSend, ctx, sock.pointer, || try_send(sock, MsgHdr::new(ctx.arg(1)), ctx.arg(2)))
}

#[inline(always)]
fn udpv6_send<const PROGRAM: u32>(ctx: &FEntryContext) -> Outcome {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    serve_by_mark::<PROGRAM>(Hook::UdpV6Send, ctx, sock.pointer, || {
        try_send_v6(sock, MsgHdr::new(ctx.arg(1)), ctx.arg(2))
    })
}

/// Declares the programs at the return of a receive. In a fexit context the return value stands behind the arguments, and
/// kernels take 6 (5.10), 5 (6.1, 6.12) or 4 (7.2) of them. The kernel refuses a program that reads further; one that reads
/// less far would take an argument for the result, so they are tried in this order.
macro_rules! receive_programs {
    ($($function:literal, $hook:ident:
        $six:ident: $($six_number:literal $six_name:ident),+; $five:ident: $($five_number:literal $five_name:ident),+;
        $four:ident: $($four_number:literal $four_name:ident),+;
        $kprobe:ident, $consumed:ident($is_v6:literal); $enters:ident, $ends:ident, $kretprobe:ident;)*) => {$(
        programs! {
            /// `(struct sock *sk, struct msghdr *msg, size_t len, int noblock, int flags, int *addr_len)`
            #[fexit(function = $function)]
            $six(FExitContext): $($six_number $six_name),+
        }

        #[inline(always)]
        fn $six<const PROGRAM: u32>(ctx: &FExitContext) -> Outcome {
            let sock = Sock::<Direct>::new(ctx.arg(0));
            serve_by_mark::<PROGRAM>(Hook::$hook, ctx, sock.pointer, || {
                try_receive(sock, MsgHdr::new(ctx.arg(1)), ctx.arg(4), ctx.arg(6))
            })
        }

        programs! {
            /// `(struct sock *sk, struct msghdr *msg, size_t len, int flags, int *addr_len)`
            #[fexit(function = $function)]
            $five(FExitContext): $($five_number $five_name),+
        }

        #[inline(always)]
        fn $five<const PROGRAM: u32>(ctx: &FExitContext) -> Outcome {
            let sock = Sock::<Direct>::new(ctx.arg(0));
            serve_by_mark::<PROGRAM>(Hook::$hook, ctx, sock.pointer, || {
                try_receive(sock, MsgHdr::new(ctx.arg(1)), ctx.arg(3), ctx.arg(5))
            })
        }

        programs! {
            /// `(struct sock *sk, struct msghdr *msg, size_t len, int flags)`
            #[fexit(function = $function)]
            $four(FExitContext): $($four_number $four_name),+
        }

        #[inline(always)]
        fn $four<const PROGRAM: u32>(ctx: &FExitContext) -> Outcome {
            let sock = Sock::<Direct>::new(ctx.arg(0));
            serve_by_mark::<PROGRAM>(Hook::$hook, ctx, sock.pointer, || {
                try_receive(sock, MsgHdr::new(ctx.arg(1)), ctx.arg(3), ctx.arg(4))
            })
        }

        #[kprobe(function = $function)]
        pub fn $kprobe(ctx: ProbeContext) -> u32 {
            let _ = begun(&ctx).and_then(keep);
            0
        }

        /// `void skb_consume_udp(struct sock *sk, struct sk_buff *skb, int len)`
        #[kprobe(function = "skb_consume_udp")]
        pub fn $consumed(ctx: ProbeContext) -> u32 {
            let _ = try_consume(&ctx, $is_v6);
            0
        }

        #[kprobe(function = $function)]
        pub fn $enters(ctx: ProbeContext) -> u32 {
            let _ = begun(&ctx).map(calls::enters);
            0
        }

        #[raw_tracepoint(tracepoint = "sched_process_exit")]
        pub fn $ends(_: RawTracePointContext) -> i32 {
            calls::ends();
            0
        }

        // The flags stand in another place on each kernel; the return probe goes without, and takes a message that was only
        // looked at for one received: it is the same one, a little early.
        #[kretprobe(function = $function)]
        pub fn $kretprobe(ctx: RetProbeContext) -> u32 {
            let _ = calls::returns().and_then(|Call { sock, msg }| {
                try_receive(Sock::<Probe>::new(sock as Pointer), MsgHdr::new(msg as Pointer), 0, ctx.ret())
            });
            0
        }
    )*};
}

receive_programs! {
    "udp_recvmsg", UdpReceive:
        udp_receive_6: 1 udp_receive_6_fexit, 2 udp_receive_6_2_fexit, 3 udp_receive_6_3_fexit;
        udp_receive_5: 1 udp_receive_5_fexit, 2 udp_receive_5_2_fexit, 3 udp_receive_5_3_fexit;
        udp_receive_4: 1 udp_receive_4_fexit, 2 udp_receive_4_2_fexit, 3 udp_receive_4_3_fexit;
        udp_receive_kprobe, udp_consumed_kprobe(false); udp_enters_kprobe, udp_ends_raw_tp, udp_receive_kretprobe;
    "udpv6_recvmsg", UdpV6Receive:
        udpv6_receive_6: 1 udpv6_receive_6_fexit, 2 udpv6_receive_6_2_fexit, 3 udpv6_receive_6_3_fexit;
        udpv6_receive_5: 1 udpv6_receive_5_fexit, 2 udpv6_receive_5_2_fexit, 3 udpv6_receive_5_3_fexit;
        udpv6_receive_4: 1 udpv6_receive_4_fexit, 2 udpv6_receive_4_2_fexit, 3 udpv6_receive_4_3_fexit;
        udpv6_receive_kprobe, udpv6_consumed_kprobe(true);
        udpv6_enters_kprobe, udpv6_ends_raw_tp, udpv6_receive_kretprobe;
}

#[kprobe(function = "udp_sendmsg")]
pub fn udp_send_kprobe(ctx: ProbeContext) -> u32 {
    let _ = sent(&ctx).and_then(|(sock, msg, length)| try_send(sock, msg, length));
    0
}

#[kprobe(function = "udpv6_sendmsg")]
pub fn udpv6_send_kprobe(ctx: ProbeContext) -> u32 {
    let _ = sent(&ctx).and_then(|(sock, msg, length)| try_send_v6(sock, msg, length));
    0
}

#[inline(always)]
fn sent(ctx: &ProbeContext) -> Option<(Sock<Probe>, MsgHdr<Probe>, u64)> {
    Some((Sock::new(ctx.arg(0)?), MsgHdr::new(ctx.arg(1)?), ctx.arg(2)?))
}

/// A receive that may get an answer.
#[inline(always)]
fn begun(ctx: &ProbeContext) -> Option<Call> {
    let call = Call { sock: ctx.arg(0)?, msg: ctx.arg(1)? };
    let wanted = may_be_dns(Sock::<Probe>::new(call.sock as Pointer)) && current_process_selected();
    wanted.then_some(call)
}

#[inline(always)]
fn keep(call: Call) -> Outcome {
    let thread = bpf_get_current_pid_tgid();
    if RECEIVES.insert(thread, call, u64::from(BPF_ANY)).is_err() {
        // Its message would be taken to lie where that of the call before did.
        let _ = RECEIVES.remove(thread);
    }
    Some(())
}

/// What this thread's receive from the socket fills, if that was kept.
#[inline(always)]
fn take(sock: Sock<Probe>) -> Option<MsgHdr<Probe>> {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes its entry.
    let call = unsafe { RECEIVES.get(thread) }.copied()?;
    let _ = RECEIVES.remove(thread);
    (call.sock == sock.pointer as u64).then(|| MsgHdr::new(call.msg as Pointer))
}

/// A receive lets go of its datagram, of which it has copied so many bytes. The number is negative if it only looked at them.
#[inline(always)]
fn try_consume(ctx: &ProbeContext, is_v6: bool) -> Outcome {
    let sock = Sock::<Probe>::new(ctx.arg(0)?);
    let (skb, length): (Pointer, i32) = (ctx.arg(1)?, ctx.arg(2)?);
    if sock.is_v6()? != is_v6 || !may_be_dns(sock) {
        return None;
    }
    let msg = take(sock);
    if length <= 0 || !current_process_selected() {
        return None;
    }
    let Some(msg) = msg else {
        // It began before the trace, or there was no room to keep it.
        match source_port(skb) {
            Some(PORT) => count(Loss::CallMissed),
            Some(_) => {}
            None => count(Loss::BadRead),
        }
        return None;
    };
    try_receive(sock, msg, 0, length)
}

/// Whether a socket may exchange messages with port 53: it is connected there, or not connected.
#[inline(always)]
fn may_be_dns<A: Access>(sock: Sock<A>) -> bool {
    matches!(sock.remote_port(), Some(0 | PORT))
}

/// Who is on the other side, if it is a DNS server: whom the message names, else whom the socket is connected to.
#[inline(always)]
fn server<A: Access>(sock: Sock<A>, msg: MsgHdr<A>) -> Option<Peer> {
    let peer = match sock.remote_port()? {
        0 => msg.name()?,
        port => Peer { address: sock.ends()?.remote, port },
    };
    (peer.port == PORT).then_some(peer)
}

/// A datagram is about to be sent.
#[inline(always)]
fn try_send<A: Access>(sock: Sock<A>, msg: MsgHdr<A>, length: u64) -> Outcome {
    if !may_be_dns(sock) || !current_process_selected() {
        return None;
    }
    let server = server(sock, msg)?;
    send_query(sock, msg, &server, length)
}

/// The same over IPv6. What goes to an IPv4 address passes `udp_sendmsg` too, and is taken there.
#[inline(always)]
fn try_send_v6<A: Access>(sock: Sock<A>, msg: MsgHdr<A>, length: u64) -> Outcome {
    if !may_be_dns(sock) || !current_process_selected() {
        return None;
    }
    let server = server(sock, msg)?;
    if is_v4_mapped(&server.address) {
        return None;
    }
    send_query(sock, msg, &server, length)
}

#[inline(always)]
fn send_query<A: Access>(sock: Sock<A>, msg: MsgHdr<A>, server: &Peer, length: u64) -> Outcome {
    let Some(slice) = msg.iter().first_segment() else {
        count(Loss::UnreadablePayload);
        return None;
    };
    send(sock, server, Piece { slice, whole: length, flags: flag::SENT })
}

/// A datagram has been received: `result` bytes of it, or a negative errno.
#[inline(always)]
fn try_receive<A: Access>(sock: Sock<A>, msg: MsgHdr<A>, flags: i32, result: i32) -> Outcome {
    if !consumes(flags, result) || !may_be_dns(sock) || !current_process_selected() {
        return None;
    }
    let server = server(sock, msg)?;
    let Some(slice) = msg.iter().filled(result as u64) else {
        count(Loss::UnreadablePayload);
        return None;
    };
    send(sock, &server, Piece { slice, whole: slice.length, flags: 0 })
}

/// Bytes are about to be sent over a traced connection. Leaves at once if it is not to port 53.
#[inline(always)]
pub fn try_sent_stream<A: Access>(sock: Sock<A>, msg: MsgHdr<A>) -> Outcome {
    let server = stream_server(sock)?;
    let iter = msg.iter();
    for index in 0..MAX_SEGMENTS {
        let slice = iter.segment(index)?;
        send(sock, &server, Piece { slice, whole: slice.length, flags: flag::SENT | flag::TCP })?;
    }
    Some(())
}

/// So many bytes have been received; as [`try_sent_stream`].
#[inline(always)]
pub fn try_received_stream<A: Access>(sock: Sock<A>, msg: MsgHdr<A>, copied: u64) -> Outcome {
    let server = stream_server(sock)?;
    let Some(slice) = msg.iter().filled(copied) else {
        count(Loss::UnreadablePayload);
        return None;
    };
    send(sock, &server, Piece { slice, whole: slice.length, flags: flag::TCP })
}

#[inline(always)]
fn stream_server<A: Access>(sock: Sock<A>) -> Option<Peer> {
    if sock.remote_port()? != PORT {
        return None;
    }
    Some(Peer { address: sock.ends()?.remote, port: PORT })
}

/// What is to be sent to user space.
struct Piece {
    slice: UserSlice,
    /// Bytes of the message; more than the slice's if it lies in several pieces.
    whole: u64,
    flags: u32,
}

#[inline(always)]
fn send<A: Access>(sock: Sock<A>, server: &Peer, piece: Piece) -> Outcome {
    let (tgid, tid) = current_ids();
    let (process_started_at, comm) = current_name::<A>();
    send_filled(|record: *mut DnsRecord| {
        // SAFETY: memory of that size that is ours until it is sent, for which all bytes are valid.
        let record = unsafe { &mut *record };
        // SAFETY: there is room for so many bytes.
        record.length = unsafe { piece.slice.copy::<{ MESSAGE_LEN as i32 }>(record.bytes.as_mut_ptr()) }? as u32;
        record.kind = kind::DNS;
        record.flags = piece.flags;
        record.at = now();
        record.process_started_at = process_started_at;
        record.tgid = tgid;
        record.tid = tid;
        record.netns = sock.netns().unwrap_or(0);
        let left_out = piece.whole.saturating_sub(u64::from(record.length));
        record.left_out = if left_out > u64::from(u32::MAX) { u32::MAX } else { left_out as u32 };
        record.local_port = sock.bound_port().unwrap_or(0);
        record.server_port = server.port;
        record.server = server.address;
        record.comm = comm;
        Some(())
    })
}
