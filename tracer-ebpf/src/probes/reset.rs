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
        access::{Access, Direct, Probe},
        sock::Sock,
    },
    socket::find_or_adopt,
};

/// `tcp_receive_reset(struct sock *sk)`
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn receive_reset_tp_btf(ctx: BtfTracePointContext) -> i32 {
    let _ = try_reset(Sock::<Direct>::new(ctx.arg(0)), flag::RST_RECEIVED);
    0
}

/// `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb, ...)`; `sk` may be null.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn send_reset_tp_btf(ctx: BtfTracePointContext) -> i32 {
    let _ = try_reset(Sock::<Direct>::new(ctx.arg(0)), flag::RST_SENT);
    0
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
