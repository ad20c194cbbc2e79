//! A server's connection begins. Hook: the return of `inet_csk_accept`, because it runs in the process that accepts; the
//! change to ESTABLISHED runs in softirq, before anybody owns the connection.
//!
//! A fexit program does not see the return of a call that had begun before it was attached, and a server may wait in `accept` for
//! hours. So there is another at the entry of `security_sock_graft`, by which the process that accepts ties the new connection to
//! its descriptor right afterwards. It cannot be the only one: for Multipath TCP it gets the socket above the connection.
//!
//! Where fexit cannot be had, `security_sock_graft` alone is hooked, by a kprobe. A return probe would do, but leaves out returns in
//! silence when many threads wait in `accept`; it is there for kernels without that function, and what it leaves out is counted.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use tracer_ebpf::{Loss, SocketRecord, flag, kind, role, tcp_state};

use super::Outcome;
use crate::{
    calls,
    kernel::{
        access::{Access, Direct, Pointer, Probe},
        sock::Sock,
    },
    maps::Call,
    output::{count, now, send_socket},
    overlap::{Event, Hook, programs, serve, serve_by_mark},
    selection::{connection_selected, current_process_selected},
    socket::{
        begin, begin_exchanges, end_begins, find, find_or_create, full_barrier, is_now_filled, read_totals, ready,
    },
};

programs! {
    /// `struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)`, from 6.10 on. In a fexit context the
    /// return value stands behind the arguments. Of these programs and the next, the kernel refuses those that do not fit
    /// its prototype. One that chooses by a constant is refused on all: the compiler merges the two loads into one
    /// behind a computed pointer ("dereference of modified ctx ptr R1 off=16 disallowed").
    #[fexit(function = "inet_csk_accept")]
    accept_2(FExitContext):
    1 accept_2_fexit, 2 accept_2_2_fexit, 3 accept_2_3_fexit, 4 accept_2_4_fexit, 5 accept_2_5_fexit, 6 accept_2_6_fexit
}

programs! {
    /// `struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)`, before that.
    #[fexit(function = "inet_csk_accept")]
    accept_4(FExitContext):
    1 accept_4_fexit, 2 accept_4_2_fexit, 3 accept_4_3_fexit, 4 accept_4_4_fexit, 5 accept_4_5_fexit, 6 accept_4_6_fexit
}

#[inline(always)]
fn accept_2<const PROGRAM: u32>(ctx: &FExitContext) -> Outcome {
    accept::<PROGRAM>(ctx, ctx.arg(2))
}

#[inline(always)]
fn accept_4<const PROGRAM: u32>(ctx: &FExitContext) -> Outcome {
    accept::<PROGRAM>(ctx, ctx.arg(4))
}

#[inline(always)]
fn accept<const PROGRAM: u32>(ctx: &FExitContext, accepted: Pointer) -> Outcome {
    let sock = Sock::<Direct>::new(accepted);
    let event = Event::new(ctx.as_ptr(), sock.pointer);
    serve::<PROGRAM>(Hook::Accept, event, || is_served(sock), || try_accept(sock))
}

programs! {
    /// `void security_sock_graft(struct sock *sk, struct socket *parent)`, once for each accept of any kind of socket.
    #[fentry(function = "security_sock_graft")]
    graft(FEntryContext):
    1 graft_fentry, 2 graft_2_fentry, 3 graft_3_fentry
}

#[inline(always)]
fn graft<const PROGRAM: u32>(ctx: &FEntryContext) -> Outcome {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    // By the mark alone: that the connection has its record says nothing of the programs before this one.
    serve_by_mark::<PROGRAM>(Hook::Graft, ctx, sock.pointer, || try_unseen_accept(sock))
}

/// Serves an accept whose return was not seen.
#[inline(always)]
fn try_unseen_accept(sock: Sock<Direct>) -> Outcome {
    if sock.is_tcp()? && !is_served(sock) { try_accept(sock) } else { None }
}

/// The same function, where it is the only hook of accepts.
#[kprobe(function = "security_sock_graft")]
pub fn accept_kprobe(ctx: ProbeContext) -> u32 {
    let _ = ctx.arg(0).and_then(|sock| try_graft(Sock::<Probe>::new(sock)));
    0
}

#[inline(always)]
fn try_graft<A: Access>(sock: Sock<A>) -> Outcome {
    let Ok(connection) = sock.over_tcp() else {
        count(Loss::BadRead);
        return None;
    };
    try_accept(connection?)
}

#[kprobe(function = "inet_csk_accept")]
pub fn accept_enters_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0)
        && current_process_selected()
    {
        calls::enters(Call { sock, msg: 0 });
    }
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn accept_ends_raw_tp(_: RawTracePointContext) -> i32 {
    calls::ends();
    0
}

#[kretprobe(function = "inet_csk_accept")]
pub fn accept_kretprobe(ctx: RetProbeContext) -> u32 {
    let _ = calls::returns();
    let _ = try_accept(Sock::<Probe>::new(ctx.ret()));
    0
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
    if sock.pointer.is_null() || !current_process_selected() {
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
    begin_exchanges(record, sock, at);
    ready(record, sock, at);
    if let Some(again) = sock.tcp().and_then(|tcp| tcp.retransmits()) {
        record.syn_retransmits = again;
    }
    is_now_filled(record, sock);
    // Before the state is read: what changes it from here on finds the record.
    full_barrier();
    note_early_end(record, sock, at);
    send_socket(record, kind::OPENED, at);
    Some(())
}

/// The peer may have closed or reset while the connection waited to be accepted. If it did so since the record is found, that was told.
#[inline(always)]
fn note_early_end<A: Access>(record: &mut SocketRecord, sock: Sock<A>, at: u64) {
    if record.end_sign_at != 0 {
        return;
    }
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
