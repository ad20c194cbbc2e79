//! Real handshakes, as `fixtures/tls/README.md` says they were made.

use crate::support::{cases, client_bytes, server_bytes};
use tracer_ebpf::tls::{
    hello::{ClientHello, Protocol, ServerHello, resumed},
    names::{AlertDescription, CipherSuite, Version},
};

/// Case; the client's versions, name, ALPN and extras; the server's version, cipher suite, ALPN and extras.
const EXPECTED: &[(&str, &str, &str)] = &[
    ("gnutls-1.3", "1.3 1.2 1.1 1.0; localhost; and 0", "1.3 TLS_AES_256_GCM_SHA384 -; full"),
    ("java-1.3", "1.3 1.2; shop.example.test; h2 http/1.1 and 0", "1.3 TLS_AES_256_GCM_SHA384 -; full"),
    (
        "openssl-1.2-full",
        "1.2; shop.example.test; h2 http/1.1 and 0",
        "1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 h2; full",
    ),
    (
        "openssl-1.2-session-id",
        "1.2; shop.example.test; and 0",
        "1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 -; resumed",
    ),
    (
        "openssl-1.2-ticket",
        "1.2; shop.example.test; h2 http/1.1 and 0; ticket",
        "1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 h2; resumed",
    ),
    (
        "openssl-1.3-early-data",
        "1.3 1.2 1.1 1.0; shop.example.test; h2 http/1.1 and 0; psk; early data",
        "1.3 TLS_AES_256_GCM_SHA384 -; resumed",
    ),
    ("openssl-1.3-full", "1.3 1.2 1.1 1.0; shop.example.test; h2 http/1.1 and 0", "1.3 TLS_AES_256_GCM_SHA384 -; full"),
    ("openssl-1.3-no-name", "1.3 1.2 1.1 1.0; no name; and 0", "1.3 TLS_AES_256_GCM_SHA384 -; full"),
    (
        "openssl-1.3-resumed",
        "1.3 1.2 1.1 1.0; shop.example.test; h2 http/1.1 and 0; psk",
        "1.3 TLS_AES_256_GCM_SHA384 -; resumed",
    ),
    ("openssl-1.3-retry", "1.3 1.2 1.1 1.0; shop.example.test; and 0", "1.3 TLS_AES_256_GCM_SHA384 -; retry; full"),
    (
        "openssl-1.3-retry-resumed",
        "1.3 1.2 1.1 1.0; shop.example.test; and 0; psk",
        "1.3 TLS_AES_256_GCM_SHA384 -; retry; resumed",
    ),
    (
        "openssl-large",
        "1.3 1.2 1.1 1.0; shop.example.test; proto-000 proto-001 proto-002 proto-003 proto-004 proto-005 proto-006 \
         proto-007 and 193",
        "1.3 TLS_AES_256_GCM_SHA384 -; full",
    ),
    (
        "openssl-split",
        "1.3 1.2 1.1 1.0; shop.example.test; proto-000 proto-001 proto-002 proto-003 proto-004 proto-005 proto-006 \
         proto-007 and 193",
        "1.3 TLS_AES_256_GCM_SHA384 -; full",
    ),
    ("openssl-refused", "1.2; shop.example.test; and 0", "alert protocol_version, level 2"),
    (
        "python-1.2",
        "1.2; shop.example.test; h2 http/1.1 and 0",
        "1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 http/1.1; full",
    ),
    ("python-1.3", "1.3; shop.example.test; h2 http/1.1 and 0", "1.3 TLS_AES_256_GCM_SHA384 -; full"),
];

fn text(protocol: &Protocol) -> String {
    protocol.as_slice().escape_ascii().to_string()
}

fn client_text(hello: &ClientHello) -> String {
    let versions: Vec<_> = hello.versions.as_slice().iter().map(|version| Version(*version).to_string()).collect();
    let mut alpn: Vec<_> = hello.alpn.as_slice().iter().map(text).collect();
    alpn.push(format!("and {}", hello.alpn.left_out()));
    let name = hello.name.as_ref().map_or("no name", |name| name.as_str());
    let mut all = vec![versions.join(" "), name.to_owned(), alpn.join(" ")];
    for (is, what) in [
        (hello.ticket, "ticket"),
        (hello.pre_shared_key, "psk"),
        (hello.early_data, "early data"),
        (!hello.complete, "incomplete"),
    ] {
        all.extend(is.then(|| what.to_owned()));
    }
    all.join("; ")
}

fn server_text(client: &ClientHello, copy: &[u8]) -> String {
    let hello = ServerHello::parse(copy).expect("a hello or an alert");
    if let Some(alert) = hello.alert {
        return format!("alert {}, level {}", AlertDescription(alert.description), alert.level);
    }
    let version = hello.version.map(Version).expect("a version");
    let cipher_suite = hello.cipher_suite.map(CipherSuite).expect("a cipher suite");
    let mut all = vec![format!("{version} {cipher_suite} {}", hello.alpn.as_ref().map_or("-".into(), text))];
    all.extend(hello.retry.then(|| "retry".to_owned()));
    all.extend((!hello.complete).then(|| "incomplete".to_owned()));
    all.extend(resumed(client, &hello).map(|resumed| if resumed { "resumed" } else { "full" }.to_owned()));
    all.join("; ")
}

#[test]
fn real_hellos_say_what_their_programs_were_told() {
    for (case, client, server) in EXPECTED {
        let hello = ClientHello::parse(&client_bytes(case)).unwrap_or_else(|malformed| panic!("{case}: {malformed}"));
        assert_eq!(client_text(&hello), *client, "client of {case}");
        assert_eq!(server_text(&hello, &server_bytes(case)), *server, "server of {case}");
    }
}

#[test]
fn every_recorded_case_is_expected_here() {
    let mut expected: Vec<_> = EXPECTED.iter().map(|(case, ..)| *case).collect();
    expected.sort_unstable();
    assert_eq!(cases(), expected);
}

#[test]
fn the_split_hello_is_in_several_records_and_the_large_one_exceeds_a_segment() {
    let second_record = |copy: &[u8]| 5 + usize::from(u16::from_be_bytes([copy[3], copy[4]]));
    let split = client_bytes("openssl-split");
    assert_eq!(split[second_record(&split)], 22, "another handshake record follows");
    assert!(second_record(&client_bytes("openssl-large")) > 1460);
}
