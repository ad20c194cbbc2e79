//! Go's `crypto/tls`, from 1.17 on, where arguments are passed in registers. A goroutine may go on in another thread, so what a read has
//! to remember is kept by goroutine.

use aya_ebpf::{bindings::BPF_ANY, programs::ProbeContext};
use tracer_ebpf::ssl::family::GO;

use super::{enter, pass};
use crate::{
    kernel::{
        access::{Pointer, Probe},
        file::File,
        registers,
        sock::Sock,
    },
    maps::GO_READS,
    probes::user::{programs, registers, result},
    session::{Direction, Session, SessionKey, What},
    user_stack::word,
};

/// Where an interface keeps its value, behind its type: `tls.Conn` begins with its `conn net.Conn`.
const VALUE: u64 = 8;
/// `net.TCPConn` begins with a pointer to `net.netFD`, which begins with a `poll.FD`: a lock of 16 bytes, the descriptor. So it has been
/// since Go 1.9.
const DESCRIPTOR: u64 = 16;
/// The lock's first word counts who uses the descriptor, from its fourth bit on. What is larger is no such lock, but the beginning of
/// another type than `net.TCPConn`.
const LARGEST_LOCK: u64 = 1 << 20;

programs! {
    /// `func (c *Conn) Write(b []byte) (int, error)`
    fn go_write(ctx) {
        let (conn, buffer, length) = arguments(ctx);
        pass(enter_go(ctx, conn, What::Other)?, Direction::Out, buffer, length)
    }

    /// `func (c *Conn) Read(b []byte) (int, error)`
    fn go_read(ctx) {
        let (conn, buffer, _) = arguments(ctx);
        enter_go(ctx, conn, What::Read)?;
        GO_READS.insert(goroutine(ctx), GoRead { conn, buffer }, u64::from(BPF_ANY)).ok()
    }

    /// Its return instructions: how many bytes it took.
    fn go_has_read(ctx) {
        let goroutine = goroutine(ctx);
        // SAFETY: only this goroutine writes its entry.
        let GoRead { conn, buffer } = unsafe { GO_READS.get(goroutine) }.copied()?;
        let _ = GO_READS.remove(goroutine);
        let length = u64::try_from(result(ctx) as i64).ok()?;
        pass(Session::find(conn)?, Direction::In, buffer, length)
    }
}

/// A read of a goroutine that is under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct GoRead {
    /// The `*tls.Conn`.
    conn: u64,
    /// Where it puts what it reads.
    buffer: u64,
}

/// Takes in a call. No function tells that a `tls.Conn` is done with, so each call looks which socket it has.
#[inline(always)]
fn enter_go(ctx: &ProbeContext, conn: u64, what: What) -> Option<&'static mut Session> {
    let session = enter(ctx, GO, conn, what, 0, 0)?;
    let sock = socket(conn);
    if !session.is_of(sock.map(Sock::<Probe>::new)) {
        session.renew(sock);
    }
    Some(session)
}

/// The socket of a `tls.Conn`, if what it is made on is a `net.TCPConn`.
#[inline(always)]
fn socket(conn: u64) -> Option<Pointer> {
    let connection = word(conn + VALUE)?;
    let descriptor = word(connection)?;
    if word(descriptor)? >= LARGEST_LOCK {
        return None;
    }
    let number = i32::try_from(word(descriptor + DESCRIPTOR)?).ok()?;
    File::<Probe>::of_descriptor(number)?.sock()
}

/// The receiver, and the slice's address and length.
#[inline(always)]
fn arguments(ctx: &ProbeContext) -> (u64, u64, u64) {
    registers::go_arguments(registers(ctx))
}

/// The current goroutine: its `g` has a register of its own.
#[inline(always)]
fn goroutine(ctx: &ProbeContext) -> SessionKey {
    SessionKey::of_current(registers::goroutine(registers(ctx)))
}
