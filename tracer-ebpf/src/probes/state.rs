//! The TCP state machine. Hook: the tracepoint `inet_sock_set_state`, one cheap hook for the whole life. It often runs
//! in softirq, so the current task is not the owner here.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tracer_ebpf::{SocketRecord, flag, kind, tcp_state};

use super::Outcome;
use crate::{
    kernel::{
        access::{Access, Probe},
        sock::Sock,
    },
    output::{now, send_socket},
    overlap::{Event, Hook, programs, serve},
    socket::{count_last_sent, end_begins, find, find_or_adopt, full_barrier, read_totals, ready, remove},
};

programs! {
    /// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
    #[btf_tracepoint(function = "inet_sock_set_state")]
    state_typed(BtfTracePointContext):
    1 state_tp_btf, 2 state_2_tp_btf, 3 state_3_tp_btf, 4 state_4_tp_btf, 5 state_5_tp_btf, 6 state_6_tp_btf
}

programs! {
    #[raw_tracepoint(tracepoint = "inet_sock_set_state")]
    state_untyped(RawTracePointContext):
    1 state_raw_tp, 2 state_2_raw_tp, 3 state_3_raw_tp, 4 state_4_raw_tp, 5 state_5_raw_tp, 6 state_6_raw_tp
}

#[inline(always)]
fn state_typed<const PROGRAM: u32>(ctx: &BtfTracePointContext) -> Outcome {
    state::<PROGRAM, _>(ctx.as_ptr(), Sock::new(ctx.arg(0)).as_tcp()?, ctx.arg(1), ctx.arg(2))
}

#[inline(always)]
fn state_untyped<const PROGRAM: u32>(ctx: &RawTracePointContext) -> Outcome {
    state::<PROGRAM, _>(ctx.as_ptr(), Sock::<Probe>::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2))
}

#[inline(always)]
fn state<const PROGRAM: u32, A: Access>(arguments: *mut c_void, sock: Sock<A>, before: i32, after: i32) -> Outcome {
    let event = Event::of_state(arguments, sock.pointer, after);
    serve::<PROGRAM>(Hook::State, event, || is_served(sock, after), || try_state(sock, before, after))
}

/// Whether a change of state has left its mark.
#[inline(always)]
fn is_served<A: Access>(sock: Sock<A>, after: i32) -> bool {
    let Some(record) = find(sock) else { return false };
    match after as u8 {
        tcp_state::ESTABLISHED => record.established_at != 0,
        tcp_state::FIN_WAIT1 | tcp_state::CLOSE_WAIT => record.end_sign_at != 0,
        tcp_state::CLOSE => record.ended_at != 0,
        _ => false,
    }
}

/// Changes that say nothing new (SYN_SENT, SYN_RECV, FIN_WAIT2, LAST_ACK, CLOSING, LISTEN) end here at once.
#[inline(always)]
fn try_state<A: Access>(sock: Sock<A>, before: i32, after: i32) -> Outcome {
    let (before, after) = (before as u8, after as u8);
    match after {
        tcp_state::ESTABLISHED if before == tcp_state::SYN_SENT => established(sock),
        tcp_state::FIN_WAIT1 => closed_locally(sock, before),
        tcp_state::CLOSE_WAIT => peer_closed(sock, before),
        tcp_state::CLOSE if before != tcp_state::LISTEN => ended(sock, before),
        _ => None,
    }
}

/// A client's handshake is done. Server connections are taken up when they are accepted.
#[inline(always)]
fn established<A: Access>(sock: Sock<A>) -> Outcome {
    let record = find(sock)?;
    let at = now();
    record.established_at = at;
    ready(record, sock, at);
    if let Some(again) = sock.tcp().and_then(|tcp| tcp.retransmits()) {
        record.syn_retransmits = again;
    }
    send_socket(record, kind::OPENED, at);
    Some(())
}

/// If more than so many doublings of a kernel tick have passed without an acknowledgment: 0.13 to 0.5 s on most kernels.
const SILENT_FOR_LONG: u8 = 8;

/// The event of the end carries this too, but may come minutes later if the peer is silent.
#[inline(always)]
fn closed_locally<A: Access>(sock: Sock<A>, before: u8) -> Outcome {
    let record = find_or_adopt(sock)?;
    let at = now();
    end_begins(record, sock, before, tcp_state::FIN_WAIT1, at);
    if record.released_at != 0 && record.unacknowledged >= SILENT_FOR_LONG {
        send_socket(record, kind::RELEASED, at);
    }
    Some(())
}

#[inline(always)]
fn peer_closed<A: Access>(sock: Sock<A>, before: u8) -> Outcome {
    let record = find_or_adopt(sock)?;
    let at = now();
    end_begins(record, sock, before, tcp_state::CLOSE_WAIT, at);
    send_socket(record, kind::PEER_CLOSED, at);
    Some(())
}

#[inline(always)]
fn ended<A: Access>(sock: Sock<A>, before: u8) -> Outcome {
    let record = find_or_adopt(sock)?;
    if record.flags & flag::FINISHED != 0 {
        return None;
    }
    let at = now();
    record.ended_at = at;
    count_last_sent(record, sock, before);
    end_begins(record, sock, before, tcp_state::CLOSE, at);
    read_totals(record, sock);
    if before == tcp_state::SYN_SENT {
        failed_connect(record);
    }
    let is_subflow = record.flags & flag::MPTCP != 0;
    if is_subflow {
        // What the application holds is the Multipath TCP socket above it: nobody calls `tcp_close` for this one.
        record.flags |= flag::FINISHED;
    }
    // Pairs with the barrier of the release.
    full_barrier();
    send_socket(record, kind::ENDED, at);
    if is_subflow || record.released_at != 0 {
        remove(sock);
    }
    Some(())
}

/// Nothing was established, so there is nothing to release: this is the last word.
#[inline(always)]
fn failed_connect(record: &mut SocketRecord) {
    record.syn_retransmits = record.retransmits;
    record.flags |= flag::FINISHED;
}
