//! A connection fails: keeps the socket's error. Hook: the function that tells the application, before it does: whoever is
//! told may ask for the error at once (`SO_ERROR`), which takes it away, and the state changes to CLOSE only after that.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use super::Outcome;
use crate::{
    kernel::{
        access::{Access, Direct, Probe},
        sock::Sock,
    },
    overlap::{Hook, programs, serve_by_mark},
    socket::{find, note_fatal_error},
};

programs! {
    /// `void sk_error_report(struct sock *sk)`, from 5.15 on.
    #[fentry(function = "sk_error_report")]
    error(FEntryContext): 1 error_fentry, 2 error_2_fentry, 3 error_3_fentry
}

programs! {
    /// `void sock_def_error_report(struct sock *sk)`, which is what the former calls, and what was called before there was one.
    #[fentry(function = "sock_def_error_report")]
    error(FEntryContext): 1 error_default_fentry, 2 error_default_2_fentry, 3 error_default_3_fentry
}

#[inline(always)]
fn error<const PROGRAM: u32>(ctx: &FEntryContext) -> Outcome {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    serve_by_mark::<PROGRAM>(Hook::Error, ctx, sock.pointer, || try_error(sock))
}

#[kprobe(function = "sock_def_error_report")]
pub fn error_kprobe(ctx: ProbeContext) -> u32 {
    let _ = ctx.arg(0).and_then(|sock| try_error(Sock::<Probe>::new(sock)));
    0
}

#[inline(always)]
fn try_error<A: Access>(sock: Sock<A>) -> Outcome {
    note_fatal_error(find(sock)?, sock);
    Some(())
}
