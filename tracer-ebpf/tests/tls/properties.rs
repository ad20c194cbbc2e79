//! What holds for any bytes, any cut and any split.

use crate::support::{
    ALPN, Hello, SERVER_NAME, SUPPORTED_VERSIONS, cases, client_bytes, payload, protocols, records, server_bytes,
    server_names, versions,
};
use proptest::{collection::vec, prelude::*, sample::Index};
use tracer_ebpf::tls::{
    digest,
    hello::{ClientHello, ServerHello, resumed},
};

/// One of the recorded copies, of either side.
fn recorded() -> impl Strategy<Value = Vec<u8>> {
    let all: Vec<_> = cases().iter().flat_map(|case| [client_bytes(case), server_bytes(case)]).collect();
    proptest::sample::select(all)
}

fn host_name() -> impl Strategy<Value = String> {
    "[a-z0-9_-]{1,20}(\\.[a-zA-Z0-9-]{1,20}){0,6}\\.[a-z]{2,10}"
}

/// What a cut copy says is what the whole one says, or less.
fn assert_no_more_than(cut: &ClientHello, whole: &ClientHello) {
    assert!(cut.name.is_none() || cut.name == whole.name);
    assert!(cut.session_id.is_none() || cut.session_id == whole.session_id);
    assert!(cut.legacy_version.is_none() || cut.legacy_version == whole.legacy_version);
    assert!(whole.versions.as_slice().starts_with(cut.versions.as_slice()));
    assert!(whole.alpn.as_slice().starts_with(cut.alpn.as_slice()));
    assert!(cut.alpn.left_out() <= whole.alpn.left_out());
    assert!(cut.pre_shared_key <= whole.pre_shared_key);
    assert!(cut.early_data <= whole.early_data);
    assert!(cut.ticket <= whole.ticket);
    assert!(!cut.complete || cut == whole);
}

#[test]
fn a_recorded_copy_cut_anywhere_never_says_anything_else() {
    for case in cases() {
        let (client_copy, server_copy) = (client_bytes(&case), server_bytes(&case));
        let client = ClientHello::parse(&client_copy).expect("a recorded hello");
        for cut in 0..client_copy.len() {
            assert_no_more_than(&ClientHello::parse(&client_copy[..cut]).expect("cut, not wrong"), &client);
        }
        let server = ServerHello::parse(&server_copy).expect("a recorded hello or alert");
        for cut in 0..server_copy.len() {
            let part = ServerHello::parse(&server_copy[..cut]).expect("cut, not wrong");
            assert!(part.version.is_none() || part.version == server.version, "{case} at {cut}");
            assert!(part.cipher_suite.is_none() || part.cipher_suite == server.cipher_suite, "{case} at {cut}");
            assert!(part.alpn.is_none() || part.alpn == server.alpn, "{case} at {cut}");
            assert_eq!(part.alert, None, "{case} at {cut}");
            let verdict = resumed(&client, &part);
            assert!(verdict.is_none() || verdict == resumed(&client, &server), "{case} at {cut}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_digested(bytes in vec(any::<u8>(), 0..2000)) {
        digest(&bytes);
    }

    #[test]
    fn any_message_in_records_is_digested(kind in 1..3_u8, body in vec(any::<u8>(), 0..600), cuts in vec(any::<usize>(), 0..4)) {
        digest(&records(&crate::support::message(kind, &[&[3, 3], &body[..]].concat()), &cuts));
    }

    #[test]
    fn a_recorded_copy_with_changed_bytes_is_digested(
        mut copy in recorded(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in any::<Index>(),
    ) {
        for (at, byte) in changes {
            let at = at.index(copy.len());
            copy[at] = byte;
        }
        digest(&copy);
        digest(&copy[cut.index(copy.len())..]);
    }

    #[test]
    fn records_split_anywhere_say_the_same(case in proptest::sample::select(cases()), cuts in vec(any::<usize>(), 0..40)) {
        let copy = client_bytes(&case);
        prop_assert_eq!(ClientHello::parse(&records(&payload(&copy), &cuts)), ClientHello::parse(&copy));
        let copy = server_bytes(&case);
        let handshake = payload(&copy);
        if !handshake.is_empty() {
            prop_assert_eq!(
                ServerHello::parse(&records(&handshake, &cuts)),
                ServerHello::parse(&records(&handshake, &[]))
            );
        }
    }

    #[test]
    fn a_built_hello_is_read_back_and_cut_anywhere_never_says_anything_else(
        name in host_name(),
        names in vec(vec(any::<u8>(), 3..40), 1..12),
        offered in vec(0x0300..0x0305_u16, 1..10),
        session_id in vec(any::<u8>(), 0..33),
        cuts in vec(any::<usize>(), 0..5),
        end in any::<Index>(),
    ) {
        let list: Vec<_> = names.iter().map(Vec::as_slice).collect();
        let extensions = [
            (SUPPORTED_VERSIONS, versions(&offered)),
            (SERVER_NAME, server_names(&[(0, name.as_bytes())])),
            (ALPN, protocols(&list)),
        ];
        let wire = records(&Hello { session_id: &session_id, ..Hello::with(&extensions) }.client(), &cuts);
        let hello = ClientHello::parse(&wire).expect("a well-formed hello");
        prop_assert!(hello.complete);
        prop_assert_eq!(hello.name.as_ref().map(|name| name.as_str()), Some(name.as_str()));
        prop_assert_eq!(hello.session_id.as_ref().map(|id| id.as_slice()), Some(session_id.as_slice()));
        prop_assert_eq!(hello.versions.as_slice(), &offered[..offered.len().min(8)]);
        let kept: Vec<_> = list.iter().copied().filter(|name| name.len() <= 32).take(8).collect();
        let read: Vec<_> = hello.alpn.as_slice().iter().map(|name| name.as_slice()).collect();
        prop_assert_eq!(&read, &kept);
        prop_assert_eq!(hello.alpn.left_out(), names.len() - kept.len());
        let cut = ClientHello::parse(&wire[..end.index(wire.len())]).expect("cut, not wrong");
        assert_no_more_than(&cut, &hello);
    }
}
