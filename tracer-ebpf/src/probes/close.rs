//! The application lets go of a socket. Hook: `tcp_close`; it runs at the last reference, in the context of the process
//! that dropped it (one that ends included).

use aya_ebpf::{
    EbpfContext as _,
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
    overlap::{Event, Hook, programs, serve},
    socket::{count_last_sent, find, find_or_adopt, full_barrier, remove},
};

programs! {
    /// `void tcp_close(struct sock *sk, long timeout)`
    #[fentry(function = "tcp_close")]
    close(FEntryContext):
    1 close_fentry, 2 close_2_fentry, 3 close_3_fentry, 4 close_4_fentry, 5 close_5_fentry, 6 close_6_fentry
}

#[inline(always)]
fn close<const PROGRAM: u32>(ctx: &FEntryContext) -> Outcome {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    let event = Event::new(ctx.as_ptr(), sock.pointer);
    serve::<PROGRAM>(Hook::Close, event, || is_served(sock), || try_close(sock))
}

#[kprobe(function = "tcp_close")]
pub fn close_kprobe(ctx: ProbeContext) -> u32 {
    let _ = ctx.arg(0).and_then(|sock| try_close(Sock::<Probe>::new(sock)));
    0
}

/// Whether the release has left its mark.
#[inline(always)]
fn is_served(sock: Sock<Direct>) -> bool {
    find(sock).is_some_and(|record| record.released_at != 0)
}

#[inline(always)]
fn try_close<A: Access>(sock: Sock<A>) -> Outcome {
    let record = find_or_adopt(sock)?;
    if record.flags & flag::FINISHED != 0 {
        remove(sock);
        return None;
    }
    let at = now();
    note_releaser::<A>(record);
    record.released_at = at;
    count_last_sent(record, sock, sock.state().unwrap_or(0));
    // Most often TCP ends after this, and the event of that end carries the release too.
    if has_ended(record) {
        send_socket(record, kind::RELEASED, at);
        remove(sock);
    }
    Some(())
}

/// Whether TCP was done with the connection before the release. `tcp_close` holds no lock yet, so a reset may end the
/// connection on another processor at this moment: with a barrier on both sides at least one sees what the other wrote,
/// and user space drops the second of two last words.
#[inline(always)]
fn has_ended(record: &mut SocketRecord) -> bool {
    full_barrier();
    // SAFETY: a field of a live record; volatile, because another processor may write it.
    unsafe { core::ptr::read_volatile(&raw const record.ended_at) != 0 }
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
