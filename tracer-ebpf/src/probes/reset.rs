//! Resets. Hooks: the tracepoints `tcp_receive_reset` and `tcp_send_reset`. The state machine tells the same story in
//! most cases; these say for certain that an RST went over the wire, and which way.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tracer_ebpf::flag;

use super::Outcome;
use crate::{
    kernel::{
        access::{Access, Probe},
        sock::Sock,
    },
    overlap::{Hook, programs, serve_by_mark},
    socket::find_or_adopt,
};

programs! {
    /// `tcp_receive_reset(struct sock *sk)`
    #[btf_tracepoint(function = "tcp_receive_reset")]
    receive_reset(BtfTracePointContext): 1 receive_reset_tp_btf, 2 receive_reset_2_tp_btf, 3 receive_reset_3_tp_btf
}

programs! {
    /// `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb, ...)`; `sk` may be null, or in `TIME_WAIT`.
    #[btf_tracepoint(function = "tcp_send_reset")]
    send_reset(BtfTracePointContext): 1 send_reset_tp_btf, 2 send_reset_2_tp_btf, 3 send_reset_3_tp_btf
}

#[inline(always)]
fn receive_reset<const PROGRAM: u32>(ctx: &BtfTracePointContext) -> Outcome {
    serve_reset::<PROGRAM>(Hook::ReceiveReset, ctx, flag::RST_RECEIVED)
}

#[inline(always)]
fn send_reset<const PROGRAM: u32>(ctx: &BtfTracePointContext) -> Outcome {
    serve_reset::<PROGRAM>(Hook::SendReset, ctx, flag::RST_SENT)
}

#[inline(always)]
fn serve_reset<const PROGRAM: u32>(hook: Hook, ctx: &BtfTracePointContext, direction: u32) -> Outcome {
    let sock = Sock::new(ctx.arg(0)).as_tcp()?;
    serve_by_mark::<PROGRAM>(hook, ctx, sock.pointer, || try_reset(sock, direction))
}

#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn receive_reset_raw_tp(ctx: RawTracePointContext) -> i32 {
    let _ = try_reset(Sock::<Probe>::new(ctx.arg(0)), flag::RST_RECEIVED);
    0
}

#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn send_reset_raw_tp(ctx: RawTracePointContext) -> i32 {
    let _ = try_reset(Sock::<Probe>::new(ctx.arg(0)), flag::RST_SENT);
    0
}

#[inline(always)]
fn try_reset<A: Access>(sock: Sock<A>, direction: u32) -> Outcome {
    if sock.pointer.is_null() {
        return None;
    }
    find_or_adopt(sock)?.flags |= direction;
    Some(())
}
