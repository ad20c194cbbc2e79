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
        access::{Access, Direct, Probe},
        sock::Sock,
    },
    output::{count, now, send_socket},
    overlap::{Hook, event, first, second},
    selection::{connection_selected, current_process_selected},
    socket::{begin, begin_exchanges, end_begins, find, find_or_create, read_totals, ready},
};

/// `struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)`, from 6.10 on. In a fexit context the
/// return value stands behind the arguments. Of this program and the next, the kernel refuses the one that does not fit
/// its prototype. One program that chooses by a constant is refused on all: the compiler merges the two loads into one
/// behind a computed pointer ("dereference of modified ctx ptr R1 off=16 disallowed").
#[fexit(function = "inet_csk_accept")]
pub fn accept_2_fexit(ctx: FExitContext) -> i32 {
    let _ = try_accept_first(Sock::new(ctx.arg(2)));
    0
}

/// For a task that preempted another in this hook.
#[fexit(function = "inet_csk_accept")]
pub fn accept_2_again_fexit(ctx: FExitContext) -> i32 {
    let _ = try_accept_second(Sock::new(ctx.arg(2)));
    0
}

/// For a task that preempted another in this hook.
#[fexit(function = "inet_csk_accept")]
pub fn accept_2_third_fexit(ctx: FExitContext) -> i32 {
    let _ = try_accept_second(Sock::new(ctx.arg(2)));
    0
}

/// For a task that preempted another in this hook.
#[fexit(function = "inet_csk_accept")]
pub fn accept_2_fourth_fexit(ctx: FExitContext) -> i32 {
    let _ = try_accept_second(Sock::new(ctx.arg(2)));
    0
}

/// `struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)`, before that.
#[fexit(function = "inet_csk_accept")]
pub fn accept_4_fexit(ctx: FExitContext) -> i32 {
    let _ = try_accept_first(Sock::new(ctx.arg(4)));
    0
}

/// For a task that preempted another in this hook.
#[fexit(function = "inet_csk_accept")]
pub fn accept_4_again_fexit(ctx: FExitContext) -> i32 {
    let _ = try_accept_second(Sock::new(ctx.arg(4)));
    0
}

/// For a task that preempted another in this hook.
#[fexit(function = "inet_csk_accept")]
pub fn accept_4_third_fexit(ctx: FExitContext) -> i32 {
    let _ = try_accept_second(Sock::new(ctx.arg(4)));
    0
}

/// For a task that preempted another in this hook.
#[fexit(function = "inet_csk_accept")]
pub fn accept_4_fourth_fexit(ctx: FExitContext) -> i32 {
    let _ = try_accept_second(Sock::new(ctx.arg(4)));
    0
}

#[kretprobe(function = "inet_csk_accept")]
pub fn accept_kretprobe(ctx: RetProbeContext) -> u32 {
    let _ = try_accept(Sock::<Probe>::new(ctx.ret()));
    0
}

#[inline(always)]
fn try_accept_first(sock: Sock<Direct>) -> Outcome {
    first(Hook::Accept, event(sock.pointer, 0), || try_accept(sock))
}

#[inline(always)]
fn try_accept_second(sock: Sock<Direct>) -> Outcome {
    second(Hook::Accept, event(sock.pointer, 0), || is_served(sock), || try_accept(sock))
}

/// Whether the connection has its record. Where records go by address, an old one may still lie there: its ends differ.
#[inline(always)]
fn is_served(sock: Sock<Direct>) -> bool {
    if sock.pointer.is_null() {
        return true;
    }
    let (Some(record), Some(ends)) = (find(sock), sock.ends()) else { return false };
    record.local_port == ends.local_port && record.remote_port == ends.remote_port
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
    begin_exchanges(record, sock);
    ready(record, sock, at);
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
    if state == tcp_state::CLOSE {
        record.ended_at = at;
        read_totals(record, sock);
    }
}
