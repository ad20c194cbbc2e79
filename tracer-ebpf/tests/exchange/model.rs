//! A connection whose exchanges are counted, and what holds of it whatever passes. Also compiled into a fuzz target.

use std::cell::RefCell;

use tracer_ebpf::exchange::{Exchanges, Passed};

/// Something that happens at the connection.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Bytes of the asking side.
    Ask,
    /// Bytes of the answering side.
    Answer,
    /// Bytes of the asking side that may be an alert.
    HeldAsk,
    /// Bytes of the answering side that may be an alert.
    HeldAnswer,
    /// Bytes of the answering side that may be session tickets.
    Tickets,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ask, Self::Answer, Self::HeldAsk, Self::HeldAnswer, Self::Tickets];
}

/// What an event told of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Exchanges begun by then.
    pub count: u32,
    /// First byte of the ask, and of the answer.
    pub at: (u64, u64),
    /// Sent and received before the exchange.
    pub before: (u64, u64),
}

/// A client's end.
pub struct Client {
    /// What is kept of it.
    pub exchanges: Exchanges,
    /// The events so far.
    pub answered: RefCell<Vec<Answered>>,
}

impl Client {
    /// That is ready for data since then.
    pub fn ready(ready_at: u64) -> Self {
        let exchanges = Exchanges {
            ready_at,
            asked_at: 0,
            answered_at: 0,
            last_at: 0,
            previous_at: 0,
            last_before_end: 0,
            max_idle: 0,
            held_at: 0,
            sent: 0,
            received: 0,
            held_sent: 0,
            held_received: 0,
            sent_before: 0,
            received_before: 0,
            write_seq: 0,
            copied_seq: 0,
            count: 0,
            flags: 0,
        };
        Self { exchanges, answered: RefCell::default() }
    }

    /// So many bytes pass, and what must hold after it is checked.
    pub fn apply(&mut self, op: Op, at: u64, bytes: u32) {
        let before = self.exchanges;
        let told = self.answered.borrow().len();
        self.pass(op, at, bytes);
        self.assert_sound(&before, told, at);
    }

    /// As the hooks do it: what is sent is counted by the next call, what is received by this one.
    fn pass(&mut self, op: Op, at: u64, bytes: u32) {
        let Self { exchanges, answered } = self;
        let received_before = exchanges.received;
        let asks = matches!(op, Op::Ask | Op::HeldAsk);
        exchanges.count_sent(exchanges.write_seq);
        if !asks {
            let copied_seq = exchanges.copied_seq.wrapping_add(bytes);
            assert_eq!(exchanges.count_received(copied_seq, bytes), bytes != 0);
        }
        let passed = Passed { at, asks, stale: false, received_before };
        let tell = |exchanges: &Exchanges| {
            answered.borrow_mut().push(Answered {
                count: exchanges.count,
                at: (exchanges.asked_at, exchanges.answered_at),
                before: (exchanges.sent_before, exchanges.received_before),
            });
        };
        match op {
            Op::Ask | Op::Answer => exchanges.pass(passed, tell),
            Op::HeldAsk | Op::HeldAnswer => exchanges.hold(passed),
            Op::Tickets => exchanges.maybe_tickets(at, tell),
        }
        if asks {
            exchanges.count_sent(exchanges.write_seq.wrapping_add(bytes));
        }
    }

    fn assert_sound(&self, before: &Exchanges, told: usize, at: u64) {
        let now = &self.exchanges;
        assert!(now.count >= before.count, "exchanges are not taken back");
        assert!(now.count - before.count <= 2, "a call begins its own and the one that was held");
        assert!(now.last_at >= before.last_at && now.last_at <= at, "data passes in order, and none later than now");
        assert!(now.max_idle >= before.max_idle && now.max_idle <= at - now.ready_at);
        assert!(now.sent >= before.sent && now.received >= before.received);
        assert!(now.sent_before <= now.sent && now.received_before <= now.received);
        assert!(now.last_at >= now.asked_at, "the ask is data too");
        assert!(now.previous_at <= now.asked_at, "what came before came before");
        assert!(now.answered_at == 0 || now.asked_at <= now.answered_at && now.answered_at <= now.last_at);
        assert_eq!(now.count == 0, now.last_at == 0, "without data there is no exchange");
        let answered = self.answered.borrow();
        for (index, event) in answered.iter().enumerate().skip(told) {
            assert!(event.at.1 != 0 && event.at.0 <= event.at.1, "an answer has a time: {event:?}");
            let Some(last) = index.checked_sub(1).map(|last| answered[last]) else { continue };
            assert!(last.count < event.count, "an exchange is told once: {last:?} {event:?}");
            assert!(last.at.1 <= event.at.0, "an ask follows upon an answer: {last:?} {event:?}");
            assert!(last.before.0 <= event.before.0 && last.before.1 <= event.before.1, "{last:?} {event:?}");
        }
    }
}
