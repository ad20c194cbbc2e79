//! A connection's end in plain words.

use super::{errno, units::duration};
use crate::track::record::{Bound, Close, Closer, Connection, How};

/// A shorter connect would read `0.00 ms`: no packet was sent, so the time says nothing.
const LEAST: u64 = 10_000;

/// How grave an end is; decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gravity {
    /// As it should be.
    Calm,
    /// Worth a look: a dead connection was kept.
    Odd,
    /// A failure.
    Bad,
}

/// What became of a connection: idle time, closer and manner, or its failure.
pub fn ending(connection: &Connection) -> (String, Gravity) {
    let (Some(close), true) = (&connection.close, connection.established) else {
        return unfinished_or_failed(connection);
    };
    let mut words = format!("{}{}", idle(connection), closer(close));
    let released = close.released_at.is_some();
    if let Some(unnoticed) = close.unnoticed {
        let unnoticed = duration(unnoticed);
        let verb = if released { "unnoticed for" } else { "still not released after" };
        words.push_str(&format!(", {verb} {unnoticed}"));
    } else if connection.open && !released {
        words.push_str(", still not released");
    } else if connection.open {
        words.push_str(", the rest of the close still to come");
    }
    let gravity = match close.how {
        How::Fin | How::Aborted => Gravity::Calm,
        How::Rst if close.closer == Closer::Local => Gravity::Calm,
        How::Rst | How::Timeout | How::Refused | How::Unreachable => Gravity::Bad,
    };
    // A second is more than any pool that looks at its connections needs.
    let kept_dead = close.unnoticed.is_some_and(|unnoticed| unnoticed >= 1_000_000_000);
    (words, if gravity == Gravity::Calm && kept_dead { Gravity::Odd } else { gravity })
}

fn unfinished_or_failed(connection: &Connection) -> (String, Gravity) {
    match &connection.close {
        Some(close) => {
            (failure(connection, close), if close.how == How::Aborted { Gravity::Odd } else { Gravity::Bad })
        }
        None if !connection.established => ("still connecting".into(), Gravity::Odd),
        None if connection.open => {
            let idle = connection.idle_before_close.map(|idle| format!(", idle for {}", duration(idle)));
            (format!("still open{}", idle.unwrap_or_default()), Gravity::Calm)
        }
        None => ("end not seen".into(), Gravity::Odd),
    }
}

/// `refused after 0.31 ms (ECONNREFUSED)`
fn failure(connection: &Connection, close: &Close) -> String {
    let what = match close.how {
        How::Refused => "refused",
        How::Timeout => "no answer, gave up",
        How::Unreachable if connection.connect.is_some_and(|connect| connect < LEAST) => "unreachable",
        How::Unreachable => "unreachable, failed",
        How::Aborted => "connect aborted",
        How::Rst | How::Fin => "reset while connecting",
    };
    let connect = connection.connect.filter(|connect| *connect >= LEAST);
    let after = connect.map(|connect| format!(" after {}", duration(connect)));
    format!("{what}{}{}", after.unwrap_or_default(), error(close))
}

/// `idle 5.00 s, then `
fn idle(connection: &Connection) -> String {
    let Some(idle) = connection.idle_before_close else {
        return String::new();
    };
    let note = connection.confidence.iter().find(|note| note.field == "idle_before_close_ms");
    let bound = match note.map(|note| note.bound) {
        None => "",
        Some(Bound::Lower) => "at least ",
        Some(Bound::Upper) => "at most ",
        Some(Bound::Estimate | Bound::Unknown) => "about ",
    };
    format!("idle {bound}{}, then ", duration(idle))
}

/// `local closed (FIN)`
fn closer(close: &Close) -> String {
    let what = match (close.closer, close.how) {
        (Closer::Local, How::Aborted) => "killed locally",
        (Closer::Local, How::Rst) if close.process_exited => "process exited (RST)",
        (Closer::Local, _) if close.process_exited => "process exited (FIN)",
        (Closer::Local, How::Rst) => "local reset (RST)",
        (Closer::Local, _) => "local closed (FIN)",
        (Closer::Peer, How::Rst) => "peer reset (RST)",
        (Closer::Peer, _) => "peer closed (FIN)",
        (Closer::None, How::Unreachable) => "peer became unreachable",
        (Closer::None, _) => "peer stopped answering",
    };
    format!("{what}{}", error(close))
}

fn error(close: &Close) -> String {
    // The reset's own error adds nothing to "peer reset".
    if close.errno == Some(libc::ECONNRESET.cast_unsigned()) && close.how == How::Rst {
        return String::new();
    }
    close.errno.map_or_else(String::new, |number| format!(" ({})", errno::text(number)))
}
