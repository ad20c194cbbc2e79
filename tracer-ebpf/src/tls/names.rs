//! Words for numbers of the wire, for output. Numbers without a word are shown in hexadecimal (alerts in decimal).

use core::fmt;

/// Declares a number that is shown by its name.
macro_rules! named {
    (
        $(#[$meta:meta])* pub struct $name:ident($number:ty), otherwise $otherwise:literal;
        $($value:literal $word:literal)*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub $number);

        impl $name {
            /// The name, if it has one here.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($word),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => write!(f, $otherwise, self.0),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

named! {
    /// A protocol version: `1.0` to `1.3`.
    pub struct Version(u16), otherwise "{:#06x}";
    0x0300 "SSL 3.0"
    0x0301 "1.0"
    0x0302 "1.1"
    0x0303 "1.2"
    0x0304 "1.3"
}

named! {
    /// The reason of an alert (RFC 8446 6, and those of earlier versions in IANA's TLS Alerts).
    pub struct AlertDescription(u8), otherwise "{}";
    0 "close_notify"
    10 "unexpected_message"
    20 "bad_record_mac"
    21 "decryption_failed"
    22 "record_overflow"
    30 "decompression_failure"
    40 "handshake_failure"
    41 "no_certificate"
    42 "bad_certificate"
    43 "unsupported_certificate"
    44 "certificate_revoked"
    45 "certificate_expired"
    46 "certificate_unknown"
    47 "illegal_parameter"
    48 "unknown_ca"
    49 "access_denied"
    50 "decode_error"
    51 "decrypt_error"
    60 "export_restriction"
    70 "protocol_version"
    71 "insufficient_security"
    80 "internal_error"
    86 "inappropriate_fallback"
    90 "user_canceled"
    100 "no_renegotiation"
    109 "missing_extension"
    110 "unsupported_extension"
    111 "certificate_unobtainable"
    112 "unrecognized_name"
    113 "bad_certificate_status_response"
    114 "bad_certificate_hash_value"
    115 "unknown_psk_identity"
    116 "certificate_required"
    120 "no_application_protocol"
    121 "ech_required"
}

named! {
    /// A cipher suite (IANA, TLS Cipher Suites): those that are in use, not those for export, anonymous or without cipher.
    pub struct CipherSuite(u16), otherwise "{:#06x}";
    0x0004 "TLS_RSA_WITH_RC4_128_MD5"
    0x0005 "TLS_RSA_WITH_RC4_128_SHA"
    0x000a "TLS_RSA_WITH_3DES_EDE_CBC_SHA"
    0x0016 "TLS_DHE_RSA_WITH_3DES_EDE_CBC_SHA"
    0x002f "TLS_RSA_WITH_AES_128_CBC_SHA"
    0x0033 "TLS_DHE_RSA_WITH_AES_128_CBC_SHA"
    0x0035 "TLS_RSA_WITH_AES_256_CBC_SHA"
    0x0039 "TLS_DHE_RSA_WITH_AES_256_CBC_SHA"
    0x003c "TLS_RSA_WITH_AES_128_CBC_SHA256"
    0x003d "TLS_RSA_WITH_AES_256_CBC_SHA256"
    0x0067 "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256"
    0x006b "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256"
    0x008c "TLS_PSK_WITH_AES_128_CBC_SHA"
    0x008d "TLS_PSK_WITH_AES_256_CBC_SHA"
    0x0090 "TLS_DHE_PSK_WITH_AES_128_CBC_SHA"
    0x0091 "TLS_DHE_PSK_WITH_AES_256_CBC_SHA"
    0x009c "TLS_RSA_WITH_AES_128_GCM_SHA256"
    0x009d "TLS_RSA_WITH_AES_256_GCM_SHA384"
    0x009e "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"
    0x009f "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"
    0x00a8 "TLS_PSK_WITH_AES_128_GCM_SHA256"
    0x00a9 "TLS_PSK_WITH_AES_256_GCM_SHA384"
    0x00aa "TLS_DHE_PSK_WITH_AES_128_GCM_SHA256"
    0x00ab "TLS_DHE_PSK_WITH_AES_256_GCM_SHA384"
    0x00ae "TLS_PSK_WITH_AES_128_CBC_SHA256"
    0x00af "TLS_PSK_WITH_AES_256_CBC_SHA384"
    0x00b2 "TLS_DHE_PSK_WITH_AES_128_CBC_SHA256"
    0x00b3 "TLS_DHE_PSK_WITH_AES_256_CBC_SHA384"
    0x1301 "TLS_AES_128_GCM_SHA256"
    0x1302 "TLS_AES_256_GCM_SHA384"
    0x1303 "TLS_CHACHA20_POLY1305_SHA256"
    0x1304 "TLS_AES_128_CCM_SHA256"
    0x1305 "TLS_AES_128_CCM_8_SHA256"
    0xc007 "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA"
    0xc008 "TLS_ECDHE_ECDSA_WITH_3DES_EDE_CBC_SHA"
    0xc009 "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"
    0xc00a "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"
    0xc011 "TLS_ECDHE_RSA_WITH_RC4_128_SHA"
    0xc012 "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA"
    0xc013 "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"
    0xc014 "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"
    0xc023 "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"
    0xc024 "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384"
    0xc027 "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"
    0xc028 "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384"
    0xc02b "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    0xc02c "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    0xc02f "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    0xc030 "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
    0xc035 "TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA"
    0xc036 "TLS_ECDHE_PSK_WITH_AES_256_CBC_SHA"
    0xc037 "TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256"
    0xc038 "TLS_ECDHE_PSK_WITH_AES_256_CBC_SHA384"
    0xc09c "TLS_RSA_WITH_AES_128_CCM"
    0xc09d "TLS_RSA_WITH_AES_256_CCM"
    0xc09e "TLS_DHE_RSA_WITH_AES_128_CCM"
    0xc09f "TLS_DHE_RSA_WITH_AES_256_CCM"
    0xc0a0 "TLS_RSA_WITH_AES_128_CCM_8"
    0xc0a1 "TLS_RSA_WITH_AES_256_CCM_8"
    0xc0a2 "TLS_DHE_RSA_WITH_AES_128_CCM_8"
    0xc0a3 "TLS_DHE_RSA_WITH_AES_256_CCM_8"
    0xc0a4 "TLS_PSK_WITH_AES_128_CCM"
    0xc0a5 "TLS_PSK_WITH_AES_256_CCM"
    0xc0a6 "TLS_DHE_PSK_WITH_AES_128_CCM"
    0xc0a7 "TLS_DHE_PSK_WITH_AES_256_CCM"
    0xc0a8 "TLS_PSK_WITH_AES_128_CCM_8"
    0xc0a9 "TLS_PSK_WITH_AES_256_CCM_8"
    0xc0aa "TLS_PSK_DHE_WITH_AES_128_CCM_8"
    0xc0ab "TLS_PSK_DHE_WITH_AES_256_CCM_8"
    0xc0ac "TLS_ECDHE_ECDSA_WITH_AES_128_CCM"
    0xc0ad "TLS_ECDHE_ECDSA_WITH_AES_256_CCM"
    0xc0ae "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8"
    0xc0af "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8"
    0xcca8 "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
    0xcca9 "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
    0xccaa "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
    0xccab "TLS_PSK_WITH_CHACHA20_POLY1305_SHA256"
    0xccac "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256"
    0xccad "TLS_DHE_PSK_WITH_CHACHA20_POLY1305_SHA256"
    0xd001 "TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256"
    0xd002 "TLS_ECDHE_PSK_WITH_AES_256_GCM_SHA384"
    0xd003 "TLS_ECDHE_PSK_WITH_AES_128_CCM_8_SHA256"
    0xd005 "TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256"
}
