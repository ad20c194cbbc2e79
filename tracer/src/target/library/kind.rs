//! What a library is.

use tracer_ebpf::ssl::family;

use super::version::Product;

/// What a library is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// OpenSSL's libssl, or an executable that it was linked into.
    OpenSsl {
        /// Its release; `None` if the file does not say.
        release: Option<Release>,
    },
    /// BoringSSL, or what descends from it.
    BoringSsl,
    /// LibreSSL.
    LibreSsl,
    /// GnuTLS.
    GnuTls,
    /// A Go program with `crypto/tls`.
    Go {
        /// Go's release; `None` if the file does not say. From 1.17 on arguments are passed in registers (on arm64 from
        /// 1.18).
        release: Option<Release>,
    },
    /// libcrypto without libssl: only the functions for a BIO.
    Crypto,
    /// A C library, an executable that it was linked into, or what stands in for its `getaddrinfo`.
    Libc,
}

impl Kind {
    /// Its name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::OpenSsl { .. } => "OpenSSL",
            Self::BoringSsl => "BoringSSL",
            Self::LibreSsl => "LibreSSL",
            Self::GnuTls => "GnuTLS",
            Self::Go { .. } => "Go",
            Self::Crypto => "libcrypto",
            Self::Libc => "libc",
        }
    }

    /// The family that its sessions are of; `None` if it has none.
    pub const fn family(&self) -> Option<u32> {
        match self {
            Self::OpenSsl { .. } | Self::BoringSsl | Self::LibreSsl => Some(family::OPENSSL),
            Self::GnuTls => Some(family::GNUTLS),
            Self::Go { .. } => Some(family::GO),
            Self::Crypto | Self::Libc => None,
        }
    }
}

/// The first numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The first.
    pub major: u16,
    /// The second; 0 if there is none.
    pub minor: u16,
}

impl Release {
    /// Of a version such as `1.1.1w`, `3.0.19` or `1.19.8`.
    pub fn of(version: &str) -> Option<Self> {
        let mut numbers = version.split('.').map(|part| {
            let end = part.find(|each: char| !each.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse().ok()
        });
        Some(Self { major: numbers.next()??, minor: numbers.next().flatten().unwrap_or(0) })
    }
}

/// A symbol that only some of the libraries with OpenSSL's interface have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// BoringSSL and its descendants.
    Boring,
}

impl Marker {
    /// The symbols, with what they tell.
    pub const ALL: [(&'static str, Self); 2] =
        [("SSL_CTX_set_custom_verify", Self::Boring), ("BORINGSSL_self_test", Self::Boring)];
}

/// What a library with OpenSSL's functions is.
pub fn with_openssls_interface(is_boring: bool, stated: Option<&(Product, String)>, soname: Option<&str>) -> Kind {
    match stated {
        _ if is_boring => Kind::BoringSsl,
        Some((Product::LibreSsl, _)) => Kind::LibreSsl,
        Some((Product::OpenSsl, version)) => Kind::OpenSsl { release: Release::of(version) },
        _ => Kind::OpenSsl { release: soname.and_then(|name| Release::of(name.strip_prefix("libssl.so.")?)) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_the_first_two_numbers() {
        let table = [("3.0.19", 3, 0), ("1.1.1w", 1, 1), ("3", 3, 0), ("1.22rc1", 1, 22), ("3.5-dev", 3, 5)];
        for (version, major, minor) in table {
            assert_eq!(Release::of(version), Some(Release { major, minor }), "{version}");
        }
        for version in ["", "devel", ".1", "99999.1"] {
            assert_eq!(Release::of(version), None, "{version}");
        }
    }

    #[test]
    fn libraries_with_one_interface_are_told_apart() {
        let stated = |product, version: &str| Some((product, version.to_owned()));
        let open = |major, minor| Kind::OpenSsl { release: Some(Release { major, minor }) };
        let table = [
            (true, None, None, Kind::BoringSsl),
            (false, stated(Product::OpenSsl, "3.0.19"), Some("libssl.so.3"), open(3, 0)),
            (false, stated(Product::OpenSsl, "1.1.1w"), None, open(1, 1)),
            (false, stated(Product::LibreSsl, "3.8.2"), Some("libssl.so.56"), Kind::LibreSsl),
            (false, None, Some("libssl.so.1.1"), open(1, 1)),
            (false, None, Some("libnode.so.115"), Kind::OpenSsl { release: None }),
        ];
        for (is_boring, stated, soname, expected) in table {
            assert_eq!(with_openssls_interface(is_boring, stated.as_ref(), soname), expected);
        }
    }
}
