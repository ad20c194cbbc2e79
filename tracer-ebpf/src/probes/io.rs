//! Data passes: a connection's exchanges, its TLS, and DNS over TCP. Hooks: the entry of `tcp_sendmsg_locked`, where all that is sent comes
//! by with its bytes still in the application's memory, and the return of `tcp_recvmsg`, where what was received lies there.
//! `splice` and `sendfile` have ways of their own; their bytes are counted and not looked at. Only attached in detail
//! `exchanges`.

use aya_ebpf::{
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
    kept::{Kept, kept},
    kernel::{
        access::{Access, Direct, Pointer, Probe},
        msg::MsgHdr,
        sock::{Sock, TcpSock},
    },
    maps::offset,
    message::{Hook, Source},
    output::{now, send_exchange},
    socket::{can_send, find_or_adopt},
    verifier::hide,
};

/// Flags of a call to receive (`include/linux/socket.h`): nothing is consumed; errors and timestamps instead of data; the
/// data is thrown away.
const MSG_PEEK: i32 = 0x2;
const MSG_ERRQUEUE: i32 = 0x2000;
const MSG_TRUNC: i32 = 0x20;

/// `int tcp_sendmsg_locked(struct sock *sk, struct msghdr *msg, size_t size)`
#[fentry(function = "tcp_sendmsg_locked")]
#[inline(always)]
pub fn send_fentry(ctx: FEntryContext) -> i32 {
    let _ = try_send(Sock::<Direct>::new(ctx.arg(0)), Some(MsgHdr::<Direct>::new(ctx.arg(1))), ctx.arg(2));
    0
}

/// `int tcp_sendpage(struct sock *sk, struct page *page, int offset, size_t size, int flags)`, up to 6.4: `sendfile` and
/// `splice`; since then they come through `tcp_sendmsg_locked`.
#[fentry(function = "tcp_sendpage")]
pub fn send_page_fentry(ctx: FEntryContext) -> i32 {
    let _ = try_send::<Direct>(Sock::new(ctx.arg(0)), None, ctx.arg(3));
    0
}

#[kprobe(function = "tcp_sendpage")]
pub fn send_page_kprobe(ctx: ProbeContext) -> u32 {
    let _ = (|| try_send(Sock::<Probe>::new(ctx.arg(0)?), None, ctx.arg(3)?))();
    0
}

/// `int sk_stream_wait_memory(struct sock *sk, long *timeo_p)`: a send that has to wait for room goes on.
#[fexit(function = "sk_stream_wait_memory")]
pub fn send_goes_on_fexit(ctx: FExitContext) -> i32 {
    let _ = try_send_on(Sock::<Direct>::new(ctx.arg(0)));
    0
}

/// The fallback sees it begin to wait; the time until the last time that it waits is known.
#[kprobe(function = "sk_stream_wait_memory")]
pub fn send_waits_kprobe(ctx: ProbeContext) -> u32 {
    let _ = ctx.arg(0).and_then(|sock| try_send_on(Sock::<Probe>::new(sock)));
    0
}

/// `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int nonblock, int flags, int *addr_len)`, up to 5.18. In a
/// fexit context the return value stands behind the arguments. Where there is one argument fewer, the kernel refuses this.
#[fexit(function = "tcp_recvmsg")]
#[inline(always)]
pub fn receive_6_fexit(ctx: FExitContext) -> i32 {
    let _ = try_receive(Sock::<Direct>::new(ctx.arg(0)), Some(MsgHdr::new(ctx.arg(1))), ctx.arg(4), ctx.arg(6));
    0
}

/// `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags, int *addr_len)`, from then on.
#[fexit(function = "tcp_recvmsg")]
#[inline(always)]
pub fn receive_5_fexit(ctx: FExitContext) -> i32 {
    let _ = try_receive(Sock::<Direct>::new(ctx.arg(0)), Some(MsgHdr::new(ctx.arg(1))), ctx.arg(3), ctx.arg(5));
    0
}

/// `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags)`, on the newest kernels.
#[fexit(function = "tcp_recvmsg")]
#[inline(always)]
pub fn receive_4_fexit(ctx: FExitContext) -> i32 {
    let _ = try_receive(Sock::<Direct>::new(ctx.arg(0)), Some(MsgHdr::new(ctx.arg(1))), ctx.arg(3), ctx.arg(4));
    0
}

/// `ssize_t tcp_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t len, unsigned int flags)`
#[fexit(function = "tcp_splice_read")]
pub fn splice_read_fexit(ctx: FExitContext) -> i32 {
    let _ = Direct::read(ctx.arg(0), offset!(socket_sk))
        .and_then(|sock: Pointer| try_receive(Sock::<Direct>::new(sock), None, 0, ctx.arg(5)));
    0
}

/// The fallback looks at no bytes: of what is received it could not, and half a handshake is none.
#[kprobe(function = "tcp_sendmsg_locked")]
pub fn send_kprobe(ctx: ProbeContext) -> u32 {
    let _ = (|| try_send(Sock::<Probe>::new(ctx.arg(0)?), None, ctx.arg(2)?))();
    0
}

/// `void tcp_cleanup_rbuf(struct sock *sk, int copied)`. A return probe knows no arguments, so the fallback hooks what runs at
/// the end of a receive. The application's memory is out of its sight.
#[kprobe(function = "tcp_cleanup_rbuf")]
pub fn received_kprobe(ctx: ProbeContext) -> u32 {
    let _ = (|| try_receive(Sock::<Probe>::new(ctx.arg(0)?), None, 0, ctx.arg(1)?))();
    0
}

/// `msg` is `None` where the bytes are not in the application's memory.
#[inline(always)]
fn try_send<A: Access>(sock: Sock<A>, msg: Option<MsgHdr<A>>, size: u64) -> Outcome {
    let kept = live(sock)?;
    if size == 0 {
        return None;
    }
    let at = now();
    let tcp = sock.tcp();
    count_sent(&mut kept.detailed.exchanges, tcp);
    let is_client = kept.detailed.socket.role != role::SERVER;
    let what = match msg {
        Some(msg) => {
            if may_be_dns(kept) {
                let _ = dns::try_sent_stream(sock, msg);
            }
            let source = Source::ToSend(msg.iter());
            let length = if size > u64::from(u32::MAX) { u32::MAX } else { size as u32 };
            look(kept, Call { hook: Hook::Send, source, length, from_client: is_client, at, tcp })
        }
        None => Look::Data,
    };
    let socket = &kept.detailed.socket;
    let stale = is_client && socket.end_sign_at != 0 && socket.state_at_end == tcp_state::CLOSE_WAIT;
    let received_before = kept.detailed.exchanges.received;
    pass(kept, Hook::Send, what, Passed { at, asks: is_client, stale, received_before });
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

#[inline(always)]
fn try_receive<A: Access>(sock: Sock<A>, msg: Option<MsgHdr<A>>, flags: i32, copied: i32) -> Outcome {
    if copied <= 0 || flags & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
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
    let what = match msg {
        Some(msg) if flags & MSG_TRUNC == 0 => {
            if may_be_dns(kept) {
                let _ = dns::try_received_stream(sock, msg, u64::from(copied));
            }
            let source = Source::Received(msg.iter(), copied);
            look(kept, Call { hook: Hook::Receive, source, length: copied, from_client: is_server, at, tcp })
        }
        _ => Look::Data,
    };
    pass(kept, Hook::Receive, what, Passed { at, asks: is_server, stale: false, received_before });
    Some(())
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

/// Brings the count of bytes sent up to date.
#[inline(always)]
fn count_sent<A: Access>(exchanges: &mut Exchanges, tcp: Option<TcpSock<A>>) {
    let Some(write_seq) = tcp.and_then(TcpSock::write_seq) else { return };
    if exchanges.flags & exchange::flag::COUNTING_SENT == 0 {
        exchanges.write_seq = write_seq;
        exchanges.flags |= exchange::flag::COUNTING_SENT;
    }
    exchanges.count_sent(write_seq);
}

/// Brings the count of bytes received up to date by the `copied` that a call has handed over. `false` if none were taken: they
/// were only looked at.
#[inline(always)]
fn count_received<A: Access>(exchanges: &mut Exchanges, tcp: Option<TcpSock<A>>, copied: u32) -> bool {
    let Some(copied_seq) = tcp.and_then(TcpSock::copied_seq) else { return true };
    if exchanges.flags & exchange::flag::COUNTING_RECEIVED == 0 {
        exchanges.copied_seq = copied_seq.wrapping_sub(copied);
        exchanges.flags |= exchange::flag::COUNTING_RECEIVED;
    }
    exchanges.count_received(copied_seq, copied)
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
        Look::MaybeAlert => exchanges.hold(passed),
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
