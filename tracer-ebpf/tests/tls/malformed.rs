//! Wrong messages give a reason and no name; odd but allowed ones are read.

use crate::support::{
    ALPN, EARLY_DATA, Extension, Hello, PRE_SHARED_KEY, SERVER_NAME, SUPPORTED_VERSIONS, message, protocols, records,
    server_names, vector16, versions,
};
use tracer_ebpf::tls::{
    alert::Alert,
    hello::{ClientHello, Malformed, ServerHello},
};

fn client(extensions: &[Extension]) -> Result<ClientHello, Malformed> {
    ClientHello::parse(&records(&Hello::with(extensions).client(), &[]))
}

fn name_of(name: &[u8]) -> Option<String> {
    let hello = client(&[(SERVER_NAME, server_names(&[(0, name)]))]).expect("a well-formed hello");
    hello.name.map(|name| name.as_str().to_owned())
}

fn good_name() -> Extension {
    (SERVER_NAME, server_names(&[(0, b"a.example")]))
}

#[test]
fn wrong_extensions_are_named_and_give_no_hello() {
    let wrong: &[(&str, Vec<Extension>, Malformed)] = &[
        ("extension twice", vec![good_name(), good_name()], Malformed::Duplicate),
        (
            "two host names",
            vec![(SERVER_NAME, server_names(&[(0, b"a.example"), (0, b"b.example")]))],
            Malformed::Duplicate,
        ),
        ("no server name list", vec![(SERVER_NAME, vec![])], Malformed::Length),
        ("empty server name list", vec![(SERVER_NAME, vec![0, 0])], Malformed::Empty),
        ("empty host name", vec![(SERVER_NAME, server_names(&[(0, b"")]))], Malformed::Empty),
        ("name longer than its list", vec![(SERVER_NAME, vec![0, 4, 0, 0, 9, b'a'])], Malformed::Length),
        (
            "bytes behind the name",
            vec![(SERVER_NAME, [server_names(&[(0, b"a")]), vec![1]].concat())],
            Malformed::Trailing,
        ),
        ("empty protocol", vec![good_name(), (ALPN, protocols(&[b"h2", b""]))], Malformed::Empty),
        ("no protocols", vec![good_name(), (ALPN, protocols(&[]))], Malformed::Empty),
        ("half a version", vec![good_name(), (SUPPORTED_VERSIONS, vec![3, 3, 4, 3])], Malformed::Length),
        ("no versions", vec![good_name(), (SUPPORTED_VERSIONS, vec![0])], Malformed::Empty),
        ("early data with content", vec![good_name(), (EARLY_DATA, vec![0])], Malformed::Trailing),
        ("empty key", vec![good_name(), (PRE_SHARED_KEY, vec![])], Malformed::Empty),
    ];
    for (what, extensions, malformed) in wrong {
        assert_eq!(client(extensions), Err(*malformed), "{what}");
    }
}

#[test]
fn wrong_messages_are_named() {
    let hello = Hello::with(&[good_name()]).client();
    let with_byte = |at: usize, byte: u8| {
        let mut copy = records(&hello, &[]);
        copy[5 + at] = byte;
        ClientHello::parse(&copy)
    };
    assert_eq!(with_byte(0, 0), Err(Malformed::Message), "a HelloRequest");
    assert_eq!(with_byte(1, 0xff), Err(Malformed::Length), "sixteen megabytes");
    assert_eq!(with_byte(4, 5), Err(Malformed::Version), "version 5.3");
    assert_eq!(with_byte(4 + 34, 33), Err(Malformed::Length), "a session id too long");
    assert_eq!(with_byte(4 + 36, 3), Err(Malformed::Length), "half a cipher suite");
    assert_eq!(ClientHello::parse(&records(&Hello::with(&[]).server(), &[])), Err(Malformed::Message));
    assert_eq!(ServerHello::parse(&records(&hello, &[])), Err(Malformed::Message));
    assert_eq!(ClientHello::parse(b"GET / HTTP/1.1\r\n"), Err(Malformed::Record));
    assert_eq!(ClientHello::parse(&[0x80, 0x2e, 1, 3, 1, 0]), Err(Malformed::Record), "in the style of SSLv2");
}

#[test]
fn a_length_that_points_outside_is_seen_even_where_the_copy_ends_before_it() {
    let mut copy = records(&Hello::with(&[good_name()]).client(), &[]);
    let extensions_length = 5 + 4 + 34 + 1 + 4 + 2;
    copy[extensions_length] = 0x7f;
    copy.truncate(extensions_length + 2);
    assert_eq!(ClientHello::parse(&copy), Err(Malformed::Length));
}

#[test]
fn another_record_within_a_message_is_refused() {
    let wire = records(&Hello::with(&[good_name()]).client(), &[20]);
    let (first, second) = wire.split_at(25);
    let with_between = |record: &[u8]| ClientHello::parse(&[first, record, second].concat());
    assert_eq!(with_between(&[]).expect("a hello").name.expect("a name").as_str(), "a.example");
    assert_eq!(with_between(&[23, 3, 3, 0, 1, 0]), Err(Malformed::NotHandshake));
    assert_eq!(with_between(&[20, 3, 3, 0, 1, 1]), Err(Malformed::NotHandshake), "only between messages");
    assert_eq!(with_between(&[0; 5]), Err(Malformed::Record));
}

#[test]
fn a_warning_before_the_hello_is_passed_over_and_a_fatal_alert_takes_its_place() {
    let hello = records(&Hello::with(&[]).server(), &[]);
    let after = |alert: &[u8]| ServerHello::parse(&[alert, &hello].concat());
    let warned = after(&[21, 3, 3, 0, 2, 1, 112]).expect("a hello");
    assert_eq!((warned.complete, warned.alert, warned.version), (true, None, Some(0x0303)));
    let refused = after(&[21, 3, 3, 0, 2, 2, 40]).expect("an alert");
    assert_eq!(refused.alert, Some(Alert { level: Alert::FATAL, description: 40 }));
    assert_eq!((refused.complete, refused.version), (false, None));
    assert_eq!(after(&[21, 3, 3, 0, 2, 7, 40]), Err(Malformed::NotHandshake), "no such level");
    assert_eq!(after(&[21, 3, 3, 0, 3, 1, 112, 0]), Err(Malformed::NotHandshake), "no such length");
}

#[test]
fn what_is_no_host_name_is_no_name() {
    assert_eq!(name_of(b"xn--bcher-kva.example").as_deref(), Some("xn--bcher-kva.example"));
    assert_eq!(name_of(b"_http.Svc.local.").as_deref(), Some("_http.Svc.local."));
    assert_eq!(name_of(&[b'a'; 255]), Some("a".repeat(255)));
    for bad in [
        &b"10.0.0.1"[..],
        b"::1",
        b"a b.example",
        b"a.example\0",
        b"\x1b[2J.example",
        "b\u{fc}cher.example".as_bytes(),
        b"...",
        b"a/b",
        &[b'a'; 256],
        &[b'a'; 5000],
    ] {
        assert_eq!(name_of(bad), None, "{}", bad.escape_ascii());
    }
}

#[test]
fn names_of_another_type_are_skipped() {
    let names = server_names(&[(9, b"other"), (0, b"a.example"), (9, b"")]);
    let hello = client(&[(SERVER_NAME, names)]).expect("a hello");
    assert_eq!(hello.name.expect("a name").as_str(), "a.example");
}

#[test]
fn grease_is_left_out_and_what_does_not_fit_is_counted() {
    let long = [b'x'; 33];
    let hello = client(&[
        (0x0a0a, vec![]),
        (SUPPORTED_VERSIONS, versions(&[0xdada, 0x0304, 0x0303])),
        (ALPN, protocols(&[b"\x8a\x8a", b"h2", &long, b"http/1.1"])),
        (0xfafa, vec![0]),
    ])
    .expect("a hello");
    assert_eq!(hello.versions.as_slice(), [0x0304, 0x0303]);
    let alpn: Vec<_> = hello.alpn.as_slice().iter().map(|name| name.as_slice()).collect();
    assert_eq!(alpn, [&b"h2"[..], b"http/1.1"]);
    assert_eq!(hello.alpn.left_out(), 1);
}

#[test]
fn a_hello_without_any_extensions_is_complete() {
    let body = [&[3, 1][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let hello = ClientHello::parse(&records(&message(1, &body), &[])).expect("a hello of TLS 1.0");
    assert!(hello.complete);
    assert_eq!(hello.versions.as_slice(), [0x0301]);
    let body = [&[3, 1][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
    let hello = ServerHello::parse(&records(&message(2, &body), &[])).expect("a hello of TLS 1.0");
    assert!(hello.complete);
    assert_eq!((hello.version, hello.cipher_suite), (Some(0x0301), Some(0x2f)));
}

#[test]
fn bytes_behind_the_extensions_are_refused() {
    let body = [&[3, 1][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0], &vector16(&[]), &[0]].concat();
    assert_eq!(ClientHello::parse(&records(&message(1, &body), &[])), Err(Malformed::Trailing));
}
