//! Sessions of TLS libraries whose connection is not known yet: what was seen in them waits until it is.

use std::rc::Rc;

use foldhash::fast::RandomState;
use hashlink::LinkedHashMap;

use super::decode::SessionId;
use crate::track::record::HttpHead;

/// Most sessions that wait, and most heads of one.
const MAX_SESSIONS: usize = 1_024;
const MAX_HEADS: usize = 4;

/// An HTTP head that was seen in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: u64,
    /// The process sent it.
    pub sent: bool,
    /// What it says.
    pub head: Rc<HttpHead>,
}

/// What waits, the session that has waited for longest first.
#[derive(Default)]
pub struct Sessions {
    waiting: LinkedHashMap<SessionId, Vec<Seen>, RandomState>,
    lost: u64,
}

impl Sessions {
    /// Keeps what was seen in a session until its connection is known. Of too much the oldest is lost.
    pub fn wait(&mut self, session: SessionId, seen: Seen) {
        while self.waiting.len() >= MAX_SESSIONS && !self.waiting.contains_key(&session) {
            let Some((_, dropped)) = self.waiting.pop_front() else { break };
            self.lost += dropped.len() as u64;
        }
        let heads = self.waiting.entry(session).or_insert_with(Vec::new);
        if heads.len() >= MAX_HEADS {
            heads.remove(0);
            self.lost += 1;
        }
        heads.push(seen);
    }

    /// What was seen in a session whose connection has become known, oldest first: of its last turn. Which exchanges the turns before
    /// were is not known any more.
    pub fn join(&mut self, session: SessionId) -> Vec<Seen> {
        let mut seen = self.waiting.remove(&session).unwrap_or_default();
        let last_request = seen.iter().rposition(|seen| seen.head.status.is_none()).unwrap_or(0);
        self.lost += last_request as u64;
        seen.split_off(last_request)
    }

    /// A session has turned out to belong to no one connection.
    pub fn give_up(&mut self, session: SessionId) {
        self.lost += self.waiting.remove(&session).unwrap_or_default().len() as u64;
    }

    /// How many heads no connection was found for, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Nothing more will come to tell the connections of what waits.
    pub fn give_up_all(&mut self) {
        self.lost += self.waiting.drain().map(|(_, seen)| seen.len() as u64).sum::<u64>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(at: u64) -> Seen {
        Seen { at, sent: true, head: Rc::default() }
    }

    #[test]
    fn what_was_seen_is_handed_out_in_order_once_the_connection_is_known() {
        let mut sessions = Sessions::default();
        for (session, at) in [((1, 10), 1), ((1, 11), 2), ((1, 10), 3), ((2, 10), 4)] {
            sessions.wait(session, seen(at));
        }
        let answer = Seen { head: Rc::new(HttpHead { status: Some(200), ..HttpHead::default() }), ..seen(5) };
        sessions.wait((1, 10), answer.clone());
        assert_eq!(sessions.join((1, 10)), [seen(3), answer], "what came before is of an exchange that is not known");
        assert_eq!(sessions.take_lost(), 1);
        assert_eq!(sessions.join((1, 10)), []);
        sessions.give_up((2, 10));
        assert_eq!(sessions.take_lost(), 1);
        sessions.give_up_all();
        assert_eq!((sessions.take_lost(), sessions.take_lost()), (1, 0));
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_dropped_for_that_is_counted() {
        let mut sessions = Sessions::default();
        for at in 0..5_000 {
            sessions.wait((1, at), seen(at));
        }
        for at in 0..10 {
            sessions.wait((2, 2), seen(at));
        }
        assert_eq!(sessions.waiting.len(), MAX_SESSIONS);
        assert_eq!(sessions.take_lost(), 5_000 - (MAX_SESSIONS as u64 - 1) + 10 - MAX_HEADS as u64);
        sessions.give_up_all();
        assert_eq!(sessions.take_lost(), MAX_SESSIONS as u64 - 1 + MAX_HEADS as u64);
    }
}
