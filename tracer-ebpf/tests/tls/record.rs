//! Record headers, alerts and names.

use tracer_ebpf::tls::{
    alert::Alert,
    names::{AlertDescription, CipherSuite, Version},
    record::{ContentType, Header},
};

#[test]
fn a_plausible_header_is_read() {
    let header = Header::parse(&[22, 3, 1, 2, 0]).expect("a header");
    assert_eq!(header, Header { content_type: ContentType::Handshake, version: 0x0301, length: 512 });
    for content_type in 20..=24 {
        let header = Header::parse(&[content_type, 3, 3, 0x41, 0]).expect("the longest record");
        assert_eq!((header.content_type as u8, header.length), (content_type, 16640));
    }
}

#[test]
fn implausible_headers_are_refused() {
    for (bytes, why) in [
        ([19, 3, 3, 0, 1], "type too low"),
        ([25, 3, 3, 0, 1], "type too high"),
        ([22, 2, 0, 0, 1], "SSL 2.0"),
        ([22, 4, 0, 0, 1], "no such major version"),
        ([22, 3, 5, 0, 1], "no such minor version"),
        ([22, 3, 3, 0, 0], "empty"),
        ([22, 3, 3, 0x41, 1], "one byte too long"),
        (*b"GET /", "HTTP"),
        ([0x80, 0x2e, 1, 3, 1], "hello in the style of SSLv2"),
    ] {
        assert_eq!(Header::parse(&bytes), None, "{why}");
    }
}

#[test]
fn only_an_alert_in_the_clear_is_read() {
    assert_eq!(Alert::parse(&[21, 3, 3, 0, 2, 2, 40]), Some(Alert { level: 2, description: 40 }));
    assert_eq!(Alert::parse(&[21, 3, 3, 0, 2, 1, 0]), Some(Alert { level: 1, description: 0 }));
    assert_eq!(Alert::parse(&[21, 3, 3, 0, 26, 2, 40]), None, "protected");
    assert_eq!(Alert::parse(&[21, 3, 3, 0, 2, 3, 40]), None, "no such level");
    assert_eq!(Alert::parse(&[23, 3, 3, 0, 2, 2, 40]), None, "application data");
}

#[test]
fn numbers_have_their_names_or_are_shown_as_numbers() {
    assert_eq!(Version(0x0304).to_string(), "1.3");
    assert_eq!(Version(0x7f1c).to_string(), "0x7f1c");
    assert_eq!(CipherSuite(0xc02f).to_string(), "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
    assert_eq!(CipherSuite(0x00ff).to_string(), "0x00ff");
    assert_eq!(AlertDescription(48).to_string(), "unknown_ca");
    assert_eq!(AlertDescription(255).to_string(), "255");
}
