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
    overlap::{Hook, Turn, first, second},
    selection::{connection_selected, current_process_selected},
    socket::{begin, find_or_create},
};

/// `int tcp_connect(struct sock *sk)`
#[fentry(function = "tcp_connect")]
pub fn connect_fentry(ctx: FEntryContext) -> i32 {
    let _ = first(Hook::Connect, || try_connect(Sock::<Direct>::new(ctx.arg(0)), Turn::First));
    0
}

/// For a task that preempted another in this hook.
#[fentry(function = "tcp_connect")]
pub fn connect_again_fentry(ctx: FEntryContext) -> i32 {
    let _ = second(Hook::Connect, || try_connect(Sock::<Direct>::new(ctx.arg(0)), Turn::Second));
    0
}

#[kprobe(function = "tcp_connect")]
pub fn connect_kprobe(ctx: ProbeContext) -> u32 {
    let _ = ctx.arg(0).and_then(|sock| try_connect(Sock::<Probe>::new(sock), Turn::First));
    0
}

#[inline(always)]
fn try_connect<A: Access>(sock: Sock<A>, turn: Turn) -> Outcome {
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
    if turn == Turn::Second && is_connecting(record) {
        return None;
    }
    finish_former_life(record, at);
    begin(record, sock, &ends, role::CLIENT, at);
    Some(())
}

/// The first program has served this connect.
#[inline(always)]
fn is_connecting(record: &SocketRecord) -> bool {
    record.id != 0 && record.flags & flag::FINISHED == 0 && record.end_sign_at == 0
}

/// A socket may connect again after a failure or a dissolved association; its former connection ends here.
#[inline(always)]
fn finish_former_life(record: &mut SocketRecord, at: u64) {
    if record.id != 0 && record.flags & flag::FINISHED == 0 {
        record.flags |= flag::RECONNECTED | flag::FINISHED;
        send_socket(record, kind::ENDED, at);
    }
}
