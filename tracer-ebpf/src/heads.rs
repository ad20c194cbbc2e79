//! HTTP heads on connections without TLS: the first bytes of an exchange's ask and answer, where they begin like a head. What a
//! head says, user space reads.
//!
//! A connection whose first ask is no head carries another protocol, and nothing of it is looked at any more. Neither is what
//! comes behind the preface of HTTP/2, a switch to another protocol (101), or a tunnel (CONNECT).

use tracer_ebpf::{
    http::{Beginning, HEAD_LEN, HeadRecord, beginning, flag},
    kind,
    tls::handshake::phase,
};

use crate::{
    follow::Call, identity::current_ids, kept::Kept, kernel::access::Access, maps::config, message::Hook,
    output::send_head,
};

/// How many asks of a new connection are looked at for a head before it is given up.
pub const FIRST_ASK: u8 = 1;
/// The same of a connection older than the trace, which may be in the middle of a body.
pub const LATER_ASKS: u8 = 16;

/// [`Kept::heads`] is a number of looks, or these bits. It carries HTTP/1.
const HTTP: u8 = 1 << 7;
/// The answer so far was an interim one: another follows.
const INTERIM: u8 = 1 << 6;
/// A tunnel was asked for.
const TUNNEL: u8 = 1 << 5;

/// Bytes of an answer up to the end of its status, which are its first 12, read at once.
const STATUS_LEN: usize = 16;
/// Where the status begins.
const STATUS_AT: usize = 9;

/// Begins to look for heads, in so many asks.
#[inline(always)]
pub fn look_for(kept: &mut Kept, asks: u8) {
    if config!(heads) != 0 {
        kept.heads = asks;
    }
}

/// Whether a message that has been taken for application data is to be looked at.
#[inline(always)]
pub fn are_looked_for(kept: &Kept) -> bool {
    config!(heads) != 0 && kept.heads != 0
}

/// Looks at a message that has been taken into the exchanges, and sends it on if it may begin with a head.
#[inline(always)]
pub fn look<A: Access>(kept: &mut Kept, call: Call<A>) {
    let asks = call.from_client;
    if !matches!(kept.detailed.handshake.phase, phase::LOOKING | phase::PLAIN) {
        kept.heads = 0;
    } else if asks && kept.detailed.exchanges.asked_at == call.at {
        look_at_ask(kept, call);
    } else if !asks && kept.heads & HTTP != 0 {
        look_at_answer(kept, call);
    }
}

/// The message is the first of an exchange.
#[inline(always)]
fn look_at_ask<A: Access>(kept: &mut Kept, call: Call<A>) {
    let found = call.source.head::<8>().and_then(beginning);
    kept.heads = match found {
        Some(Beginning::Request) => HTTP,
        Some(Beginning::Connect) => HTTP | TUNNEL,
        Some(Beginning::Http2) => 0,
        // The rest of a request whose body waited for an answer.
        _ if kept.heads & HTTP != 0 => kept.heads & HTTP,
        _ => kept.heads - 1,
    };
    if matches!(found, Some(Beginning::Request | Beginning::Connect | Beginning::Http2)) {
        send(kept, call);
    }
}

#[inline(always)]
fn look_at_answer<A: Access>(kept: &mut Kept, call: Call<A>) {
    if kept.detailed.exchanges.answered_at != call.at && kept.heads & INTERIM == 0 {
        return;
    }
    let Some(bytes) = call.source.head::<STATUS_LEN>() else { return };
    let [a, b, c, d, e, f, g, h, ..] = bytes;
    if beginning([a, b, c, d, e, f, g, h]) != Some(Beginning::Status) {
        kept.heads &= !INTERIM;
        return;
    }
    kept.heads = match (bytes[STATUS_AT], bytes[STATUS_AT + 1], bytes[STATUS_AT + 2]) {
        (b'1', b'0', b'1') => 0,
        (b'1', ..) => kept.heads | INTERIM,
        (b'2', ..) if kept.heads & TUNNEL != 0 => 0,
        _ => HTTP,
    };
    send(kept, call);
}

/// Sends the first bytes of a message to user space.
#[inline(always)]
fn send<A: Access>(kept: &Kept, call: Call<A>) {
    let Some(message) = call.source.copy_head(call.by) else { return };
    let sent = matches!(call.by.hook, Hook::Send);
    message.kind = kind::HEAD;
    message.at = call.at;
    message.id = kept.detailed.socket.id;
    message.session = 0;
    message.tgid = current_ids().0;
    message.flags = if sent { flag::SENT } else { 0 };
    message.index = kept.detailed.exchanges.count.wrapping_sub(1);
    message.reserved = 0;
    send_head(message);
}

const _: () = assert!(FIRST_ASK < TUNNEL && LATER_ASKS < TUNNEL && STATUS_AT + 3 <= STATUS_LEN);
const _: () = assert!(size_of::<HeadRecord>() <= crate::message::ROOM && HEAD_LEN <= i32::MAX as usize);
