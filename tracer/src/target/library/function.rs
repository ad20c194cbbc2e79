//! The functions that probes go on.

/// A function, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Which one.
    pub name: FunctionName,
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// Bytes of its code; 0 if the file does not say.
    pub size: u64,
    /// The part of the file that is loaded together with it: from here on, and up to there.
    pub segment: [u64; 2],
}

/// Functions that come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// OpenSSL's libssl, and what has its interface.
    Ssl,
    /// OpenSSL's libcrypto.
    Bio,
    /// GnuTLS.
    GnuTls,
    /// Go's `crypto/tls`.
    Go,
    /// The C library.
    Libc,
}

macro_rules! functions {
    ($($family:ident { $($name:ident = $symbol:literal,)* })*) => {
        /// A function that a probe may go on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FunctionName {
            $($(#[doc = concat!("`", $symbol, "`")] $name,)*)*
        }

        impl FunctionName {
            /// Every one.
            pub const ALL: &[Self] = &[$($(Self::$name,)*)*];

            /// The name in the symbol table.
            pub const fn symbol(self) -> &'static str {
                match self {
                    $($(Self::$name => $symbol,)*)*
                }
            }

            /// What it belongs to.
            pub const fn family(self) -> Family {
                match self {
                    $($(Self::$name)|* => Family::$family,)*
                }
            }
        }
    };
}

functions! {
    Ssl {
        SslRead = "SSL_read",
        SslReadEx = "SSL_read_ex",
        SslPeek = "SSL_peek",
        SslPeekEx = "SSL_peek_ex",
        SslReadEarlyData = "SSL_read_early_data",
        SslWrite = "SSL_write",
        SslWriteEx = "SSL_write_ex",
        SslWriteEx2 = "SSL_write_ex2",
        SslWriteEarlyData = "SSL_write_early_data",
        SslSendfile = "SSL_sendfile",
        SslDoHandshake = "SSL_do_handshake",
        SslConnect = "SSL_connect",
        SslAccept = "SSL_accept",
        SslShutdown = "SSL_shutdown",
        SslSetFd = "SSL_set_fd",
        SslSetRfd = "SSL_set_rfd",
        SslSetWfd = "SSL_set_wfd",
        SslSetBio = "SSL_set_bio",
        SslSet0Rbio = "SSL_set0_rbio",
        SslSet0Wbio = "SSL_set0_wbio",
        SslClear = "SSL_clear",
        SslFree = "SSL_free",
    }
    Bio {
        BioRead = "BIO_read",
        BioReadEx = "BIO_read_ex",
        BioWrite = "BIO_write",
        BioWriteEx = "BIO_write_ex",
        BioNewSocket = "BIO_new_socket",
        BioNewBioPair = "BIO_new_bio_pair",
        BioFree = "BIO_free",
    }
    GnuTls {
        GnuTlsHandshake = "gnutls_handshake",
        GnuTlsRecordSend = "gnutls_record_send",
        GnuTlsRecordSend2 = "gnutls_record_send2",
        GnuTlsRecordSendRange = "gnutls_record_send_range",
        GnuTlsRecordSendFile = "gnutls_record_send_file",
        GnuTlsRecordSendEarlyData = "gnutls_record_send_early_data",
        GnuTlsRecordUncork = "gnutls_record_uncork",
        GnuTlsRecordRecv = "gnutls_record_recv",
        GnuTlsRecordRecvSeq = "gnutls_record_recv_seq",
        GnuTlsRecordRecvPacket = "gnutls_record_recv_packet",
        GnuTlsRecordRecvEarlyData = "gnutls_record_recv_early_data",
        GnuTlsBye = "gnutls_bye",
        GnuTlsTransportSetInt2 = "gnutls_transport_set_int2",
        GnuTlsTransportSetPtr = "gnutls_transport_set_ptr",
        GnuTlsTransportSetPtr2 = "gnutls_transport_set_ptr2",
        GnuTlsDeinit = "gnutls_deinit",
    }
    Go {
        GoRead = "crypto/tls.(*Conn).Read",
        GoWrite = "crypto/tls.(*Conn).Write",
        GoHandshake = "crypto/tls.(*Conn).Handshake",
        GoHandshakeContext = "crypto/tls.(*Conn).HandshakeContext",
        GoHandshakeInner = "crypto/tls.(*Conn).handshakeContext",
        GoClose = "crypto/tls.(*Conn).Close",
    }
    Libc {
        GetAddrInfo = "getaddrinfo",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_functions_have_one_symbol() {
        let symbols: HashSet<_> = FunctionName::ALL.iter().map(|name| name.symbol()).collect();
        assert_eq!(symbols.len(), FunctionName::ALL.len());
    }
}
