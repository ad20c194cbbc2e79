//! Which messages are taken for HTTP heads by their first bytes.

use proptest::prelude::*;
use tracer_ebpf::http::{Beginning, beginning, may_be_head};

fn first(text: &str) -> [u8; 8] {
    *text.as_bytes().first_chunk().expect("eight bytes")
}

#[test]
fn request_lines_status_lines_and_the_preface_of_http_2_are_heads() {
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"] {
        assert_eq!(beginning(first(&format!("{method} / HTTP/1.1"))), Some(Beginning::Request), "{method}");
    }
    assert_eq!(beginning(first("CONNECT a:443 HTTP/1.1")), Some(Beginning::Connect));
    assert_eq!(beginning(first("HTTP/1.1 200 OK")), Some(Beginning::Status));
    assert_eq!(beginning(first("HTTP/1.0 404")), Some(Beginning::Status));
    assert_eq!(beginning(first("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")), Some(Beginning::Http2));
}

#[test]
fn other_protocols_are_none() {
    for text in [
        "*1\r\n$4\r\nPING\r\n",
        "PING\r\n\r\n\r\n",
        "EHLO example.org",
        "SSH-2.0-OpenSSH",
        "\x16\x03\x01\x02\x00\x01\x00\x01",
        "\x17\x03\x03\x02\x00\x01\x00\x01",
        "get / HTTP/1.1",
        "GETS / HTTP",
        "POSTER /",
        "PROPFIND /",
        "HTTP/2.0 200",
        "\0\0\0\0\0\0\0\0",
    ] {
        assert!(!may_be_head(first(text)), "{text:?}");
    }
}

proptest! {
    /// What it says of any bytes, told by the text.
    #[test]
    fn any_first_bytes_are_judged_by_the_text(first in any::<[u8; 8]>(), at in 0..11usize, kept in 0..9usize) {
        const ALL: [&[u8]; 11] = [
            b"GET ", b"PUT ", b"POST ", b"HEAD ", b"PATCH ", b"TRACE ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"HTTP/1.", b"PRI * HT",
        ];
        // Mostly something that is nearly one.
        let mut bytes = first;
        for (place, byte) in bytes.iter_mut().zip(ALL[at]).take(kept) {
            *place = *byte;
        }
        prop_assert_eq!(may_be_head(bytes), ALL.iter().any(|text| bytes.starts_with(text)));
    }
}
