//! A server's connection begins. Hook: the return of `inet_csk_accept`, because it runs in the process that accepts; the
//! change to ESTABLISHED runs in softirq, before anybody owns the connection.

use aya_ebpf::{
    macros::{fexit, kretprobe},
    programs::{FExitContext, RetProbeContext},
};
use tracer_ebpf::{Loss, SocketRecord, flag, kind, role, tcp_state};

use super::Outcome;
use crate::{
    kernel::{
        access::{Access, Direct, Pointer, Probe},
        sock::Sock,
    },
    maps::config,
    output::{count, now, send_socket},
    selection::{connection_selected, current_process_selected},
    socket::{begin, end_begins, find_or_create, read_totals},
};

/// `struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)` to 6.8, after that
/// `struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)`. In a fexit context the return value
/// stands behind the arguments; the branch is a constant to the verifier, so only the right one is looked at.
#[fexit(function = "inet_csk_accept")]
pub fn accept_fexit(ctx: FExitContext) -> i32 {
    let sock: Pointer = match config!(accept_return_index) {
        2 => ctx.arg(2),
        4 => ctx.arg(4),
        _ => return 0,
    };
    let _ = try_accept(Sock::<Direct>::new(sock));
    0
}

#[kretprobe(function = "inet_csk_accept")]
pub fn accept_kretprobe(ctx: RetProbeContext) -> u32 {
    let _ = try_accept(Sock::<Probe>::new(ctx.ret()));
    0
}

#[inline(always)]
fn try_accept<A: Access>(sock: Sock<A>) -> Outcome {
    if sock.pointer.is_null() || !current_process_selected::<A>() {
        return None;
    }
    let Some(ends) = sock.ends() else {
        count(Loss::BadRead);
        return None;
    };
    if !connection_selected(role::SERVER, &ends) {
        return None;
    }
    let at = now();
    let record = find_or_create(sock)?;
    begin(record, sock, &ends, role::SERVER, at);
    record.established_at = at;
    if let Some(again) = sock.tcp().and_then(|tcp| tcp.retransmits()) {
        record.syn_retransmits = again;
    }
    note_early_end(record, sock, at);
    send_socket(record, kind::OPENED, at);
    Some(())
}

/// The peer may have closed or reset while the connection waited to be accepted.
#[inline(always)]
fn note_early_end<A: Access>(record: &mut SocketRecord, sock: Sock<A>, at: u64) {
    let Some(state) = sock.state() else { return };
    if state != tcp_state::CLOSE_WAIT && state != tcp_state::CLOSE {
        return;
    }
    end_begins(record, sock, tcp_state::ESTABLISHED, state, at);
    record.flags |= flag::ENDED_BEFORE_ACCEPT;
    let waited = sock.tcp().and_then(|tcp| tcp.ack_age()).unwrap_or(0);
    record.sent_idle_ticks = record.sent_idle_ticks.saturating_sub(waited);
    record.received_idle_ticks = record.received_idle_ticks.saturating_sub(waited);
    if state == tcp_state::CLOSE_WAIT {
        record.peer_fin_at = at;
    } else {
        record.ended_at = at;
        read_totals(record, sock);
    }
}
