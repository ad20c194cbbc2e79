//! TLS libraries are called: probes on their functions, see [`user`](super::user).

pub mod gnutls;
pub mod go;
pub mod openssl;

use aya_ebpf::{
    helpers::{bpf_probe_read_user, generated::bpf_probe_read_user as copy_user},
    programs::ProbeContext,
};
use tracer_ebpf::{
    Loss,
    http::{Beginning, HEAD_LEN, HeadRecord, INDEX_UNKNOWN, beginning, flag},
    kind,
    ssl::FRAME_BITS,
};

use super::{
    Outcome,
    user::{called_at, place, stack},
};
use crate::{
    identity::current_ids,
    kernel::{access::Probe, file::File},
    maps::config,
    output::{count, now, send_filled},
    selection::current_process_selected,
    session::{Direction, Http, LibraryCall, Session, What, last_call, note_call},
    user_stack::{is_under_way, word},
    verifier::at_most,
};

/// Takes in that the current thread calls into a library. Returns the session, if the process is traced.
#[inline(always)]
fn enter(
    ctx: &ProbeContext,
    family: u32,
    ssl: u64,
    what: What,
    buffer: u64,
    taken_at: u64,
) -> Option<&'static mut Session> {
    if ssl == 0 || !current_process_selected() {
        return None;
    }
    let session = Session::find_or_make(ssl)?;
    let place = place(ctx);
    let stack = called_at(ctx, place);
    if what == What::Other && last_call().is_some_and(|call| call.what == What::Read && is_inside(call, ssl, stack)) {
        // BoringSSL reads by peeking.
        return Some(session);
    }
    let is_joined = session.id().is_some();
    if !is_joined {
        (session.family, session.library) = (family, place >> FRAME_BITS);
    }
    let returns_to = word(stack).unwrap_or(0);
    note_call(LibraryCall { ssl, buffer, taken_at, stack, returns_to, what, is_joined, reserved: [0; 3] });
    Some(session)
}

/// Whether a call of this session is under way on the current thread.
#[inline(always)]
fn is_inside(call: &LibraryCall, ssl: u64, stack: u64) -> bool {
    call.ssl == ssl && is_under_way(call.stack, call.returns_to, stack)
}

/// A library is handed a socket's descriptor.
#[inline(always)]
fn try_set_descriptor(ctx: &ProbeContext, family: u32, ssl: u64, descriptor: i32) -> Outcome {
    let session = enter(ctx, family, ssl, What::Other, 0, 0)?;
    session.renew(File::<Probe>::of_descriptor(descriptor).and_then(File::sock));
    Some(())
}

/// A library frees a session.
#[inline(always)]
fn try_free(ssl: u64) -> Outcome {
    if current_process_selected() {
        Session::forget(ssl);
    }
    Some(())
}

/// A library is handed plaintext to send.
#[inline(always)]
fn try_write(ctx: &ProbeContext, family: u32, ssl: u64, buffer: u64, length: u64) -> Outcome {
    let session = enter(ctx, family, ssl, What::Other, 0, 0)?;
    pass(session, Direction::Out, buffer, length)
}

/// A library is asked for plaintext. Where it will be is kept for the return.
#[inline(always)]
fn try_read(ctx: &ProbeContext, family: u32, ssl: u64, buffer: u64, taken_at: u64) -> Option<&'static mut Session> {
    enter(ctx, family, ssl, What::Read, buffer, taken_at)
}

/// A read returns, or another call of a function that it may end in by a jump. `taken` tells how many bytes it took, by where the caller
/// wants to know it.
#[inline(always)]
fn try_has_read(ctx: &ProbeContext, taken: impl FnOnce(u64) -> Option<u64>) -> Outcome {
    let call = last_call()?;
    // What is called within the read returns further down, and what is called after it to another place.
    let stack = stack(ctx);
    if call.what != What::Read || stack != call.stack || word(stack) != Some(call.returns_to) {
        return None;
    }
    call.what = What::Other;
    let length = taken(call.taken_at)?;
    let session = Session::find(call.ssl)?;
    session.direction = session.direction.has_read();
    pass(session, Direction::In, call.buffer, length)
}

/// Plaintext passes. The first of each turn is looked at for an HTTP head.
#[inline(always)]
fn pass(session: &mut Session, direction: Direction, buffer: u64, length: u64) -> Outcome {
    if session.direction == direction || length == 0 {
        return None;
    }
    session.direction = direction;
    if config!(heads) == 0 || session.http == Http::No || session.is_ambiguous() || length < size_of::<u64>() as u64 {
        return None;
    }
    // SAFETY: the helper checks the address and fails on a bad one.
    let Ok(first) = (unsafe { bpf_probe_read_user(buffer as *const [u8; 8]) }) else {
        count(Loss::UnreadablePayload);
        return None;
    };
    session.http = match (beginning(first), session.http) {
        (None, Http::Yes) => return None,
        (None, _) => {
            session.http = Http::No;
            return None;
        }
        // What follows is in frames.
        (Some(Beginning::Http2), _) => Http::No,
        (Some(_), _) => Http::Yes,
    };
    send_head(session, direction, buffer, length)
}

#[inline(always)]
fn send_head(session: &Session, direction: Direction, buffer: u64, length: u64) -> Outcome {
    send_filled(|record: *mut HeadRecord| {
        // SAFETY: memory of that size that is ours until it is sent, for which all bytes are valid.
        let record = unsafe { &mut *record };
        let copied = at_most::<{ HEAD_LEN as i32 }>(length);
        // SAFETY: there is room for so many bytes; the helper checks the source and fails on a bad one.
        if unsafe { copy_user(record.bytes.as_mut_ptr().cast(), copied as u32, buffer as *const _) } != 0 {
            count(Loss::UnreadablePayload);
            return None;
        }
        record.kind = kind::HEAD;
        record.length = copied as u32;
        record.at = now();
        record.id = session.id().unwrap_or(0);
        record.session = session.number;
        record.tgid = current_ids().0;
        record.flags = if direction == Direction::Out { flag::SENT } else { 0 };
        record.index = INDEX_UNKNOWN;
        record.reserved = 0;
        Some(())
    })
}
