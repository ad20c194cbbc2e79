//! TLS as it passes: finds the beginning of a handshake, follows its records to the end, takes the processor times of the
//! threads that work on it, and tells alerts and session tickets from application data. What a record means stands in
//! `tracer_ebpf::tls::handshake`.

use tracer_ebpf::{
    TlsRecord, exchange, kind,
    tls::{
        handshake::{BODY_LEN, Handshake, Step, flag, phase},
        record::{ContentType, HEADER_LEN, Header},
        walk::Walk,
    },
};

use crate::{
    identity::current_ids,
    kept::{Kept, Sample},
    kernel::{
        access::{Access, Probe, newer_helpers},
        sock::TcpSock,
        task::Task,
    },
    message::{Hook, Message, Program, Source},
    output::{send_hello, send_tls},
    verifier::opaque,
};

/// How many asks of a connection are looked at for a ClientHello. TLS that begins in mid-stream (SMTP, IMAP, PostgreSQL,
/// MySQL, LDAP) does so within the first few.
pub const LOOKS: u8 = 16;
/// Most pieces of a hello message in each direction that go to user space: some libraries read a header byte by byte.
const PIECES: u8 = 16;
/// Most records of a server that may be session tickets. OpenSSL sends two, most others one.
const TICKETS: u8 = 2;
/// Longer records are no session tickets: OpenSSL's are about 250 bytes long, with a client's certificate inside 1,500.
const LONGEST_TICKET: u16 = 600;
/// Lengths of the client's last record of a TLS 1.3 handshake: head, hash of 32 or 48 bytes, content type and tag, with Java's 16
/// bytes of padding or without. A client's first protected record of another length holds its certificate: more of the
/// handshake follows it.
const FINISHED: [u32; 3] = [4 + 32 + 1 + 16, 4 + 48 + 1 + 16, 4 + 48 + 1 + 16 + 16];
/// Longer messages are no alerts: the longest is one in a block cipher with a long MAC.
const LONGEST_ALERT: u32 = 96;

/// What passed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Application data, as far as can be seen.
    Data,
    /// The end of a handshake, so many bytes long, and application data behind it.
    DataBehind(u32),
    /// Part of a handshake, or an alert.
    NoData,
    /// An alert, or a message as short as one.
    MaybeAlert,
    /// Session tickets, or a message as short as those.
    MaybeTickets,
    /// The header of a record that may hold a ClientHello, or the beginning of one, and nothing of its body.
    MaybeHello,
}

/// One call to send or receive.
#[derive(Clone, Copy)]
pub struct Call<A> {
    /// Who looks at it.
    pub by: Program,
    /// Where its bytes lie.
    pub source: Source<A>,
    /// How many they are.
    pub length: u32,
    /// Whether the client sent them.
    pub from_client: bool,
    /// When.
    pub at: u64,
    /// The socket's TCP part.
    pub tcp: Option<TcpSock<A>>,
}

/// Whether nothing of a handshake is looked for any more: it is done, or never came.
#[inline(always)]
pub fn is_over(kept: &Kept) -> bool {
    matches!(kept.detailed.handshake.phase, phase::PLAIN | phase::DONE)
}

/// Looks at what passes.
#[inline(always)]
pub fn look<A: Access>(kept: &mut Kept, call: Call<A>) -> Look {
    let phase = kept.detailed.handshake.phase;
    match phase {
        phase::PLAIN => return Look::Data,
        phase::FAILED => return Look::NoData,
        phase::DONE => return after_handshake(kept, call),
        _ => {}
    }
    if phase == phase::LOOKING && !may_be_hello(kept, call) {
        return Look::Data;
    }
    let seen = follow(kept, call);
    // Volatile: where the compiler sees that the phase has not changed, it prepares nothing for the case that it has, and the
    // verifier, which does not see it, goes there.
    // SAFETY: a field of a live value.
    let phase_now = unsafe { (&raw const kept.detailed.handshake.phase).read_volatile() };
    if phase_now == phase::LOOKING {
        if kept.walks[1].is_at_header() {
            return Look::MaybeHello;
        }
        // The body is at hand, and it is no ClientHello.
        kept.walks[1].restart();
        return Look::Data;
    }
    seen
}

/// A handshake begins with a ClientHello at the beginning of a message of the client.
#[inline(always)]
fn may_be_hello<A: Access>(kept: &mut Kept, call: Call<A>) -> bool {
    if !call.from_client {
        return false;
    }
    if !kept.walks[1].is_between_records() {
        return true;
    }
    if call.length >= HEADER_LEN as u32 {
        // Some servers read lines byte by byte: what is shorter than a header does not count.
        if kept.looks == 0 {
            kept.detailed.handshake.phase = phase::PLAIN;
            return false;
        }
        kept.looks -= 1;
    }
    kept.pieces = [PIECES; 2];
    kept.sample.tid = 0;
    if call.length >= HEADER_LEN as u32 {
        return call
            .source
            .head::<HEADER_LEN>()
            .and_then(|bytes| Header::parse(&bytes))
            .is_some_and(Header::may_be_client_hello);
    }
    call.source.head::<1>().is_some_and(|[byte]| byte == ContentType::Handshake as u8)
}

/// Follows the records of a handshake through one call.
#[inline(always)]
fn follow<A: Access>(kept: &mut Kept, call: Call<A>) -> Look {
    sample::<A>(kept, call.at);
    let started_at = kept.detailed.handshake.started_at;
    let Some(message) = call.source.copy(call.by) else {
        if call.from_client {
            kept.detailed.handshake.flags |= flag::LOST_TRACK;
        }
        return Look::NoData;
    };
    send_piece(kept, message, call);
    let step = walk(kept, message, call);
    let handshake = &mut kept.detailed.handshake;
    if handshake.started_at == call.at {
        if kept.detailed.exchanges.count != 0 {
            handshake.flags |= flag::MID_STREAM;
        }
        if let Some(held_at) = kept.detailed.exchanges.drop_held() {
            // The header came before.
            handshake.started_at = held_at;
        }
    }
    match step {
        Step::Goes => {}
        Step::Foreign => {
            // What passed for a ClientHello was data.
            kept.detailed.exchanges.held_ask(started_at);
            return Look::Data;
        }
        Step::Done { tickets } => {
            // Hidden: the compiler would read from a computed place, of which the verifier knows no bound.
            let remaining =
                if call.from_client { opaque(kept.walks[1].remaining) } else { opaque(kept.walks[0].remaining) };
            let [short, long, padded] = FINISHED;
            let is_finished = !tickets || remaining == short || remaining == long || remaining == padded;
            let seen = if is_finished { behind(remaining, message) } else { Look::NoData };
            kept.tickets = if tickets { TICKETS } else { 0 };
            kept.is_tls13 = tickets;
            kept.walks[0].restart();
            kept.walks[1].restart();
            ended(kept, call.at);
            let exchanges = &mut kept.detailed.exchanges;
            exchanges.ready_at = call.at;
            if exchanges.last_at != 0 {
                exchanges.last_at = call.at;
            }
            return seen;
        }
        Step::Failed => ended(kept, call.at),
    }
    Look::NoData
}

/// What follows the record that ends a handshake, at whose body the message stands. A library that gathers its writes sends the
/// first request along with it.
#[inline(always)]
fn behind(remaining: u32, message: &mut Message) -> Look {
    if message.left() <= remaining {
        return Look::NoData;
    }
    message.advance(remaining);
    let next = message.peek::<HEADER_LEN>().and_then(|bytes| Header::parse(&bytes));
    if next.is_some_and(|header| header.is_alert() || header.may_be_alert()) {
        return Look::NoData;
    }
    Look::DataBehind(message.position())
}

/// What is done with each record. A trait and not a closure: a closure becomes a function of its own, and the verifier wants
/// none that is handed pointers to the caller's stack and hands them back ("cannot return stack pointer to the caller").
trait Visit {
    /// Most steps over the records of one call: one a record, and one for each byte of a header that is cut.
    const STEPS: u32;

    /// Takes a record whose body is at hand; says whether to go on.
    fn record(&mut self, header: Header, message: &Message) -> bool;
}

/// Takes records to the handshake.
struct Steps<'h> {
    handshake: &'h mut Handshake,
    at: u64,
    from_client: bool,
    outcome: Step,
}

impl Visit for Steps<'_> {
    /// A full flight of TLS 1.2 or 1.3 has up to six records.
    const STEPS: u32 = 10;

    #[inline(always)]
    fn record(&mut self, header: Header, message: &Message) -> bool {
        let (body, known) = body_at(message);
        self.outcome = self.handshake.record(self.at, self.from_client, header, &body, known);
        self.outcome == Step::Goes
    }
}

/// Takes the records of a message to the handshake.
#[inline(always)]
fn walk<A: Access>(kept: &mut Kept, message: &mut Message, call: Call<A>) -> Step {
    let handshake = &mut kept.detailed.handshake;
    let mut steps = Steps { handshake, at: call.at, from_client: call.from_client, outcome: Step::Goes };
    let walk = if call.from_client { &mut kept.walks[1] } else { &mut kept.walks[0] };
    let is_followed = visit_records(walk, message, call.length, &mut steps);
    if !is_followed && call.from_client {
        // Before a ClientHello there is no track to lose.
        if steps.handshake.phase != phase::LOOKING {
            steps.handshake.flags |= flag::LOST_TRACK;
        }
    } else if !is_followed && steps.handshake.phase == phase::CLIENT_HELLO {
        return steps.handshake.foreign();
    }
    // What a server sends after its hello is of no interest in TLS 1.3, so losing track there costs nothing.
    steps.outcome
}

/// Steps over the records of a message. Returns whether they could be followed. If not, the next call is taken to begin a
/// record: libraries mostly read and write whole ones.
#[inline(always)]
fn visit_records<V: Visit>(walk: &mut Walk, message: &mut Message, length: u32, visit: &mut V) -> bool {
    message.rewind(length);
    let mut step = 0;
    while step < opaque(V::STEPS) {
        step += 1;
        if message.left() == 0 {
            return true;
        }
        if walk.remaining == 0 && !take_header(walk, message) {
            break;
        }
        if walk.remaining == 0 || message.left() == 0 {
            continue;
        }
        if walk.at_body != 0
            && let Some(header) = walk.header()
            && !visit.record(header, message)
        {
            return true;
        }
        let passed = walk.body(message.left());
        message.advance(passed);
    }
    let is_followed = message.left() == 0;
    if !is_followed {
        walk.restart();
    }
    is_followed
}

/// Takes a header, or one byte of a header that is cut. `false` if there is none.
#[inline(always)]
fn take_header(walk: &mut Walk, message: &mut Message) -> bool {
    if walk.is_between_records()
        && let Some(header) = message.peek::<HEADER_LEN>()
    {
        message.advance(HEADER_LEN as u32);
        return walk.whole_header(header);
    }
    let Some([byte]) = message.peek::<1>() else { return false };
    message.advance(1);
    walk.header_byte(byte)
}

/// The first bytes of a record's body, and how many of them are there.
#[inline(always)]
fn body_at(message: &Message) -> ([u8; BODY_LEN], u32) {
    let mut body = [0; BODY_LEN];
    if let Some(bytes) = message.peek::<BODY_LEN>() {
        return (bytes, BODY_LEN as u32);
    }
    if let Some([level, description]) = message.peek::<2>() {
        (body[0], body[1]) = (level, description);
        return (body, 2);
    }
    if let Some([first]) = message.peek::<1>() {
        body[0] = first;
        return (body, 1);
    }
    (body, 0)
}

/// Sends what holds, or may hold, part of a hello message to user space, which parses it.
#[inline(always)]
fn send_piece<A: Access>(kept: &mut Kept, message: &mut Message, call: Call<A>) {
    let handshake = &kept.detailed.handshake;
    // The server's is over with the record that it came in: what follows are certificates.
    let is_over = handshake.phase == phase::SERVER_HELLO && (call.from_client || kept.walks[0].remaining == 0);
    let left = if call.from_client { &mut kept.pieces[1] } else { &mut kept.pieces[0] };
    if is_over || *left == 0 {
        return;
    }
    *left -= 1;
    let hello = &mut message.hello;
    hello.kind = kind::HELLO;
    hello.at = call.at;
    hello.id = kept.detailed.socket.id;
    hello.from_client = u32::from(call.from_client);
    hello.left_out = call.length.saturating_sub(hello.length);
    send_hello(hello);
}

#[inline(always)]
fn ended(kept: &mut Kept, at: u64) {
    kept.detailed.handshake.ended_at = at;
    let record =
        TlsRecord { kind: kind::TLS, reserved: 0, at, id: kept.detailed.socket.id, handshake: kept.detailed.handshake };
    send_tls(&record);
}

/// Adds up what the thread ran and waited since the last call.
#[inline(always)]
fn sample<A: Access>(kept: &mut Kept, at: u64) {
    let now = if A::TYPED && newer_helpers() { thread::<A>(at) } else { thread::<Probe>(at) };
    let handshake = &mut kept.detailed.handshake;
    let Some(now) = now else {
        handshake.flags |= flag::CPU_UNKNOWN;
        return;
    };
    let before = kept.sample;
    kept.sample = now;
    if before.tid == now.tid {
        handshake.cpu += now.ran.saturating_sub(before.ran);
        handshake.runqueue += now.waited.saturating_sub(before.waited);
    } else if before.tid != 0 {
        handshake.flags |= flag::THREADS_CHANGED;
    }
}

#[inline(always)]
fn thread<A: Access>(at: u64) -> Option<Sample> {
    let task = Task::<A>::current();
    Some(Sample { ran: task.ran(at)?, waited: task.waited()?, tid: current_ids().1, reserved: 0 })
}

/// After the handshake: alerts, and what may be session tickets, are no application data.
#[inline(always)]
fn after_handshake<A: Access>(kept: &mut Kept, call: Call<A>) -> Look {
    if kept.tickets != 0 {
        if !call.from_client {
            return tickets(kept, call);
        }
        if kept.detailed.exchanges.answered_at != 0 {
            // Tickets come with the first answer or not at all.
            kept.tickets = 0;
        }
    }
    alerts(kept, call)
}

/// Whether a header that was read alone belongs to data, without a look at it: more is waiting behind it than alerts could be. In
/// TLS 1.3 the longest two, which Java sends, have 80 bytes together.
#[inline(always)]
fn is_header_of_data<A: Access>(kept: &Kept, call: Call<A>) -> bool {
    kept.is_tls13
        && call.by.hook == Hook::Receive
        && call.length == HEADER_LEN as u32
        && kept.detailed.exchanges.flags & exchange::flag::COUNTING_RECEIVED != 0
        && call.tcp.and_then(TcpSock::rcv_nxt).is_some_and(|next| {
            // The peer's FIN takes up a number too.
            next.wrapping_sub(kept.detailed.exchanges.copied_seq) > LONGEST_ALERT + 1
        })
}

#[inline(always)]
fn alerts<A: Access>(kept: &mut Kept, call: Call<A>) -> Look {
    if call.length <= u32::from(kept.alert_remaining) {
        kept.alert_remaining -= call.length as u16;
        return Look::MaybeAlert;
    }
    if call.length > LONGEST_ALERT || is_header_of_data(kept, call) {
        return Look::Data;
    }
    let Some(header) = call.source.head::<HEADER_LEN>().and_then(|bytes| Header::parse(&bytes)) else {
        return Look::Data;
    };
    if !header.is_alert() && !header.may_be_alert() {
        return Look::Data;
    }
    if call.length == HEADER_LEN as u32 {
        kept.alert_remaining = header.length;
    }
    if header.is_alert() { Look::NoData } else { Look::MaybeAlert }
}

/// What a server sends first in TLS 1.3 may be session tickets. They look like data; their length and place are all there is
/// to tell them by.
#[inline(always)]
fn tickets<A: Access>(kept: &mut Kept, call: Call<A>) -> Look {
    let Some(message) = call.source.copy(call.by) else { return Look::Data };
    let mut tickets = Tickets { left: kept.tickets, is_data: false };
    visit_records(&mut kept.walks[0], message, call.length, &mut tickets);
    kept.tickets = tickets.left;
    if !tickets.is_data {
        return Look::MaybeTickets;
    }
    kept.tickets = 0;
    if call.length <= LONGEST_ALERT { alerts(kept, call) } else { Look::Data }
}

/// Counts what may be session tickets, up to the first record that is none.
struct Tickets {
    left: u8,
    is_data: bool,
}

impl Visit for Tickets {
    /// The tickets, and what is none.
    const STEPS: u32 = TICKETS as u32 + 1 + HEADER_LEN as u32 - 1;

    #[inline(always)]
    fn record(&mut self, header: Header, _: &Message) -> bool {
        self.is_data = !header.is_application_data() || header.length > LONGEST_TICKET || self.left == 0;
        self.left = self.left.saturating_sub(1);
        !self.is_data
    }
}
