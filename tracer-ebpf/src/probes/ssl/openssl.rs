//! OpenSSL, and what has its interface: BoringSSL, LibreSSL.

use aya_ebpf::helpers::bpf_probe_read_user;
use tracer_ebpf::ssl::family::OPENSSL;

use super::{enter, is_inside, try_free, try_has_read, try_read, try_set_descriptor, try_write};
use crate::{
    probes::user::{programs, result, stack},
    selection::current_process_selected,
    session::{MARK_LEN, Session, What, last_call, note_record},
    user_stack::word,
};

programs! {
    /// `int SSL_write(SSL *ssl, const void *buf, int num)`
    fn ssl_write(ctx) {
        try_write(ctx, OPENSSL, ctx.arg(0)?, ctx.arg(1)?, positive(ctx.arg(2)?))
    }

    /// `int SSL_write_ex(SSL *s, const void *buf, size_t num, size_t *written)`
    fn ssl_write_ex(ctx) {
        try_write(ctx, OPENSSL, ctx.arg(0)?, ctx.arg(1)?, ctx.arg(2)?)
    }

    /// `int SSL_read(SSL *ssl, void *buf, int num)`
    fn ssl_read(ctx) {
        try_read(ctx, OPENSSL, ctx.arg(0)?, ctx.arg(1)?, 0).map(drop)
    }

    /// Its return instruction: how many bytes it took, or that it took none.
    fn ssl_has_read(ctx) {
        try_has_read(ctx, |_| Some(positive(result(ctx) as i32)))
    }

    /// `int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes)`
    fn ssl_read_ex(ctx) {
        try_read(ctx, OPENSSL, ctx.arg(0)?, ctx.arg(1)?, ctx.arg(3)?).map(drop)
    }

    /// Its return instruction: 1 if it took any bytes, which it counted where it was told to.
    fn ssl_has_read_ex(ctx) {
        try_has_read(ctx, |taken_at| if result(ctx) as i32 == 1 { word(taken_at) } else { None })
    }

    /// Any other call by which records may be sent, such as `int SSL_do_handshake(SSL *ssl)`.
    fn ssl_call(ctx) {
        enter(ctx, OPENSSL, ctx.arg(0)?, What::Other, 0, 0).map(drop)
    }

    /// `int SSL_set_fd(SSL *ssl, int fd)`, and `SSL_set_wfd`
    fn ssl_set_fd(ctx) {
        try_set_descriptor(ctx, OPENSSL, ctx.arg(0)?, ctx.arg(1)?)
    }

    /// `void SSL_set_bio(SSL *ssl, BIO *rbio, BIO *wbio)`, `SSL_set0_wbio`, `SSL_clear`: the session begins anew, unless it is the
    /// library itself that calls: `SSL_set_fd` and the beginning of a handshake do.
    fn ssl_renew(ctx) {
        let ssl: u64 = ctx.arg(0)?;
        if !current_process_selected() || last_call().is_some_and(|call| is_inside(call, ssl, stack(ctx))) {
            return None;
        }
        Session::find(ssl)?.renew(None);
        Some(())
    }

    /// `void SSL_free(SSL *ssl)`
    fn ssl_free(ctx) {
        try_free(ctx.arg(0)?)
    }

    /// `int BIO_write(BIO *b, const void *data, int dlen)`: inside a call of a session, the record that it has made. Of one whose
    /// connection is known already nothing is wanted.
    fn bio_write(ctx) {
        let call = last_call()?;
        if call.is_joined || positive(ctx.arg(2)?) < MARK_LEN as u64 || !is_inside(call, call.ssl, stack(ctx)) {
            return None;
        }
        let data: u64 = ctx.arg(1)?;
        // SAFETY: the helper checks the address and fails on a bad one.
        let record = unsafe { bpf_probe_read_user(data as *const [u8; MARK_LEN]) }.ok()?;
        note_record(call.ssl, &record)
    }
}

/// A length of C's type `int`; 0 if it is negative.
#[inline(always)]
fn positive(length: i32) -> u64 {
    if length > 0 { length as u64 } else { 0 }
}
