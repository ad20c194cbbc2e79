//! Data passes: a connection's exchanges, its TLS, and DNS over TCP. Hooks: the entry of `tcp_sendmsg_locked`, where all that is sent comes
//! by with its bytes still in the application's memory, and the return of `tcp_recvmsg`, where what was received lies there; the
//! fallback goes by its entry and what runs at its end. `splice` and `sendfile` have ways of their own; their bytes are counted and not
//! looked at. Only attached in detail `exchanges`.

use core::mem;

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_ANY,
    helpers::bpf_get_current_pid_tgid,
    macros::{fentry, fexit, kprobe},
    programs::{FEntryContext, FExitContext, ProbeContext},
};
use tracer_ebpf::{
    SocketRecord,
    dns::PORT,
    exchange::{self, Exchanges, Passed},
    flag, kind, role, tcp_state,
};

use super::{Outcome, dns};
use crate::{
    follow::{Call, Look, is_over, look},
    heads,
    kept::{Kept, LastSend, kept},
    kernel::{
        access::{Access, Direct, Pointer, Probe},
        msg::{MsgHdr, consumes},
        sock::{Sock, TcpSock},
    },
    maps::{READS, Read, config, offset},
    message::{Hook, Program, Source},
    output::{now, send_exchange},
    overlap::{self, Event, falls_to, programs, serve_by_mark},
    session,
    socket::{can_send, find, find_or_adopt},
    verifier::hide,
};

/// Flag of a call to receive (`include/linux/socket.h`): the data is thrown away.
const MSG_TRUNC: i32 = 0x20;

programs! {
    /// `int tcp_sendmsg_locked(struct sock *sk, struct msghdr *msg, size_t size)`
    #[fentry(function = "tcp_sendmsg_locked")]
    send(FEntryContext): 1 send_fentry, 2 send_2_fentry, 3 send_3_fentry, 4 send_4_fentry
}

#[inline(always)]
fn send<const PROGRAM: u32>(ctx: &FEntryContext) -> Outcome {
    let (sock, msg, size) = (Sock::<Direct>::new(ctx.arg(0)), MsgHdr::<Direct>::new(ctx.arg(1)), ctx.arg(2));
    let event = Event::new(ctx.as_ptr(), sock.pointer);
    if !falls_to::<PROGRAM>(overlap::Hook::Send, event, || was_sent(sock, size)) {
        return None;
    }
    try_send(sock, Some(msg), size, PROGRAM)
}

/// Whether this send was looked at before. One that was refused and comes again was.
#[inline(always)]
fn was_sent(sock: Sock<Direct>, size: u64) -> bool {
    let write_seq = sock.tcp().and_then(|tcp| tcp.write_seq());
    find(sock).is_some_and(|record| Some(kept(record).last_send) == LastSend::new(write_seq, size))
}

/// `int tcp_sendpage(struct sock *sk, struct page *page, int offset, size_t size, int flags)`, up to 6.4: `sendfile` and
/// `splice`; since then they come through `tcp_sendmsg_locked`.
#[fentry(function = "tcp_sendpage")]
pub fn send_page_fentry(ctx: FEntryContext) -> i32 {
    let _ = try_send::<Direct>(Sock::new(ctx.arg(0)), None, ctx.arg(3), 1);
    0
}

#[kprobe(function = "tcp_sendpage")]
pub fn send_page_kprobe(ctx: ProbeContext) -> u32 {
    let _ = (|| try_send(Sock::<Probe>::new(ctx.arg(0)?), None, ctx.arg(3)?, 1))();
    0
}

programs! {
    /// `int sk_stream_wait_memory(struct sock *sk, long *timeo_p)`: a send that has to wait for room goes on.
    #[fexit(function = "sk_stream_wait_memory")]
    send_goes_on(FExitContext): 1 send_goes_on_fexit, 2 send_goes_on_2_fexit, 3 send_goes_on_3_fexit
}

#[inline(always)]
fn send_goes_on<const PROGRAM: u32>(ctx: &FExitContext) -> Outcome {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    serve_by_mark::<PROGRAM>(overlap::Hook::SendGoesOn, ctx, sock.pointer, || try_send_on(sock))
}

/// The fallback sees it begin to wait; the time until the last time that it waits is known.
#[kprobe(function = "sk_stream_wait_memory")]
pub fn send_waits_kprobe(ctx: ProbeContext) -> u32 {
    let _ = ctx.arg(0).and_then(|sock| try_send_on(Sock::<Probe>::new(sock)));
    0
}

/// Declares the programs at the return of `tcp_recvmsg`. In a fexit context the return value stands behind the arguments, of
/// which kernels take 6 (up to 5.18), 5 or 4 (the newest). The kernel refuses a program that reads further; one that reads
/// less far would take an argument for the result, so they are tried in this order.
macro_rules! receive_programs {
    ($($body:ident, flags $flags:literal, result $result:literal: $($number:literal $name:ident),+;)*) => {$(
        programs! {
            /// `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, ..., int flags, ...)`
            #[fexit(function = "tcp_recvmsg")]
            $body(FExitContext): $($number $name),+
        }

        #[inline(always)]
        fn $body<const PROGRAM: u32>(ctx: &FExitContext) -> Outcome {
            let (sock, msg) = (Sock::<Direct>::new(ctx.arg(0)), MsgHdr::new(ctx.arg(1)));
            let (flags, result) = (ctx.arg($flags), ctx.arg($result));
            let event = Event::new(ctx.as_ptr(), sock.pointer);
            if !falls_to::<PROGRAM>(overlap::Hook::Receive, event, || consumes(flags, result) && is_counted(sock)) {
                return None;
            }
            // Data that was thrown away lies nowhere.
            let msg = (flags & MSG_TRUNC == 0).then_some(msg);
            try_receive(sock, flags, result, |_| Some((msg?, result as u32)), PROGRAM)
        }
    )*};
}

receive_programs! {
    receive_6, flags 4, result 6: 1 receive_6_fexit, 2 receive_6_2_fexit, 3 receive_6_3_fexit, 4 receive_6_4_fexit;
    receive_5, flags 3, result 5: 1 receive_5_fexit, 2 receive_5_2_fexit, 3 receive_5_3_fexit, 4 receive_5_4_fexit;
    receive_4, flags 3, result 4: 1 receive_4_fexit, 2 receive_4_2_fexit, 3 receive_4_3_fexit, 4 receive_4_4_fexit;
}

/// Whether all that was taken from TCP has been counted.
#[inline(always)]
fn is_counted(sock: Sock<Direct>) -> bool {
    let Some(record) = find(sock) else { return false };
    let exchanges = &kept(record).detailed.exchanges;
    exchanges.flags & exchange::flag::COUNTING_RECEIVED != 0
        && sock.tcp().and_then(|tcp| tcp.copied_seq()) == Some(exchanges.copied_seq)
}

programs! {
    /// `ssize_t tcp_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t len, unsigned int flags)`
    #[fexit(function = "tcp_splice_read")]
    splice_read(FExitContext): 1 splice_read_fexit, 2 splice_read_2_fexit, 3 splice_read_3_fexit
}

#[inline(always)]
fn splice_read<const PROGRAM: u32>(ctx: &FExitContext) -> Outcome {
    let socket: Pointer = ctx.arg(0);
    // What is counted is not counted again.
    serve_by_mark::<PROGRAM>(overlap::Hook::SpliceRead, ctx, socket, || {
        let sock = Sock::<Direct>::new(Direct::read(socket, offset!(socket_sk))?);
        try_receive(sock, 0, ctx.arg(5), |_| None, PROGRAM)
    })
}

#[kprobe(function = "tcp_sendmsg_locked")]
pub fn send_kprobe(ctx: ProbeContext) -> u32 {
    let _ = (|| try_send(Sock::<Probe>::new(ctx.arg(0)?), Some(MsgHdr::new(ctx.arg(1)?)), ctx.arg(2)?, 1))();
    0
}

/// A receive begins, of which [`received_kprobe`] will want to know where it puts what it takes.
#[kprobe(function = "tcp_recvmsg")]
pub fn receives_kprobe(ctx: ProbeContext) -> u32 {
    let _ = (|| keep_read(Sock::new(ctx.arg(0)?), MsgHdr::new(ctx.arg(1)?)))();
    0
}

/// `void tcp_cleanup_rbuf(struct sock *sk, int copied)`. A return probe knows no arguments, so the fallback hooks what runs at
/// the end of a receive, and before one waits for more; `copied` is all that it has taken by then.
#[kprobe(function = "tcp_cleanup_rbuf")]
pub fn received_kprobe(ctx: ProbeContext) -> u32 {
    let _ = (|| {
        let (sock, copied) = (Sock::<Probe>::new(ctx.arg(0)?), ctx.arg(1)?);
        let filled = filled(sock, copied);
        // Of a receive that had waited for more, `copied` has what was told before too.
        let copied = filled.map_or(copied, |(_, bytes)| bytes as i32);
        try_receive(sock, 0, copied, |fresh| filled.filter(|(_, bytes)| *bytes == fresh), 1)
    })();
    0
}

#[inline(always)]
fn keep_read(sock: Sock<Probe>, msg: MsgHdr<Probe>) -> Outcome {
    let kept = live(sock)?;
    // What is only looked at must not be taken for the first that is received.
    if let Some(copied_seq) = sock.tcp().and_then(TcpSock::copied_seq) {
        begin_to_count_received(&mut kept.detailed.exchanges, copied_seq);
    }
    let read = Read { sock: sock.pointer as u64, msg: msg.pointer as u64, left: msg.iter().left()? };
    let thread = bpf_get_current_pid_tgid();
    if let Some(kept) = READS.get_ptr_mut(thread) {
        // SAFETY: a live value of the map. If the thread has just been forgotten, it is another's, whose bytes go unlooked at.
        unsafe { *kept = read };
        return Some(());
    }
    READS.insert(thread, read, u64::from(BPF_ANY)).ok()
}

/// The message of the current thread's receive from this socket, and how many bytes were put there since the last look: at most the
/// `copied` that it has taken. `None` if it was none: they were thrown away or spliced, or it is not known where they went.
#[inline(always)]
fn filled(sock: Sock<Probe>, copied: i32) -> Option<(MsgHdr<Probe>, u32)> {
    // SAFETY: as above.
    let read = unsafe { &mut *READS.get_ptr_mut(bpf_get_current_pid_tgid())? };
    if read.sock != sock.pointer as u64 {
        return None;
    }
    let msg = MsgHdr::new(read.msg as Pointer);
    let left = msg.iter().left()?;
    let bytes = mem::replace(&mut read.left, left).wrapping_sub(left);
    (copied > 0 && bytes != 0 && bytes <= copied as u64).then_some((msg, bytes as u32))
}

/// `msg` is `None` where the bytes are not in the application's memory; `program` is the number of that of the hook.
#[inline(always)]
fn try_send<A: Access>(sock: Sock<A>, msg: Option<MsgHdr<A>>, size: u64, program: u32) -> Outcome {
    let kept = live(sock)?;
    if size == 0 {
        return None;
    }
    let at = now();
    let tcp = sock.tcp();
    let write_seq = count_sent(&mut kept.detailed.exchanges, tcp);
    if config!(preemptible) != 0
        && let Some(this) = LastSend::new(write_seq, size)
    {
        kept.last_send = this;
    }
    let is_client = kept.detailed.socket.role != role::SERVER;
    let length = if size > u64::from(u32::MAX) { u32::MAX } else { size as u32 };
    let call = |msg: MsgHdr<A>, tcp| {
        let by = Program { hook: Hook::Send, number: program };
        Call { by, source: Source::ToSend(msg.iter()), length, from_client: is_client, at, tcp }
    };
    let what = match msg {
        Some(msg) => {
            if may_be_dns(kept) {
                let _ = dns::try_sent_stream(sock, msg);
            }
            let _ = session::join(kept, sock, Source::ToSend(msg.iter()));
            look(kept, call(msg, tcp))
        }
        None => Look::Data,
    };
    let socket = &kept.detailed.socket;
    let stale = is_client && socket.end_sign_at != 0 && socket.state_at_end == tcp_state::CLOSE_WAIT;
    let received_before = kept.detailed.exchanges.received;
    pass(kept, Hook::Send, what, Passed { at, asks: is_client, stale, received_before });
    look_for_head(kept, msg, |msg| call(msg, None));
    Some(())
}

/// One call may send for long: its last byte does not pass when it begins.
#[inline(always)]
fn try_send_on<A: Access>(sock: Sock<A>) -> Outcome {
    let exchanges = &mut live(sock)?.detailed.exchanges;
    if exchanges.last_at != 0 {
        exchanges.last_at = now();
    }
    Some(())
}

/// `message` is asked where the bytes lie that were taken since the last look, of which it gets the number; it says how many are to be
/// looked at.
#[inline(always)]
fn try_receive<A: Access>(
    sock: Sock<A>,
    flags: i32,
    copied: i32,
    message: impl FnOnce(u32) -> Option<(MsgHdr<A>, u32)>,
    program: u32,
) -> Outcome {
    if !consumes(flags, copied) {
        return None;
    }
    let kept = live(sock)?;
    let at = now();
    let copied = copied as u32;
    let received_before = kept.detailed.exchanges.received;
    let tcp = sock.tcp();
    if !count_received(&mut kept.detailed.exchanges, tcp, copied) {
        return None;
    }
    let is_server = kept.detailed.socket.role == role::SERVER;
    // What was sent by the last call is only known now. A mere answer does not want to know. A FIN of our own takes up a
    // number too; nothing is sent after it. Without any sign of an end there was none.
    let is_answer = !is_server && kept.detailed.exchanges.count != 0 && is_over(kept);
    let may_send = || kept.detailed.socket.end_sign_at == 0 || sock.state().is_some_and(can_send);
    if !is_answer && may_send() {
        count_sent(&mut kept.detailed.exchanges, tcp);
    }
    let message = message(kept.detailed.exchanges.received.wrapping_sub(received_before) as u32);
    let call = |(msg, length): (MsgHdr<A>, u32), tcp| {
        let by = Program { hook: Hook::Receive, number: program };
        Call { by, source: Source::Received(msg.iter(), length), length, from_client: is_server, at, tcp }
    };
    let what = match message {
        Some((msg, length)) => {
            if may_be_dns(kept) {
                let _ = dns::try_received_stream(sock, msg, u64::from(length));
            }
            look(kept, call((msg, length), tcp))
        }
        None => Look::Data,
    };
    pass(kept, Hook::Receive, what, Passed { at, asks: is_server, stale: false, received_before });
    look_for_head(kept, message, |message| call(message, None));
    Some(())
}

/// Most messages end here: nothing is looked for. What is needed to look is put together only then: to keep it until here costs
/// more than that.
#[inline(always)]
fn look_for_head<A: Access, M>(kept: &mut Kept, message: Option<M>, call: impl FnOnce(M) -> Call<A>) {
    if let Some(message) = message
        && heads::are_looked_for(kept)
    {
        heads::look(kept, call(message));
    }
}

/// Whether a connection may carry messages of DNS: it goes to that port.
#[inline(always)]
fn may_be_dns(kept: &Kept) -> bool {
    kept.detailed.socket.remote_port == PORT
}

/// All that is kept of a traced connection whose life is not over.
#[inline(always)]
fn live<A: Access>(sock: Sock<A>) -> Option<&'static mut Kept> {
    let record: &'static mut SocketRecord = find_or_adopt(sock)?;
    if record.flags & flag::FINISHED != 0 {
        return None;
    }
    Some(hide(kept(record)))
}

/// Brings the count of bytes sent up to date. Returns TCP's number of the next.
#[inline(always)]
fn count_sent<A: Access>(exchanges: &mut Exchanges, tcp: Option<TcpSock<A>>) -> Option<u32> {
    let write_seq = tcp?.write_seq()?;
    if exchanges.flags & exchange::flag::COUNTING_SENT == 0 {
        exchanges.write_seq = write_seq;
        exchanges.flags |= exchange::flag::COUNTING_SENT;
    }
    exchanges.count_sent(write_seq);
    Some(write_seq)
}

/// Brings the count of bytes received up to date by the `copied` that a call has handed over. `false` if none were taken: they
/// were only looked at.
#[inline(always)]
fn count_received<A: Access>(exchanges: &mut Exchanges, tcp: Option<TcpSock<A>>, copied: u32) -> bool {
    let Some(copied_seq) = tcp.and_then(TcpSock::copied_seq) else { return true };
    begin_to_count_received(exchanges, copied_seq.wrapping_sub(copied));
    exchanges.count_received(copied_seq, copied)
}

/// Begins the count of bytes received with that of TCP's number, unless it has begun.
#[inline(always)]
fn begin_to_count_received(exchanges: &mut Exchanges, from: u32) {
    if exchanges.flags & exchange::flag::COUNTING_RECEIVED == 0 {
        exchanges.copied_seq = from;
        exchanges.flags |= exchange::flag::COUNTING_RECEIVED;
    }
}

#[inline(always)]
fn pass(kept: &mut Kept, hook: Hook, what: Look, passed: Passed) {
    let id = kept.detailed.socket.id;
    let answered = |exchanges: &Exchanges| send_answered(id, exchanges);
    let exchanges = &mut kept.detailed.exchanges;
    match what {
        Look::Data => exchanges.pass(passed, answered),
        Look::DataBehind(front) => {
            let count = exchanges.count;
            exchanges.pass(passed, answered);
            if exchanges.count != count {
                // The end of the handshake is no part of the exchange.
                match hook {
                    Hook::Send => exchanges.sent_before += u64::from(front),
                    Hook::Receive => exchanges.received_before += u64::from(front),
                }
            }
        }
        Look::MaybeAlert | Look::MaybeHello => exchanges.hold(passed),
        Look::MaybeTickets => exchanges.maybe_tickets(passed.at, answered),
        Look::NoData => {}
    }
}

/// A function of its own in the object: it is called from several places of one program.
#[inline(never)]
fn send_answered(id: u64, exchanges: &Exchanges) {
    send_exchange(exchanges.count, |record| {
        record.kind = kind::ANSWERED;
        record.index = exchanges.count.wrapping_sub(1);
        record.at = exchanges.answered_at;
        record.id = id;
        record.asked_at = exchanges.asked_at;
        record.ready_at = exchanges.ready_at;
        record.previous_at = exchanges.previous_at;
        record.sent_before = exchanges.sent_before;
        record.received_before = exchanges.received_before;
        record.flags = exchanges.flags;
        record.reserved = 0;
    });
}
