//! Who ended a connection, and how: told from the first change of state that led to the end, the socket's error, and
//! the resets seen.

use libc::{EADDRNOTAVAIL, ECONNABORTED, ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENETUNREACH, EPIPE, ETIMEDOUT};
use tracer_ebpf::{SocketRecord, flag, tcp_state};

use super::record::{Closer, How};

/// The answer, and whether it is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub closer: Closer,
    pub how: How,
    /// The change of state was not seen: this is what the rest suggests.
    pub guessed: bool,
}

const fn sure(closer: Closer, how: How) -> Verdict {
    Verdict { closer, how, guessed: false }
}

/// Whether anything has begun to end this connection.
pub(super) fn has_begun(record: &SocketRecord) -> bool {
    let SocketRecord { end_sign_at, released_at, ended_at, .. } = *record;
    (end_sign_at | released_at | ended_at) != 0 || record.state_before_end != 0 || record.flags & flag::NO_SYN != 0
}

/// Judges a connection whose end has begun.
pub(super) fn judge(record: &SocketRecord) -> Verdict {
    if record.flags & flag::NO_SYN != 0 {
        return sure(Closer::None, How::Unreachable);
    }
    match (record.state_before_end, record.state_at_end) {
        (tcp_state::SYN_SENT, _) => failed_connect(record.error),
        (tcp_state::ESTABLISHED | tcp_state::SYN_RECV, tcp_state::CLOSE) => dropped(record),
        (tcp_state::ESTABLISHED | tcp_state::SYN_RECV, to) => by_state(to).unwrap_or_else(|| guess(record)),
        (from, _) => by_state(from).unwrap_or_else(|| guess(record)),
    }
}

/// Judges by a state that only one side's FIN leads to.
pub(super) fn by_state(state: u8) -> Option<Verdict> {
    match state {
        tcp_state::FIN_WAIT1 | tcp_state::FIN_WAIT2 | tcp_state::CLOSING | tcp_state::TIME_WAIT => {
            Some(sure(Closer::Local, How::Fin))
        }
        tcp_state::CLOSE_WAIT | tcp_state::LAST_ACK => Some(sure(Closer::Peer, How::Fin)),
        _ => None,
    }
}

/// From SYN_SENT, by the socket's error.
fn failed_connect(error: u32) -> Verdict {
    match error.cast_signed() {
        ECONNREFUSED => sure(Closer::None, How::Refused),
        ETIMEDOUT => sure(Closer::None, How::Timeout),
        ECONNRESET => sure(Closer::Peer, How::Rst),
        // Nothing went wrong: the application gave up, or the socket was killed.
        0 | ECONNABORTED => sure(Closer::Local, How::Aborted),
        // No route, no host, no address, forbidden by a rule.
        _ => sure(Closer::None, How::Unreachable),
    }
}

/// From ESTABLISHED straight to CLOSE: no FIN from either side.
fn dropped(record: &SocketRecord) -> Verdict {
    match record.error.cast_signed() {
        ETIMEDOUT => sure(Closer::None, How::Timeout),
        EHOSTUNREACH | ENETUNREACH => sure(Closer::None, How::Unreachable),
        // EPIPE is what a reset after the peer's FIN leaves.
        ECONNRESET | EPIPE => sure(Closer::Peer, How::Rst),
        _ if record.flags & flag::RST_RECEIVED != 0 => sure(Closer::Peer, How::Rst),
        ECONNABORTED => sure(Closer::Local, How::Aborted),
        // Linger 0, or closed with unread data. No failure.
        _ => sure(Closer::Local, How::Rst),
    }
}

/// The change of state is not known (its event was lost): what the rest suggests.
fn guess(record: &SocketRecord) -> Verdict {
    let peer_closed = record.flags & flag::PEER_FIN != 0;
    let reset = flag::RST_RECEIVED | flag::RST_SENT;
    let verdict = match record.error.cast_signed() {
        ECONNREFUSED => sure(Closer::None, How::Refused),
        EADDRNOTAVAIL => sure(Closer::None, How::Unreachable),
        0 if record.flags & reset == 0 && peer_closed => sure(Closer::Peer, How::Fin),
        0 if record.flags & reset == 0 => sure(Closer::Local, How::Fin),
        _ => dropped(record),
    };
    Verdict { guessed: true, ..verdict }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::EACCES;
    use tracer_ebpf::tcp_state::*;
    use zerocopy::FromZeros;

    fn verdict(from: u8, to: u8, error: i32, flags: u32) -> (Closer, How, bool) {
        let record = SocketRecord {
            state_before_end: from,
            state_at_end: to,
            error: error.cast_unsigned(),
            flags,
            ..SocketRecord::new_zeroed()
        };
        let Verdict { closer, how, guessed } = judge(&record);
        (closer, how, guessed)
    }

    #[test]
    fn failed_connects_are_told_by_their_error() {
        let failed = |error, flags| verdict(SYN_SENT, CLOSE, error, flags);
        assert_eq!(failed(ECONNREFUSED, flag::RST_RECEIVED), (Closer::None, How::Refused, false));
        assert_eq!(failed(ETIMEDOUT, 0), (Closer::None, How::Timeout, false));
        assert_eq!(failed(EHOSTUNREACH, 0), (Closer::None, How::Unreachable, false));
        assert_eq!(failed(EACCES, 0), (Closer::None, How::Unreachable, false));
        assert_eq!(failed(0, 0), (Closer::Local, How::Aborted, false));
        assert_eq!(failed(ECONNABORTED, 0), (Closer::Local, How::Aborted, false));
        assert_eq!(failed(ECONNRESET, 0), (Closer::Peer, How::Rst, false));
        assert_eq!(verdict(0, 0, EADDRNOTAVAIL, flag::NO_SYN), (Closer::None, How::Unreachable, false));
    }

    #[test]
    fn the_first_fin_tells_the_closer() {
        assert_eq!(verdict(ESTABLISHED, FIN_WAIT1, 0, 0), (Closer::Local, How::Fin, false));
        assert_eq!(verdict(ESTABLISHED, CLOSE_WAIT, 0, 0), (Closer::Peer, How::Fin, false));
        // What comes after the first FIN changes nothing.
        assert_eq!(verdict(ESTABLISHED, CLOSE_WAIT, EPIPE, flag::RST_RECEIVED), (Closer::Peer, How::Fin, false));
        // An adopted socket that was past its first FIN.
        assert_eq!(verdict(CLOSE_WAIT, LAST_ACK, 0, 0), (Closer::Peer, How::Fin, false));
        assert_eq!(verdict(FIN_WAIT2, CLOSE, 0, 0), (Closer::Local, How::Fin, false));
    }

    #[test]
    fn drops_are_told_by_error_and_reset() {
        let dropped = |error, flags| verdict(ESTABLISHED, CLOSE, error, flags);
        assert_eq!(dropped(ECONNRESET, 0), (Closer::Peer, How::Rst, false));
        assert_eq!(dropped(0, flag::RST_RECEIVED), (Closer::Peer, How::Rst, false));
        assert_eq!(dropped(EPIPE, 0), (Closer::Peer, How::Rst, false));
        assert_eq!(dropped(ETIMEDOUT, 0), (Closer::None, How::Timeout, false));
        assert_eq!(dropped(ENETUNREACH, 0), (Closer::None, How::Unreachable, false));
        assert_eq!(dropped(ECONNABORTED, 0), (Closer::Local, How::Aborted, false));
        assert_eq!(dropped(0, flag::RST_SENT), (Closer::Local, How::Rst, false));
        assert_eq!(dropped(0, 0), (Closer::Local, How::Rst, false));
    }

    #[test]
    fn an_unknown_change_is_guessed_at_and_says_so() {
        assert_eq!(verdict(0, 0, 0, 0), (Closer::Local, How::Fin, true));
        assert_eq!(verdict(0, 0, 0, flag::PEER_FIN), (Closer::Peer, How::Fin, true));
        assert_eq!(verdict(0, 0, 0, flag::RST_SENT), (Closer::Local, How::Rst, true));
        assert_eq!(verdict(0, 0, ECONNRESET, 0), (Closer::Peer, How::Rst, true));
        assert_eq!(verdict(77, 99, ETIMEDOUT, 0), (Closer::None, How::Timeout, true));
    }
}
