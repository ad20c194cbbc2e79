//! A client's connection begins. Hook: `tcp_connect`, because it runs in the context of the process that connects, with
//! addresses and source port chosen (at the change to SYN_SENT the port is not).

use aya_ebpf::{
    EbpfContext as _,
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
    overlap::{Event, Hook, programs, serve},
    selection::{connection_selected, current_process_selected},
    socket::{begin, begin_exchanges, find, find_or_create, is_filled, is_now_filled},
};

programs! {
    /// `int tcp_connect(struct sock *sk)`
    #[fentry(function = "tcp_connect")]
    connect(FEntryContext):
    1 connect_fentry, 2 connect_2_fentry, 3 connect_3_fentry, 4 connect_4_fentry, 5 connect_5_fentry, 6 connect_6_fentry
}

#[inline(always)]
fn connect<const PROGRAM: u32>(ctx: &FEntryContext) -> Outcome {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    let event = Event::new(ctx.as_ptr(), sock.pointer);
    serve::<PROGRAM>(Hook::Connect, event, || is_served(sock), || try_connect(sock))
}

#[kprobe(function = "tcp_connect")]
pub fn connect_kprobe(ctx: ProbeContext) -> u32 {
    let _ = ctx.arg(0).and_then(|sock| try_connect(Sock::<Probe>::new(sock)));
    0
}

#[inline(always)]
fn try_connect<A: Access>(sock: Sock<A>) -> Outcome {
    if !current_process_selected() {
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
    begin_exchanges(record, sock, at);
    is_now_filled(record, sock);
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
    if is_filled(record) && record.flags & flag::FINISHED == 0 {
        record.flags |= flag::RECONNECTED | flag::FINISHED;
        send_socket(record, kind::ENDED, at);
    }
}
