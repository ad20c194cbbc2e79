//! A segment is sent again. Hook: the tracepoint `tcp_retransmit_skb`. The totals come from TCP's own counters; this hook
//! makes a connect that gets no answer known while it still hangs.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tracer_ebpf::{flag, kind, tcp_state};

use super::Outcome;
use crate::{
    kernel::{
        access::{Access, Probe},
        sock::Sock,
    },
    output::{now, send_socket},
    overlap::{Hook, programs, serve_by_mark},
    socket::find,
};

programs! {
    /// `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, ...)`
    #[btf_tracepoint(function = "tcp_retransmit_skb")]
    retransmit(BtfTracePointContext): 1 retransmit_tp_btf, 2 retransmit_2_tp_btf, 3 retransmit_3_tp_btf
}

#[inline(always)]
fn retransmit<const PROGRAM: u32>(ctx: &BtfTracePointContext) -> Outcome {
    let sock = Sock::new(ctx.arg(0)).as_tcp()?;
    serve_by_mark::<PROGRAM>(Hook::Retransmit, ctx, sock.pointer, || try_retransmit(sock))
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn retransmit_raw_tp(ctx: RawTracePointContext) -> i32 {
    let _ = try_retransmit(Sock::<Probe>::new(ctx.arg(0)));
    0
}

#[inline(always)]
fn try_retransmit<A: Access>(sock: Sock<A>) -> Outcome {
    if sock.state()? != tcp_state::SYN_SENT {
        return None;
    }
    let record = find(sock)?;
    record.syn_retransmits += 1;
    if record.flags & flag::CONNECTING_SENT == 0 {
        record.flags |= flag::CONNECTING_SENT;
        send_socket(record, kind::CONNECTING, now());
    }
    Some(())
}
