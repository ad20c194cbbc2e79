//! GnuTLS.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use tracer_ebpf::ssl::family::GNUTLS;

use super::{
    Outcome, enter, keep_stack_apart, result, try_free, try_has_read, try_read, try_set_descriptor, try_write,
};
use crate::session::{Direction, What};

/// `ssize_t gnutls_record_send(gnutls_session_t session, const void *data, size_t data_size)`, and others that begin so
#[uprobe]
pub fn gnutls_send(ctx: ProbeContext) -> u32 {
    keep_stack_apart(&ctx);
    let _ = (|| try_write(&ctx, GNUTLS, ctx.arg(0)?, ctx.arg(1)?, ctx.arg(2)?))();
    0
}

/// `ssize_t gnutls_record_recv(gnutls_session_t session, void *data, size_t data_size)`
#[uprobe]
pub fn gnutls_receive(ctx: ProbeContext) -> u32 {
    keep_stack_apart(&ctx);
    let _ = (|| {
        let session = try_read(&ctx, GNUTLS, ctx.arg(0)?, ctx.arg(1)?, 0)?;
        // It leaves by a jump, so its return is not seen: what is sent next may begin a turn.
        session.direction = Direction::None;
        Some(())
    })();
    0
}

/// Its return instruction: how many bytes it took, 0 at the end, negative for an error.
#[uprobe]
pub fn gnutls_has_received(ctx: ProbeContext) -> u32 {
    keep_stack_apart(&ctx);
    let _ = try_has_read(&ctx, |_| u64::try_from(result(&ctx) as i64).ok());
    0
}

/// Any other call by which records may be sent, such as `int gnutls_handshake(gnutls_session_t session)`.
#[uprobe]
pub fn gnutls_call(ctx: ProbeContext) -> u32 {
    keep_stack_apart(&ctx);
    let _ = ctx.arg(0).and_then(|session| enter(&ctx, GNUTLS, session, What::Other, 0, 0).map(drop));
    0
}

/// `void gnutls_transport_set_int2(gnutls_session_t session, int recv_int, int send_int)` and
/// `void gnutls_transport_set_ptr2(gnutls_session_t session, gnutls_transport_ptr_t recv_ptr, gnutls_transport_ptr_t send_ptr)`
#[uprobe]
pub fn gnutls_set_two(ctx: ProbeContext) -> u32 {
    keep_stack_apart(&ctx);
    let _ = (|| try_set(&ctx, ctx.arg(0)?, ctx.arg(2)?))();
    0
}

/// `void gnutls_transport_set_ptr(gnutls_session_t session, gnutls_transport_ptr_t ptr)`
#[uprobe]
pub fn gnutls_set_one(ctx: ProbeContext) -> u32 {
    keep_stack_apart(&ctx);
    let _ = (|| try_set(&ctx, ctx.arg(0)?, ctx.arg(1)?))();
    0
}

/// What is handed over is a descriptor, unless the application sends by a function of its own. A pointer is no number of an open
/// file: tables of files are far smaller than any address.
#[inline(always)]
fn try_set(ctx: &ProbeContext, session: u64, descriptor: u64) -> Outcome {
    let descriptor = if descriptor > i32::MAX as u64 { -1 } else { descriptor as i32 };
    try_set_descriptor(ctx, GNUTLS, session, descriptor)
}

/// `void gnutls_deinit(gnutls_session_t session)`
#[uprobe]
pub fn gnutls_free(ctx: ProbeContext) -> u32 {
    keep_stack_apart(&ctx);
    let _ = ctx.arg(0).and_then(try_free);
    0
}
