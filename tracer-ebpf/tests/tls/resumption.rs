//! Resumed or not, and where the hellos do not tell.

use crate::support::{
    Extension, Hello, PRE_SHARED_KEY, SESSION_TICKET, SUPPORTED_VERSIONS, client_bytes, payload, records, server_bytes,
    versions,
};
use tracer_ebpf::tls::hello::{ClientHello, Malformed, ServerHello, resumed};

/// SHA-256 of "HelloRetryRequest", made with sha256sum.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

fn client(session_id: &[u8], extensions: &[Extension]) -> ClientHello {
    let hello = Hello { session_id, ..Hello::with(extensions) };
    ClientHello::parse(&records(&hello.client(), &[])).expect("a hello")
}

fn server(session_id: &[u8], extensions: &[Extension]) -> ServerHello {
    let hello = Hello { session_id, ..Hello::with(extensions) };
    ServerHello::parse(&records(&hello.server(), &[])).expect("a hello")
}

#[test]
fn before_1_3_an_echoed_session_id_means_resumed() {
    assert_eq!(resumed(&client(&[1; 32], &[]), &server(&[1; 32], &[])), Some(true));
    assert_eq!(resumed(&client(&[1; 32], &[]), &server(&[2; 32], &[])), Some(false));
    assert_eq!(resumed(&client(&[1; 32], &[]), &server(&[], &[])), Some(false));
    assert_eq!(resumed(&client(&[], &[]), &server(&[], &[])), Some(false), "nothing was offered");
    assert_eq!(resumed(&client(&[], &[]), &server(&[1; 32], &[])), Some(false), "a new session");
}

#[test]
fn a_ticket_without_a_session_id_leaves_it_open() {
    let ticket = [(SESSION_TICKET, vec![9; 160])];
    assert_eq!(resumed(&client(&[], &ticket), &server(&[], &[])), None);
    let wish = [(SESSION_TICKET, vec![])];
    assert_eq!(resumed(&client(&[], &wish), &server(&[], &[])), Some(false));
    assert_eq!(resumed(&client(&[1; 32], &ticket), &server(&[1; 32], &[])), Some(true));
}

#[test]
fn in_1_3_an_echoed_session_id_says_nothing_and_the_key_everything() {
    let offers = client(&[1; 32], &[(SUPPORTED_VERSIONS, versions(&[0x0304])), (PRE_SHARED_KEY, vec![0; 40])]);
    let version = (SUPPORTED_VERSIONS, vec![3, 4]);
    assert_eq!(resumed(&offers, &server(&[1; 32], std::slice::from_ref(&version))), Some(false));
    assert_eq!(resumed(&offers, &server(&[1; 32], &[version, (PRE_SHARED_KEY, vec![0, 0])])), Some(true));
}

#[test]
fn a_copy_that_ends_too_early_leaves_it_open() {
    let extensions = [(SUPPORTED_VERSIONS, vec![3, 4]), (PRE_SHARED_KEY, vec![0, 0])];
    let offers = client(&[1; 32], &[(SUPPORTED_VERSIONS, versions(&[0x0304])), (PRE_SHARED_KEY, vec![0; 40])]);
    let wire = records(&Hello { session_id: &[1; 32], ..Hello::with(&extensions) }.server(), &[]);
    let answer = |lost: usize| ServerHello::parse(&wire[..wire.len() - lost]).expect("a cut hello");
    assert_eq!(resumed(&offers, &answer(0)), Some(true));
    assert_eq!(answer(1).version, Some(0x0304));
    assert_eq!(resumed(&offers, &answer(1)), None, "the key is missing");
    assert_eq!(answer(7).version, None, "the version field alone does not tell 1.2 from 1.3");
    assert_eq!(resumed(&offers, &answer(7)), None);
    let cut = ClientHello::parse(&records(&Hello::with(&[]).client(), &[])[..50]).expect("a cut hello");
    assert_eq!(resumed(&cut, &server(&[], &[])), None, "a ticket may have followed");
}

#[test]
fn after_a_retry_the_second_hello_counts() {
    let copy = server_bytes("openssl-1.3-retry-resumed");
    let offers = ClientHello::parse(&client_bytes("openssl-1.3-retry-resumed")).expect("a hello");
    let first = payload(&copy);
    let only_first = ServerHello::parse(&records(&first, &[])).expect("a retry request");
    assert!(only_first.retry && !only_first.complete);
    assert_eq!((only_first.version, only_first.cipher_suite), (Some(0x0304), Some(0x1302)));
    assert_eq!(resumed(&offers, &only_first), None);
    let refusal = [records(&first, &[]), vec![21, 3, 3, 0, 2, 2, 40]].concat();
    let refused = ServerHello::parse(&refusal).expect("a retry request and an alert");
    assert_eq!((refused.version, refused.alert.map(|alert| alert.description)), (Some(0x0304), Some(40)));
    let both = ServerHello::parse(&copy).expect("both");
    assert!(both.retry && both.complete);
    assert_eq!(resumed(&offers, &both), Some(true));
}

#[test]
fn a_second_retry_request_is_refused() {
    let extensions = [(SUPPORTED_VERSIONS, vec![3, 4])];
    let retry = Hello { random: RETRY, ..Hello::with(&extensions) }.server();
    assert_eq!(ServerHello::parse(&records(&[retry.clone(), retry].concat(), &[])), Err(Malformed::Message));
}
