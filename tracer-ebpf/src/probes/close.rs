//! The application lets go of a socket. Hook: `tcp_close`; it runs at the last reference, in the context of the process
//! that dropped it (one that ends included).

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use tracer_ebpf::{SocketRecord, flag, kind};

use super::Outcome;
use crate::{
    identity,
    kernel::{
        access::{Access, Direct, Probe},
        sock::Sock,
    },
    output::{now, send_socket},
    socket::{find_or_adopt, remove},
};

/// `void tcp_close(struct sock *sk, long timeout)`
#[fentry(function = "tcp_close")]
pub fn close_fentry(ctx: FEntryContext) -> i32 {
    let _ = try_close(Sock::<Direct>::new(ctx.arg(0)));
    0
}

#[kprobe(function = "tcp_close")]
pub fn close_kprobe(ctx: ProbeContext) -> u32 {
    let _ = ctx.arg(0).and_then(|sock| try_close(Sock::<Probe>::new(sock)));
    0
}

#[inline(always)]
fn try_close<A: Access>(sock: Sock<A>) -> Outcome {
    let record = find_or_adopt(sock)?;
    if record.flags & flag::FINISHED != 0 {
        remove(sock);
        return None;
    }
    let at = now();
    record.released_at = at;
    note_releaser::<A>(record);
    send_socket(record, kind::RELEASED, at);
    if record.ended_at != 0 {
        remove(sock);
    }
    Some(())
}

/// Who lets go is the owner: a worker that was handed the socket, not the process that accepted it.
#[inline(always)]
fn note_releaser<A: Access>(record: &mut SocketRecord) {
    let (exiting, kernel_thread) = identity::current_state::<A>();
    if exiting {
        record.flags |= flag::PROCESS_EXITED;
    }
    if identity::current_ids().0 != record.tgid && !kernel_thread {
        identity::own::<A>(record);
    }
}
