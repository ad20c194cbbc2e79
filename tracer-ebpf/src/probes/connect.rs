//! A client's connection begins. Hook: `tcp_connect`, because it runs in the context of the process that connects, with
//! addresses and source port chosen (at the change to SYN_SENT the port is not).

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use tracer_ebpf::{Loss, SocketRecord, flag, kind, role};

use super::Outcome;
use crate::{
    kernel::{
        access::{Access, Direct, Probe},
        sock::Sock,
    },
    output::{count, now, send_socket},
    overlap::{Hook, event, first, second},
    selection::{connection_selected, current_process_selected},
    socket::{begin, begin_exchanges, find, find_or_create},
};

/// `int tcp_connect(struct sock *sk)`
#[fentry(function = "tcp_connect")]
pub fn connect_fentry(ctx: FEntryContext) -> i32 {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    let _ = first(Hook::Connect, event(sock.pointer, 0), || try_connect(sock));
    0
}

/// For a task that preempted another in this hook.
#[fentry(function = "tcp_connect")]
pub fn connect_again_fentry(ctx: FEntryContext) -> i32 {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    let _ = second(Hook::Connect, event(sock.pointer, 0), || is_served(sock), || try_connect(sock));
    0
}

/// For a task that preempted another in this hook.
#[fentry(function = "tcp_connect")]
pub fn connect_third_fentry(ctx: FEntryContext) -> i32 {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    let _ = second(Hook::Connect, event(sock.pointer, 0), || is_served(sock), || try_connect(sock));
    0
}

/// For a task that preempted another in this hook.
#[fentry(function = "tcp_connect")]
pub fn connect_fourth_fentry(ctx: FEntryContext) -> i32 {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    let _ = second(Hook::Connect, event(sock.pointer, 0), || is_served(sock), || try_connect(sock));
    0
}

#[kprobe(function = "tcp_connect")]
pub fn connect_kprobe(ctx: ProbeContext) -> u32 {
    let _ = ctx.arg(0).and_then(|sock| try_connect(Sock::<Probe>::new(sock)));
    0
}

#[inline(always)]
fn try_connect<A: Access>(sock: Sock<A>) -> Outcome {
    if !current_process_selected::<A>() {
        return None;
    }
    let Some(ends) = sock.ends() else {
        count(Loss::BadRead);
        return None;
    };
    if !connection_selected(role::CLIENT, &ends) {
        return None;
    }
    let at = now();
    let record = find_or_create(sock)?;
    finish_former_life(record, at);
    begin(record, sock, &ends, role::CLIENT, at);
    begin_exchanges(record, sock);
    Some(())
}

/// Whether the socket's present connect has its record.
#[inline(always)]
fn is_served<A: Access>(sock: Sock<A>) -> bool {
    find(sock).is_some_and(|record| record.flags & flag::FINISHED == 0 && record.end_sign_at == 0)
}

/// A socket may connect again after a failure or a dissolved association; its former connection ends here.
#[inline(always)]
fn finish_former_life(record: &mut SocketRecord, at: u64) {
    if record.id != 0 && record.flags & flag::FINISHED == 0 {
        record.flags |= flag::RECONNECTED | flag::FINISHED;
        send_socket(record, kind::ENDED, at);
    }
}
