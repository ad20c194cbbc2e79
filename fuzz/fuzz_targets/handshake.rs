//! The walk over records and the steps of a handshake: whatever passes, in pieces of any length, it goes one way and ends
//! once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_ebpf::tls::handshake::{Step, phase};

use follow::Followed;

#[path = "../../tracer-ebpf/tests/tls/follow.rs"]
mod follow;

/// A ClientHello's record in short, so that not every input has to find one.
const HELLO: [u8; 9] = [22, 3, 1, 0, 4, 1, 0, 0, 0];

fuzz_target!(|data: &[u8]| {
    let Some((manner, mut rest)) = data.split_first() else { return };
    let mut followed = Followed::new();
    if manner % 2 == 0 {
        followed.call(1, true, &HELLO);
        assert_eq!((followed.handshake.phase, followed.handshake.started_at), (phase::CLIENT_HELLO, 1));
    }
    let mut at = 1;
    while let Some((head, more)) = rest.split_first() {
        // A direction and a length, then the piece.
        let (piece, more) = more.split_at(usize::from(head >> 1).min(more.len()));
        let before = followed.clone();
        at += 1;
        followed.call(at, head & 1 == 1, piece);
        assert_goes_forward(&before, &followed);
        rest = more;
    }
});

fn assert_goes_forward(before: &Followed, now: &Followed) {
    let (was, is) = (&before.handshake, &now.handshake);
    assert!(is.phase >= was.phase, "no phase comes again");
    assert!(is.phase <= phase::PLAIN);
    if was.phase >= phase::DONE {
        assert_eq!(is, was, "what is over stays as it was");
    }
    match is.phase {
        phase::LOOKING | phase::CLIENT_HELLO | phase::SERVER_HELLO => assert_eq!(now.step, Step::Goes),
        phase::DONE => assert!(matches!(now.step, Step::Done { .. })),
        phase::FAILED => assert_eq!(now.step, Step::Failed),
        _ => assert_eq!((now.step, is.started_at), (Step::Foreign, 0)),
    }
    let has_begun = is.phase != phase::LOOKING && is.phase != phase::PLAIN;
    assert_eq!(has_begun, is.started_at != 0);
}
