//! Handshakes as their record headers show them, however the records are cut.

use proptest::{collection::vec, prelude::*, sample::Index};
use tracer_ebpf::tls::{
    handshake::{BODY_LEN, ENCRYPTED_ALERT, Step, flag, phase},
    record::HEADER_LEN,
};

use crate::{
    follow::Followed,
    support::{client_bytes, server_bytes, vector16},
};

const CHANGE_CIPHER: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// Messages of one side, in turn: from the client or not, and records one behind the other.
type Turns = Vec<(bool, Vec<u8>)>;

/// A record with this body.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3], &vector16(body)[..]].concat()
}

/// A record of that type and length whose body begins like this.
fn long(kind: u8, front: &[u8], length: usize) -> Vec<u8> {
    let mut body = front.to_vec();
    body.resize(length, 0xaa);
    record(kind, &body)
}

/// Records one behind the other.
fn flight(records: &[Vec<u8>]) -> Vec<u8> {
    records.concat()
}

/// The records of a recorded copy, cut off where a record is not whole.
fn whole_records(copy: &[u8]) -> Vec<Vec<u8>> {
    let (mut records, mut rest) = (Vec::new(), copy);
    while let [_, _, _, high, low, ..] = rest {
        let length = HEADER_LEN + usize::from(u16::from_be_bytes([*high, *low]));
        let Some((whole, more)) = rest.split_at_checked(length) else { break };
        records.push(whole.to_vec());
        rest = more;
    }
    records
}

/// A recorded handshake, in which the client first sends that many records, then the server, and so on.
fn recorded(case: &str, turns: &[(usize, usize)]) -> Turns {
    let mut client = whole_records(&client_bytes(case)).into_iter();
    let mut server = whole_records(&server_bytes(case)).into_iter();
    let mut result = Turns::new();
    for &(asks, answers) in turns {
        result.push((true, flight(&client.by_ref().take(asks).collect::<Vec<_>>())));
        result.push((false, flight(&server.by_ref().take(answers).collect::<Vec<_>>())));
    }
    result
}

fn full_1_3() -> Turns {
    recorded("openssl-1.3-full", &[(1, 6), (2, 2)])
}

fn full_1_2() -> Turns {
    recorded("openssl-1.2-full", &[(1, 4), (3, 3)])
}

fn resumed_1_2() -> Turns {
    recorded("openssl-1.2-ticket", &[(1, 3), (2, 0)])
}

fn retried() -> Turns {
    recorded("openssl-1.3-retry", &[(1, 1), (2, 6), (1, 0)])
}

/// The server refuses a version in the clear.
fn refused() -> Turns {
    recorded("openssl-refused", &[(1, 1)])
}

/// The client does not like the certificate, and says so under protection.
fn distrusted() -> Turns {
    let mut turns = full_1_3();
    turns.truncate(2);
    turns.push((true, flight(&[record(CHANGE_CIPHER, &[1]), long(DATA, &[], ENCRYPTED_ALERT.into())])));
    turns
}

/// A warning before the server's hello, as some send that do not know the name.
fn warned() -> Turns {
    let mut turns = full_1_3();
    turns[1].1.splice(0..0, record(ALERT, &[1, 112]));
    turns
}

/// What begins like a ClientHello is answered by something else.
fn foreign() -> Turns {
    vec![(true, long(HANDSHAKE, &[1, 0, 0, 46], 50)), (false, b"HTTP/1.1 400 Bad Request\r\n".to_vec())]
}

/// All of these.
fn all() -> Vec<Turns> {
    vec![full_1_3(), full_1_2(), resumed_1_2(), retried(), refused(), distrusted(), warned(), foreign()]
}

/// Followed call by call, one a turn.
fn follow(turns: &Turns) -> Followed {
    let mut followed = Followed::new();
    for (index, (from_client, bytes)) in turns.iter().enumerate() {
        followed.call(index as u64 + 1, *from_client, bytes);
    }
    followed
}

#[test]
fn tls_1_3_is_done_with_the_clients_first_protected_record() {
    let mut turns = full_1_3();
    turns.truncate(2);
    let mut followed = follow(&turns);
    assert_eq!((followed.handshake.phase, followed.handshake.started_at), (phase::SERVER_HELLO, 1));
    followed.call(3, true, &record(CHANGE_CIPHER, &[1]));
    assert_eq!(followed.handshake.phase, phase::SERVER_HELLO, "that change of cipher is for show");
    followed.call(4, true, &full_1_3()[2].1[6..]);
    assert_eq!(
        followed.state(),
        (phase::DONE, flag::CLIENT_CHANGED | flag::SERVER_CHANGED, (0, 0), Step::Done { tickets: true })
    );
}

#[test]
fn tls_1_2_in_full_is_done_with_the_servers_finished() {
    let turns = full_1_2();
    assert_eq!(follow(&turns[..3].to_vec()).handshake.phase, phase::SERVER_HELLO);
    let followed = follow(&turns);
    assert_eq!((followed.handshake.phase, followed.step), (phase::DONE, Step::Done { tickets: false }));
}

#[test]
fn tls_1_2_resumed_is_done_with_the_clients_finished() {
    let turns = resumed_1_2();
    assert_eq!(follow(&turns[..2].to_vec()).handshake.phase, phase::SERVER_HELLO);
    let followed = follow(&turns);
    assert_eq!((followed.handshake.phase, followed.step), (phase::DONE, Step::Done { tickets: false }));
}

#[test]
fn a_retry_request_is_no_server_hello() {
    let turns = retried();
    let asked_again = follow(&turns[..2].to_vec());
    assert_eq!((asked_again.handshake.phase, asked_again.handshake.flags), (phase::CLIENT_HELLO, flag::RETRIED));
    let followed = follow(&turns);
    assert_eq!((followed.handshake.phase, followed.handshake.started_at), (phase::DONE, 1), "the first hello counts");
    assert_eq!(followed.handshake.flags & flag::RETRIED, flag::RETRIED);
}

#[test]
fn an_alert_in_the_clear_tells_level_and_description() {
    let followed = follow(&refused());
    assert_eq!(followed.state(), (phase::FAILED, 0, (2, 70), Step::Failed), "protocol_version");
}

#[test]
fn a_protected_alert_tells_who_sent_it() {
    let followed = follow(&distrusted());
    assert_eq!((followed.handshake.phase, followed.step), (phase::FAILED, Step::Failed));
    assert_eq!(followed.handshake.flags & flag::ALERT_FROM_CLIENT, flag::ALERT_FROM_CLIENT);
    assert_eq!((followed.handshake.alert_level, followed.handshake.alert_description), (0, 0), "they cannot be read");
}

#[test]
fn a_warning_does_not_end_a_handshake_but_an_orderly_end_does() {
    assert_eq!(follow(&warned()).handshake.phase, phase::DONE);
    let mut turns = full_1_3();
    turns[1].1 = record(ALERT, &[1, 0]);
    assert_eq!(follow(&turns).state(), (phase::FAILED, 0, (1, 0), Step::Failed), "close_notify");
}

#[test]
fn what_only_looks_like_a_client_hello_is_taken_back() {
    let followed = follow(&foreign());
    assert_eq!(followed.state(), (phase::PLAIN, 0, (0, 0), Step::Foreign));
    assert_eq!(followed.handshake.started_at, 0);
    let another_message = vec![foreign()[0].clone(), (false, long(HANDSHAKE, &[11, 0, 0, 46], 50))];
    assert_eq!(follow(&another_message).step, Step::Foreign, "a server says hello first");
}

#[test]
fn other_records_of_a_client_begin_nothing() {
    for bytes in
        [long(HANDSHAKE, &[2], 50), long(DATA, &[1], 50), record(HANDSHAKE, &[1, 0, 0]), b"GET / HTTP".to_vec()]
    {
        assert_eq!(follow(&vec![(true, bytes)]).handshake.phase, phase::LOOKING);
    }
}

/// Places in a stream where a cut leaves what the handshake looks at together: not within the first bytes of a body.
fn harmless_cuts(stream: &[u8]) -> Vec<usize> {
    let (mut cuts, mut from) = (Vec::new(), 0);
    while from < stream.len() {
        let Some(&[high, low]) = stream.get(from + 3..from + HEADER_LEN) else { break };
        let end = from + HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
        cuts.extend(from + 1..=from + HEADER_LEN);
        cuts.extend((from + HEADER_LEN + BODY_LEN).min(end)..end.min(stream.len()));
        from = end;
        cuts.push(from);
    }
    cuts.retain(|&cut| cut < stream.len());
    cuts
}

/// The same turns, each cut at some of these places.
fn cut(turns: &Turns, places: fn(&[u8]) -> Vec<usize>, picks: &[Index]) -> Turns {
    let mut result = Turns::new();
    for (from_client, bytes) in turns {
        let places = places(bytes);
        let mut cuts: Vec<usize> = picks.iter().filter(|_| !places.is_empty()).map(|pick| *pick.get(&places)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        result.extend(cuts.windows(2).map(|ends| (*from_client, bytes[ends[0]..ends[1]].to_vec())));
    }
    result
}

proptest! {
    /// In a call of its own, a piece of a header, or a body as a whole, tells the same.
    #[test]
    fn wherever_a_stream_is_cut_it_ends_the_same(
        turns in proptest::sample::select(all()),
        picks in vec(any::<Index>(), 0..12),
    ) {
        prop_assert_eq!(follow(&cut(&turns, harmless_cuts, &picks)).state(), follow(&turns).state());
    }

    /// Within the first bytes of a body, a cut hides an alert's description or a retry request's mark, but not whether a
    /// handshake was done.
    #[test]
    fn a_handshake_is_done_wherever_it_is_cut(
        turns in proptest::sample::select(vec![full_1_3(), full_1_2(), resumed_1_2()]),
        picks in vec(any::<Index>(), 0..12),
    ) {
        let pieces = cut(&turns, |bytes| (1..bytes.len()).collect(), &picks);
        prop_assert_eq!(follow(&pieces).state(), follow(&turns).state());
    }

    #[test]
    fn any_bytes_are_followed(calls in vec((any::<bool>(), vec(any::<u8>(), 0..60)), 0..20)) {
        let mut followed = Followed::new();
        followed.call(1, true, &long(HANDSHAKE, &[1], 20));
        for (index, (from_client, bytes)) in calls.iter().enumerate() {
            followed.call(index as u64 + 2, *from_client, bytes);
        }
        prop_assert!(followed.handshake.phase <= phase::PLAIN);
    }
}
