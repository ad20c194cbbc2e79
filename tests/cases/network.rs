//! Losses and delay on the way.

use std::{
    io::{Read, Write},
    thread,
};

use harness::{Backend, Closer, Family, How, Namespace, Pair, TcpInfo, Tracer, tcp_info};

/// Enough segments that some are lost for sure: the chance that none of 200 is, at 10 %, is below one in a billion.
const BYTES: usize = 2_000_000;

#[test]
fn retransmits_and_round_trip_time_are_those_of_tcp() {
    let trace = Tracer::shared(Backend::Auto);
    let (ends, info): (_, TcpInfo) = Namespace::run(|namespace| {
        let pair = Pair::new(Family::V4);
        // Loopback segments are large; smaller ones make losses likelier to hit.
        namespace.emulate("delay 10ms loss 10%");
        let (mut client, mut server) = (pair.client(), pair.server());
        thread::scope(|scope| {
            scope.spawn(move || client.write_all(&vec![0; BYTES]).expect("send"));
            server.read_exact(&mut vec![0; BYTES]).expect("receive");
        });
        // The last acknowledgments: once the answer is here, nothing is under way.
        pair.server().write_all(b"x").expect("send");
        pair.client().read_exact(&mut [0]).expect("receive");
        let info = tcp_info(pair.client());
        let ends = pair.client_ends();
        harness::set_linger_zero(pair.client());
        drop(pair);
        (ends, info)
    });
    let client = trace.connection(ends);
    client.assert_ended(Closer::Local, How::Rst);
    client.assert_bytes(BYTES as u64, 1);
    assert!(info.retransmits > 0, "the network lost something");
    assert_eq!(client.retransmits, Some(info.retransmits));
    let srtt_ms = client.srtt_ms.expect("a round trip was measured");
    assert!((srtt_ms - info.srtt_ms).abs() < 0.01, "{srtt_ms} ms, but TCP says {} ms", info.srtt_ms);
    assert!(srtt_ms >= 19.0, "twice the delay: {srtt_ms} ms");
    assert_eq!(trace.connection(ends.flipped()).bytes_received, Some(BYTES as u64));
}
