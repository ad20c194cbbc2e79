//! Exchanges by the direction of their bytes.

mod model;

use model::{Answered, Client, Op};
use proptest::{collection::vec, prelude::*, sample::select};
use tracer_ebpf::exchange::flag;

/// When connections here become ready.
const READY: u64 = 1_000;

/// A client's end after all that: what, when, how many bytes.
fn after(ops: &[(Op, u64, u32)]) -> Client {
    let mut client = Client::ready(READY);
    for &(op, at, bytes) in ops {
        client.apply(op, at, bytes);
    }
    client
}

fn answered(count: u32, at: (u64, u64), before: (u64, u64)) -> Answered {
    Answered { count, at, before }
}

#[test]
fn each_turn_of_a_kept_connection_is_one_exchange() {
    let client = after(&[
        (Op::Ask, 2_000, 10),
        (Op::Ask, 2_100, 5),
        (Op::Answer, 2_500, 100),
        (Op::Answer, 2_700, 50),
        (Op::Ask, 9_000, 1),
        (Op::Answer, 9_400, 2),
    ]);
    let expected = [answered(1, (2_000, 2_500), (0, 0)), answered(2, (9_000, 9_400), (15, 150))];
    assert_eq!(client.answered.borrow()[..], expected);
    let exchanges = client.exchanges;
    assert_eq!((exchanges.count, exchanges.previous_at, exchanges.last_at), (2, 2_700, 9_400));
    assert_eq!((exchanges.max_idle, exchanges.sent, exchanges.received), (6_300, 16, 152));
}

#[test]
fn a_server_that_speaks_first_greets_since_the_connection_was_ready() {
    let mut client = after(&[(Op::Answer, 3_000, 40)]);
    assert_eq!(client.exchanges.flags & flag::GREETING, flag::GREETING);
    assert_eq!(client.answered.borrow()[..], [answered(1, (READY, 3_000), (0, 0))]);
    client.apply(Op::Ask, 4_000, 7);
    assert_eq!((client.exchanges.count, client.exchanges.flags & flag::GREETING), (2, 0));
}

#[test]
fn an_ask_without_an_answer_is_begun_and_not_told() {
    let client = after(&[(Op::Ask, 2_000, 10), (Op::Ask, 3_000, 10)]);
    assert_eq!((client.exchanges.count, client.exchanges.answered_at), (1, 0));
    assert_eq!(client.answered.borrow()[..], []);
}

#[test]
fn what_may_be_tickets_is_no_answer_when_another_comes() {
    let client = after(&[(Op::Ask, 2_000, 10), (Op::Tickets, 2_200, 250), (Op::Answer, 2_900, 30)]);
    assert_eq!(client.answered.borrow()[..], [answered(1, (2_000, 2_900), (0, 0))]);
    assert_eq!(client.exchanges.flags & flag::MAYBE_TICKETS, 0);
}

#[test]
fn what_may_be_tickets_was_the_answer_when_the_next_ask_follows() {
    let client = after(&[(Op::Ask, 2_000, 10), (Op::Tickets, 2_200, 250), (Op::Ask, 2_900, 30)]);
    assert_eq!(client.answered.borrow()[..], [answered(1, (2_000, 2_200), (0, 0))]);
    assert_eq!((client.exchanges.count, client.exchanges.answered_at), (2, 0));
}

#[test]
fn tickets_before_any_ask_are_no_greeting() {
    let client = after(&[(Op::Tickets, 2_000, 250)]);
    assert_eq!((client.exchanges.count, client.exchanges.last_at), (0, 0));
}

#[test]
fn what_may_be_an_alert_is_no_data_if_nothing_follows() {
    let client = after(&[(Op::Ask, 2_000, 10), (Op::Answer, 2_500, 9), (Op::HeldAsk, 8_000, 24)]);
    assert_eq!((client.exchanges.count, client.exchanges.last_at, client.exchanges.max_idle), (1, 2_500, 0));
}

#[test]
fn what_may_be_an_alert_was_the_ask_when_an_answer_follows() {
    let client =
        after(&[(Op::Ask, 2_000, 10), (Op::Answer, 2_500, 9), (Op::HeldAsk, 8_000, 24), (Op::Answer, 8_300, 24)]);
    assert_eq!((client.exchanges.count, client.exchanges.asked_at, client.exchanges.max_idle), (2, 8_000, 5_500));
    // Its own bytes are not those of the exchange before it.
    assert_eq!(client.answered.borrow()[1], answered(2, (8_000, 8_300), (10, 9)));
}

#[test]
fn what_is_held_is_settled_before_session_tickets_are_taken_in() {
    let client = after(&[(Op::HeldAsk, 2_000, 24), (Op::Tickets, 2_300, 250), (Op::Answer, 2_600, 40)]);
    assert_eq!((client.exchanges.count, client.exchanges.asked_at, client.exchanges.answered_at), (1, 2_000, 2_600));
}

#[test]
fn what_may_be_an_alert_was_the_answer_when_an_ask_follows() {
    let client = after(&[(Op::Ask, 2_000, 10), (Op::HeldAnswer, 2_500, 24), (Op::Ask, 8_000, 24)]);
    assert_eq!(client.answered.borrow()[..], [answered(1, (2_000, 2_500), (0, 0))]);
    assert_eq!((client.exchanges.count, client.exchanges.previous_at), (2, 2_500));
}

#[test]
fn what_passed_for_a_client_hello_was_the_ask_when_it_was_sent() {
    let mut client = Client::ready(READY);
    client.exchanges.held_ask(2_000);
    client.apply(Op::Answer, 2_600, 30);
    assert_eq!(client.answered.borrow()[..], [answered(1, (2_000, 2_600), (0, 0))]);
    assert_eq!(client.exchanges.flags & flag::GREETING, 0);
}

#[test]
fn what_is_held_and_belongs_to_a_handshake_is_no_ask() {
    let mut client = after(&[(Op::HeldAsk, 2_000, 3)]);
    assert_eq!(client.exchanges.drop_held(), Some(2_000));
    assert_eq!(client.exchanges.drop_held(), None);
    client.apply(Op::Ask, 3_000, 100);
    assert_eq!((client.exchanges.count, client.exchanges.asked_at), (1, 3_000));
}

#[test]
fn numbers_that_wrap_around_go_on_counting() {
    let mut exchanges = Client::ready(READY).exchanges;
    exchanges.write_seq = u32::MAX - 9;
    exchanges.count_sent(20);
    assert_eq!(exchanges.sent, 30);
}

#[test]
fn a_fin_takes_up_a_number_and_is_no_byte() {
    let mut exchanges = Client::ready(READY).exchanges;
    assert!(exchanges.count_received(101, 100));
    assert_eq!((exchanges.received, exchanges.copied_seq), (100, 101));
    assert!(!exchanges.count_received(101, 0), "nothing more was taken");
    assert_eq!(exchanges.received, 100);
}

proptest! {
    #[test]
    fn whatever_passes_is_counted_once_and_in_order(
        ops in vec((select(&Op::ALL), 0..1_000_u64, 1..5_000_u32), 0..60),
    ) {
        let mut client = Client::ready(READY);
        let mut at = READY;
        for (op, later, bytes) in ops {
            at += later;
            client.apply(op, at, bytes);
        }
    }

    #[test]
    fn without_alerts_and_tickets_the_directions_alone_make_the_exchanges(asks in vec(any::<bool>(), 0..60)) {
        let mut client = Client::ready(READY);
        for (index, &is_ask) in asks.iter().enumerate() {
            client.apply(if is_ask { Op::Ask } else { Op::Answer }, READY + 1 + index as u64, 1);
        }
        let greets = asks.first() == Some(&false);
        let turns = asks.iter().zip(asks.iter().skip(1)).filter(|&(&before, &now)| !before && now).count();
        let begun = usize::from(!asks.is_empty()) + turns;
        prop_assert_eq!(client.exchanges.count as usize, begun);
        let unanswered = usize::from(asks.last() == Some(&true));
        prop_assert_eq!(client.answered.borrow().len(), begun - unanswered);
        prop_assert!(!greets || client.answered.borrow()[0].at.0 == READY);
    }
}
