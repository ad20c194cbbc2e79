//! GnuTLS.

use tracer_ebpf::ssl::family::GNUTLS;

use super::{enter, try_free, try_has_read, try_read, try_set_descriptor, try_write};
use crate::{
    probes::user::{programs, result},
    session::What,
};

programs! {
    /// `ssize_t gnutls_record_send(gnutls_session_t session, const void *data, size_t data_size)`, and others that begin so
    fn gnutls_send(ctx) {
        try_write(ctx, GNUTLS, ctx.arg(0)?, ctx.arg(1)?, ctx.arg(2)?)
    }

    /// `ssize_t gnutls_record_recv(gnutls_session_t session, void *data, size_t data_size)`
    fn gnutls_receive(ctx) {
        let session = try_read(ctx, GNUTLS, ctx.arg(0)?, ctx.arg(1)?, 0)?;
        // Not in every build of the library can its return be probed.
        session.direction = session.direction.reading();
        Some(())
    }

    /// Its return instructions, most of them in a function that it ends in by a jump: how many bytes it took, 0 at the end, negative for an error.
    fn gnutls_has_received(ctx) {
        try_has_read(ctx, |_| Some(u64::try_from(result(ctx) as i64).unwrap_or(0)))
    }

    /// Any other call by which records may be sent, such as `int gnutls_handshake(gnutls_session_t session)`.
    fn gnutls_call(ctx) {
        enter(ctx, GNUTLS, ctx.arg(0)?, What::Other, 0, 0).map(drop)
    }

    /// `void gnutls_transport_set_int2(gnutls_session_t session, int recv_int, int send_int)` and
    /// `void gnutls_transport_set_ptr2(gnutls_session_t session, gnutls_transport_ptr_t recv_ptr, gnutls_transport_ptr_t send_ptr)`
    fn gnutls_set_two(ctx) {
        try_set_descriptor(ctx, GNUTLS, ctx.arg(0)?, descriptor(ctx.arg(2)?))
    }

    /// `void gnutls_transport_set_ptr(gnutls_session_t session, gnutls_transport_ptr_t ptr)`
    fn gnutls_set_one(ctx) {
        try_set_descriptor(ctx, GNUTLS, ctx.arg(0)?, descriptor(ctx.arg(1)?))
    }

    /// `void gnutls_deinit(gnutls_session_t session)`
    fn gnutls_free(ctx) {
        try_free(ctx.arg(0)?)
    }
}

/// What is handed over is a descriptor, unless the application sends by a function of its own. A pointer is no number of an open
/// file: tables of files are far smaller than any address.
#[inline(always)]
fn descriptor(handed_over: u64) -> i32 {
    if handed_over > i32::MAX as u64 { -1 } else { handed_over as i32 }
}
