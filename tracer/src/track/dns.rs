//! Lookups: which answer belongs to which question, what it cost, and which connection it was made for.
//!
//! A lookup is one process's question for one name and type, until it is answered. Asked again by the same thread, or after
//! half a second, it is the same lookup, retried. The lookups of a name that a process makes together (A and AAAA) are one effort:
//! it took from the first question to the last answer before the connect, because resolvers wait for both.
//!
//! A call of `getaddrinfo` is a lookup too. If its thread asked a DNS server meanwhile, those questions are the lookups, and the
//! call only tells what they cost: all that the thread waited, other names of a search list and the configuration's files
//! included. Else the call is the lookup.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    rc::Rc,
};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashlink::LinkedHashMap;

use super::record::{LookedUp, Nanos};
use crate::stage::{
    dns::{DnsAnswer, DnsMessage},
    getaddrinfo::Resolved,
};

const SECOND: Nanos = 1_000_000_000;
/// How long an answer is waited for, after the last time it was asked for.
pub(super) const PATIENCE: Nanos = 30 * SECOND;
/// Another thread that asks the same so soon does so for itself. Resolvers wait for a second at least, but Go's counts from
/// before it makes its socket, and is a few milliseconds early.
const RETRY_AFTER: Nanos = SECOND / 2;
/// How long after an answer that a server cannot help a question to another server is a retry.
const NEXT_SERVER: Nanos = 5 * SECOND;
/// A connection this soon after an answer may have been made for it, whatever the answer's time to live.
const SOON: Nanos = 10 * SECOND;
/// How long an application may use an answer of `getaddrinfo`, which has no time to live: as long as Java keeps it, the longest
/// of what is widespread.
const UNTOLD_TTL: Nanos = 30 * SECOND;
/// The longest time to live that is believed.
const LONGEST_TTL: Nanos = 86_400 * SECOND;

/// Bounds: beyond, the oldest is forgotten.
const MAX_WAITING: usize = 4_096;
const MAX_SENT: usize = 8;
const MAX_EFFORTS: usize = 4_096;
const MAX_ADDRESSES: usize = 16_384;
/// Answers remembered for one address: threads look the same name up at the same time.
const MAX_ANSWERS: usize = 8;
const MAX_REFUSED: usize = 256;
const MAX_ASKERS: usize = 4_096;

/// A lookup that is over.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finished {
    /// The question as it was first sent: process, thread, name, type, server.
    pub query: DnsMessage,
    /// The answer, and when it came; `None` if none came.
    pub answer: Option<(u64, DnsAnswer)>,
    /// How often it was asked again.
    pub retries: u32,
}

/// A process: number and start time.
type Process = (u32, u64);

/// What a process asks.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    process: Process,
    netns: u32,
    name: Rc<str>,
    record_type: Rc<str>,
}

/// One sending of a question, as its answer names it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Sent {
    netns: u32,
    local_port: u16,
    server: SocketAddr,
    tcp: bool,
    id: u16,
    name: Rc<str>,
    record_type: Rc<str>,
}

/// A lookup that waits for its answer.
struct Waiting {
    query: DnsMessage,
    question: Question,
    last_sent_at: u64,
    retries: u32,
    sent: Vec<Sent>,
    effort: u64,
    /// An answer that was cut short; what counts is the whole one over TCP.
    truncated: Option<(u64, DnsAnswer)>,
}

/// A process's lookups of one name that belong together.
struct Effort {
    key: (Process, Rc<str>),
    began_at: u64,
    record_types: Vec<Rc<str>>,
    /// When answers came, at most one a record type that is kept.
    answered_at: Vec<u64>,
    /// A connection has been made for it.
    paid: bool,
}

/// An address that a name had.
struct Answer {
    name: Rc<str>,
    at: u64,
    good_until: u64,
    effort: u64,
}

/// All lookups of the traced processes.
#[derive(Default)]
pub(super) struct Lookups {
    next: u64,
    /// By number, the one asked longest ago first.
    waiting: LinkedHashMap<u64, Waiting, RandomState>,
    by_question: HashMap<Question, u64, RandomState>,
    by_sent: HashMap<Sent, u64, RandomState>,
    efforts: LinkedHashMap<u64, Effort, RandomState>,
    newest_effort: HashMap<(Process, Rc<str>), u64, RandomState>,
    addresses: LinkedHashMap<(Process, IpAddr), Vec<Answer>, RandomState>,
    /// Questions that a server could not help with: when, and how often they had been asked again.
    refused: LinkedHashMap<Question, (u64, u32), RandomState>,
    /// When each thread last asked a server.
    askers: LinkedHashMap<(Process, u32), u64, RandomState>,
    unasked: u64,
}

impl Lookups {
    /// Takes in a message. Returns the lookup that it ends, or that it pushes out.
    pub fn message(&mut self, message: &DnsMessage) -> Option<Finished> {
        match &message.answer {
            None => self.query(message),
            Some(answer) => self.answer(message, answer),
        }
    }

    /// Takes in a call of `getaddrinfo` that has returned. Returns whether it is a lookup of its own: its thread asked no server.
    pub fn resolved(&mut self, call: &Resolved) -> bool {
        let process = (call.pid, call.process_started_at);
        let asked_at = self.askers.get(&(process, call.tid));
        let asked = asked_at.is_some_and(|at| (call.began_at..=call.at).contains(at));
        if call.addresses.is_empty() {
            return !asked;
        }
        let called: Rc<str> = call.name.as_str().into();
        let effort = Effort {
            key: (process, Rc::clone(&called)),
            began_at: call.began_at,
            record_types: Vec::new(),
            answered_at: vec![call.at],
            paid: false,
        };
        let effort = self.add_effort(effort);
        for address in &call.addresses {
            let heard = if asked { self.heard_within(process, *address, call.began_at..=call.at) } else { None };
            let (name, good_until) = heard.unwrap_or_else(|| (Rc::clone(&called), 0));
            let good_until = good_until.max(call.at.saturating_add(UNTOLD_TTL));
            self.remember((process, *address), Answer { name, at: call.at, good_until, effort });
        }
        !asked
    }

    /// By which name a server told of an address meanwhile, and for how long it may be used. The call pays for that from now on.
    fn heard_within(
        &mut self,
        process: Process,
        address: IpAddr,
        meanwhile: RangeInclusive<u64>,
    ) -> Option<(Rc<str>, u64)> {
        let answers = self.addresses.get(&(process, address))?;
        let answer = answers.iter().rev().find(|answer| meanwhile.contains(&answer.at))?;
        if let Some(effort) = self.efforts.get_mut(&answer.effort) {
            effort.paid = true;
        }
        Some((Rc::clone(&answer.name), answer.good_until))
    }

    /// A lookup that has waited for too long by this time.
    pub fn expired(&mut self, now: u64) -> Option<Finished> {
        let (number, waiting) = self.waiting.front()?;
        if waiting.last_sent_at.saturating_add(PATIENCE) > now {
            return None;
        }
        let number = *number;
        self.finish(number, None)
    }

    /// A lookup that waits still, as the trace stops.
    pub fn next_unanswered(&mut self) -> Option<Finished> {
        let number = *self.waiting.front()?.0;
        self.finish(number, None)
    }

    /// Forgets the lookups that wait: their answers will not be seen. Returns how many.
    pub fn forget_waiting(&mut self) -> u64 {
        let forgotten = self.waiting.len() as u64;
        self.waiting.clear();
        self.by_sent.clear();
        self.by_question.clear();
        forgotten
    }

    /// Answers since the last call that no question was seen for.
    pub fn take_unasked(&mut self) -> u64 {
        std::mem::take(&mut self.unasked)
    }

    /// Whether any lookup waits for its answer.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What a process's connect at this time to this address goes by. The first connect after a lookup pays for it; one that
    /// never was on its way (no route) does not.
    pub fn connected(&mut self, process: Process, address: IpAddr, at: u64, pays: bool) -> Option<LookedUp> {
        let answers = self.addresses.get(&(process, address))?;
        let answer = answers.iter().rev().find(|answer| answer.at <= at && at <= answer.good_until)?;
        let name = Rc::clone(&answer.name);
        let cost = match self.efforts.get_mut(&answer.effort) {
            Some(effort) if pays && !effort.paid && at.saturating_sub(answer.at) <= SOON => {
                effort.paid = true;
                let last = effort.answered_at.iter().filter(|answered| **answered <= at).max();
                last.copied().unwrap_or(answer.at).saturating_sub(effort.began_at)
            }
            _ => 0,
        };
        Some(LookedUp { name, cost })
    }

    fn query(&mut self, query: &DnsMessage) -> Option<Finished> {
        self.note_asker(query);
        let question = Question {
            process: (query.pid, query.process_started_at),
            netns: query.netns,
            name: query.name.as_str().into(),
            record_type: query.record_type.as_str().into(),
        };
        let sent = Sent {
            netns: query.netns,
            local_port: query.local_port,
            server: query.server,
            tcp: query.tcp,
            id: query.id,
            name: Rc::clone(&question.name),
            record_type: Rc::clone(&question.record_type),
        };
        if let Some(number) = self.by_question.get(&question).copied()
            && let Some(waiting) = self.waiting.get(&number)
        {
            let waited = query.at.saturating_sub(waiting.last_sent_at);
            // Over TCP it is asked again because the answer was cut short, not because it was missing.
            let for_the_rest = query.tcp && waiting.truncated.is_some();
            // What Go's scheduler has moved to another thread meanwhile keeps its number.
            let moved = for_the_rest && waiting.sent.iter().any(|sent| sent.id == query.id);
            if (waiting.query.tid == query.tid || waited >= RETRY_AFTER || moved)
                && let Some(waiting) = self.waiting.to_back(&number)
            {
                waiting.retries = waiting.retries.saturating_add(u32::from(!for_the_rest));
                waiting.last_sent_at = query.at;
                waiting.query.tcp |= query.tcp;
                if waiting.sent.len() < MAX_SENT {
                    waiting.sent.push(sent.clone());
                    self.by_sent.insert(sent, number);
                }
                return None;
            }
        }
        let pushed_out = if self.waiting.len() >= MAX_WAITING { self.next_unanswered() } else { None };
        let before = self.refused.remove(&question);
        let before = before.filter(|(at, _)| query.at.saturating_sub(*at) <= NEXT_SERVER);
        self.next += 1;
        let number = self.next;
        let effort = self.effort(&question, query.at);
        self.by_question.insert(question.clone(), number);
        self.by_sent.insert(sent.clone(), number);
        let waiting = Waiting {
            query: query.clone(),
            question,
            last_sent_at: query.at,
            retries: before.map_or(0, |(_, retries)| retries + 1),
            sent: vec![sent],
            effort,
            truncated: None,
        };
        self.waiting.insert(number, waiting);
        pushed_out
    }

    fn note_asker(&mut self, query: &DnsMessage) {
        let thread = ((query.pid, query.process_started_at), query.tid);
        while self.askers.len() >= MAX_ASKERS && !self.askers.contains_key(&thread) {
            self.askers.pop_front();
        }
        self.askers.remove(&thread);
        self.askers.insert(thread, query.at);
    }

    /// The effort that a question belongs to: that of the name's other type, or a new one. A question to the next server goes on
    /// with the effort in which the one before it failed.
    fn effort(&mut self, question: &Question, at: u64) -> u64 {
        let key = (question.process, Rc::clone(&question.name));
        if let Some(number) = self.newest_effort.get(&key)
            && let Some(effort) = self.efforts.get_mut(number)
            && !effort.paid
            && at.saturating_sub(effort.began_at.max(effort.answered_at.iter().copied().max().unwrap_or(0))) <= SOON
        {
            let is_new = !effort.record_types.contains(&question.record_type);
            if is_new || effort.answered_at.is_empty() {
                if is_new {
                    effort.record_types.push(Rc::clone(&question.record_type));
                }
                return *number;
            }
        }
        let effort = self.add_effort(Effort {
            key: key.clone(),
            began_at: at,
            record_types: vec![Rc::clone(&question.record_type)],
            answered_at: Vec::new(),
            paid: false,
        });
        self.newest_effort.insert(key, effort);
        effort
    }

    /// Keeps an effort, and returns its number.
    fn add_effort(&mut self, effort: Effort) -> u64 {
        while self.efforts.len() >= MAX_EFFORTS {
            let Some((number, oldest)) = self.efforts.pop_front() else { break };
            if self.newest_effort.get(&oldest.key) == Some(&number) {
                self.newest_effort.remove(&oldest.key);
            }
        }
        self.next += 1;
        self.efforts.insert(self.next, effort);
        self.next
    }

    fn answer(&mut self, message: &DnsMessage, answer: &DnsAnswer) -> Option<Finished> {
        let sent = Sent {
            netns: message.netns,
            local_port: message.local_port,
            server: message.server,
            tcp: message.tcp,
            id: message.id,
            name: message.name.as_str().into(),
            record_type: message.record_type.as_str().into(),
        };
        let Some(number) = self.by_sent.get(&sent).copied() else {
            self.unasked = self.unasked.saturating_add(1);
            return None;
        };
        let waiting = self.waiting.get_mut(&number)?;
        if answer.truncated && !message.tcp {
            waiting.truncated = Some((message.at, answer.clone()));
            return None;
        }
        self.finish(number, Some((message.at, answer.clone())))
    }

    /// Takes a lookup off the list, and remembers what it gave.
    fn finish(&mut self, number: u64, answer: Option<(u64, DnsAnswer)>) -> Option<Finished> {
        let waiting = self.waiting.remove(&number)?;
        for sent in &waiting.sent {
            if self.by_sent.get(sent) == Some(&number) {
                self.by_sent.remove(sent);
            }
        }
        if self.by_question.get(&waiting.question) == Some(&number) {
            self.by_question.remove(&waiting.question);
        }
        // Nobody asked again: the resolver was content with what there was.
        let answer = answer.or(waiting.truncated);
        if let Some((at, answer)) = &answer {
            if cannot_help(answer) {
                while self.refused.len() >= MAX_REFUSED {
                    self.refused.pop_front();
                }
                self.refused.insert(waiting.question.clone(), (*at, waiting.retries));
            } else {
                self.learn(&waiting.question, waiting.effort, *at, answer);
            }
        }
        Some(Finished { query: waiting.query, answer, retries: waiting.retries })
    }

    /// Remembers which name the addresses go by.
    fn learn(&mut self, question: &Question, effort: u64, at: u64, answer: &DnsAnswer) {
        if let Some(effort) = self.efforts.get_mut(&effort) {
            effort.answered_at.push(at);
        }
        let ttl = (Nanos::from(answer.ttl) * SECOND).clamp(SOON, LONGEST_TTL);
        for address in &answer.addresses {
            let name = Rc::clone(&question.name);
            let answer = Answer { name, at, good_until: at.saturating_add(ttl), effort };
            self.remember((question.process, *address), answer);
        }
    }

    fn remember(&mut self, key: (Process, IpAddr), answer: Answer) {
        while self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&key) {
            self.addresses.pop_front();
        }
        let answers = match self.addresses.to_back(&key) {
            Some(answers) => answers,
            None => self.addresses.entry(key).or_insert_with(Vec::new),
        };
        if answers.len() >= MAX_ANSWERS {
            answers.remove(0);
        }
        answers.push(answer);
    }
}

/// Whether another server may know better.
fn cannot_help(answer: &DnsAnswer) -> bool {
    matches!(answer.rcode.as_str(), "SERVFAIL" | "REFUSED" | "NOTIMP")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn query(at: u64, name: &str, record_type: &str) -> DnsMessage {
        DnsMessage {
            at,
            pid: 10,
            tid: 10,
            process_started_at: 1,
            comm: "app".into(),
            netns: 1,
            local_port: 4000,
            server: SocketAddr::from(([10, 0, 0, 53], 53)),
            tcp: false,
            id: 7,
            name: name.into(),
            record_type: record_type.into(),
            answer: None,
        }
    }

    fn answered(query: DnsMessage, at: u64, addresses: &[&str]) -> DnsMessage {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let answer = DnsAnswer { rcode: "NOERROR".into(), truncated: false, addresses, ttl: 60 };
        DnsMessage { at, answer: Some(answer), ..query }
    }

    fn failed(query: DnsMessage, at: u64, rcode: &str) -> DnsMessage {
        let answer = DnsAnswer { rcode: rcode.into(), truncated: false, addresses: Vec::new(), ttl: 0 };
        DnsMessage { at, answer: Some(answer), ..query }
    }

    fn connect(lookups: &mut Lookups, at: u64, address: &str) -> Option<(String, u64)> {
        let named = lookups.connected((10, 1), address.parse().expect("an address"), at, true)?;
        Some((named.name.to_string(), named.cost))
    }

    fn looked_up(began: u64, took: u64) -> Lookups {
        let mut lookups = Lookups::default();
        assert_eq!(lookups.message(&query(began, "a", "A")), None);
        assert!(lookups.message(&answered(query(began, "a", "A"), began + took, &["10.0.0.1"])).is_some());
        lookups
    }

    #[test]
    fn the_first_connection_pays_and_later_ones_go_by_the_same_answer_for_nothing() {
        let mut lookups = looked_up(SECOND, 7 * MS);
        assert_eq!(connect(&mut lookups, SECOND + 8 * MS, "10.0.0.1"), Some(("a".into(), 7 * MS)));
        assert_eq!(connect(&mut lookups, 40 * SECOND, "10.0.0.1"), Some(("a".into(), 0)));
    }

    #[test]
    fn a_connect_that_found_no_route_leaves_the_cost_to_the_next() {
        let mut lookups = looked_up(SECOND, 7 * MS);
        let failed = lookups.connected((10, 1), IpAddr::from([10, 0, 0, 1]), SECOND + 8 * MS, false);
        assert_eq!(failed.map(|failed| failed.cost), Some(0));
        assert_eq!(connect(&mut lookups, SECOND + 9 * MS, "10.0.0.1"), Some(("a".into(), 7 * MS)));
    }

    #[test]
    fn what_nobody_looked_up_or_another_process_did_has_no_name() {
        let mut lookups = looked_up(SECOND, MS);
        assert_eq!(connect(&mut lookups, 2 * SECOND, "10.0.0.2"), None);
        assert_eq!(lookups.connected((11, 1), IpAddr::from([10, 0, 0, 1]), 2 * SECOND, true), None);
        assert_eq!(connect(&mut lookups, SECOND, "10.0.0.1"), None, "the answer came after the connect");
        assert_eq!(connect(&mut lookups, 62 * SECOND, "10.0.0.1"), None, "it has expired");
    }

    #[test]
    fn a_and_aaaa_asked_together_cost_until_the_later_answer() {
        let mut lookups = Lookups::default();
        let (v4, v6) = (query(SECOND, "a", "A"), DnsMessage { id: 8, ..query(SECOND + MS, "a", "AAAA") });
        lookups.message(&v4);
        lookups.message(&v6);
        lookups.message(&answered(v4, SECOND + 5 * MS, &["10.0.0.1"]));
        lookups.message(&answered(v6, SECOND + 500 * MS, &[]));
        assert_eq!(connect(&mut lookups, SECOND + 501 * MS, "10.0.0.1"), Some(("a".into(), 500 * MS)));
    }

    #[test]
    fn a_connect_that_does_not_wait_for_the_other_answer_pays_until_the_one_it_had() {
        let mut lookups = Lookups::default();
        let (v4, v6) = (query(SECOND, "a", "A"), DnsMessage { id: 8, ..query(SECOND, "a", "AAAA") });
        lookups.message(&v4);
        lookups.message(&v6);
        lookups.message(&answered(v4, SECOND + 5 * MS, &["10.0.0.1"]));
        lookups.message(&answered(v6, SECOND + 500 * MS, &[]));
        assert_eq!(connect(&mut lookups, SECOND + 6 * MS, "10.0.0.1"), Some(("a".into(), 5 * MS)));
    }

    #[test]
    fn asked_again_before_the_answer_is_a_retry_and_counts_from_the_first() {
        let mut lookups = Lookups::default();
        lookups.message(&query(SECOND, "a", "A"));
        let again = DnsMessage { server: SocketAddr::from(([10, 0, 0, 54], 53)), ..query(6 * SECOND, "a", "A") };
        lookups.message(&again);
        let finished = lookups.message(&answered(again, 6 * SECOND + MS, &["10.0.0.1"])).expect("answered");
        assert_eq!((finished.retries, finished.query.at), (1, SECOND));
        assert_eq!(connect(&mut lookups, 7 * SECOND, "10.0.0.1"), Some(("a".into(), 5 * SECOND + MS)));
    }

    #[test]
    fn a_late_answer_to_the_first_sending_ends_the_lookup_too() {
        let mut lookups = Lookups::default();
        let first = query(SECOND, "a", "A");
        lookups.message(&first);
        lookups.message(&DnsMessage { id: 9, ..query(6 * SECOND, "a", "A") });
        let finished = lookups.message(&answered(first, 7 * SECOND, &["10.0.0.1"])).expect("answered");
        assert_eq!(finished.retries, 1);
        assert_eq!(lookups.next_unanswered(), None);
    }

    #[test]
    fn a_retry_by_another_thread_a_little_before_the_second_is_up_is_one() {
        let mut lookups = Lookups::default();
        lookups.message(&query(SECOND, "a", "A"));
        let again = DnsMessage { tid: 11, local_port: 5, id: 9, ..query(2 * SECOND - 8 * MS, "a", "A") };
        lookups.message(&again);
        let finished = lookups.message(&answered(again, 2 * SECOND, &["10.0.0.1"])).expect("answered");
        assert_eq!((finished.retries, finished.query.at), (1, SECOND));
        assert_eq!(lookups.next_unanswered(), None);
    }

    #[test]
    fn threads_that_ask_the_same_at_once_do_not_retry() {
        let mut lookups = Lookups::default();
        let (one, other) =
            (query(SECOND, "a", "A"), DnsMessage { tid: 11, local_port: 5, ..query(SECOND + MS, "a", "A") });
        lookups.message(&one);
        lookups.message(&other);
        let finished = [one, other].map(|query| lookups.message(&answered(query, 2 * SECOND, &["10.0.0.1"])));
        assert_eq!(finished.map(|lookup| lookup.map(|lookup| lookup.retries)), [Some(0), Some(0)]);
    }

    #[test]
    fn a_question_that_goes_on_over_tcp_on_another_thread_is_the_same_lookup() {
        let mut lookups = Lookups::default();
        let udp = query(SECOND, "a", "A");
        let mut cut = answered(udp.clone(), SECOND + MS, &["10.0.0.1"]);
        cut.answer.as_mut().expect("an answer").truncated = true;
        let tcp = DnsMessage { tid: 11, local_port: 5, tcp: true, ..query(SECOND + 2 * MS, "a", "A") };
        for message in [&udp, &cut, &tcp] {
            assert_eq!(lookups.message(message), None);
        }
        let whole = answered(tcp, SECOND + 3 * MS, &["10.0.0.1", "10.0.0.2"]);
        let finished = lookups.message(&whole).expect("answered");
        assert_eq!((finished.retries, finished.query.at, finished.query.tcp), (0, SECOND, true));
        assert_eq!(lookups.next_unanswered(), None, "nothing waits for the rest");
        assert_eq!(connect(&mut lookups, SECOND + 4 * MS, "10.0.0.2"), Some(("a".into(), 3 * MS)));
    }

    #[test]
    fn a_server_that_cannot_help_is_reported_and_the_question_to_the_next_is_a_retry() {
        let mut lookups = Lookups::default();
        lookups.message(&query(SECOND, "a", "A"));
        let refused = lookups.message(&failed(query(SECOND, "a", "A"), SECOND + MS, "SERVFAIL")).expect("answered");
        assert_eq!(refused.answer.map(|(_, answer)| answer.rcode).as_deref(), Some("SERVFAIL"));
        let next = DnsMessage { server: SocketAddr::from(([10, 0, 0, 54], 53)), ..query(SECOND + 2 * MS, "a", "A") };
        lookups.message(&next);
        assert_eq!(
            lookups.message(&answered(next, SECOND + 4 * MS, &["10.0.0.1"])).map(|lookup| lookup.retries),
            Some(1)
        );
        assert_eq!(connect(&mut lookups, 2 * SECOND, "10.0.0.1"), Some(("a".into(), 4 * MS)));
    }

    #[test]
    fn an_answer_cut_short_waits_for_the_one_over_tcp() {
        let mut lookups = Lookups::default();
        lookups.message(&query(SECOND, "a", "A"));
        let mut cut = answered(query(SECOND, "a", "A"), SECOND + MS, &[]);
        cut.answer.as_mut().expect("an answer").truncated = true;
        assert_eq!(lookups.message(&cut), None);
        let over_tcp = DnsMessage { tcp: true, local_port: 9, ..query(SECOND + 2 * MS, "a", "A") };
        lookups.message(&over_tcp);
        let finished = lookups.message(&answered(over_tcp, SECOND + 5 * MS, &["10.0.0.1"])).expect("answered");
        assert_eq!((finished.retries, finished.query.tcp), (0, true));
        assert_eq!(connect(&mut lookups, 2 * SECOND, "10.0.0.1"), Some(("a".into(), 5 * MS)));
    }

    #[test]
    fn a_lost_answer_is_given_up_after_the_last_time_it_was_asked_for() {
        let mut lookups = Lookups::default();
        lookups.message(&query(SECOND, "a", "A"));
        lookups.message(&query(20 * SECOND, "a", "A"));
        assert_eq!(lookups.expired(49 * SECOND), None);
        let lost = lookups.expired(50 * SECOND).expect("lost");
        assert_eq!((lost.answer, lost.retries), (None, 1));
    }

    #[test]
    fn an_answer_with_the_wrong_number_server_port_or_name_is_not_taken() {
        let asked = query(SECOND, "a", "A");
        let wrong = [
            DnsMessage { id: 8, ..asked.clone() },
            DnsMessage { local_port: 8, ..asked.clone() },
            DnsMessage { server: SocketAddr::from(([10, 0, 0, 99], 53)), ..asked.clone() },
            DnsMessage { name: "b".into(), ..asked.clone() },
            DnsMessage { record_type: "AAAA".into(), ..asked.clone() },
        ];
        let mut lookups = Lookups::default();
        lookups.message(&asked);
        for message in wrong {
            assert_eq!(lookups.message(&answered(message, SECOND + MS, &["10.0.0.1"])), None);
        }
        assert_eq!(lookups.take_unasked(), 5);
        assert_eq!(connect(&mut lookups, 2 * SECOND, "10.0.0.1"), None);
    }

    fn call(began_at: u64, at: u64, name: &str, addresses: &[&str]) -> Resolved {
        Resolved {
            began_at,
            at,
            pid: 10,
            tid: 10,
            process_started_at: 1,
            comm: "app".into(),
            name: name.into(),
            record_type: None,
            outcome: "NOERROR".into(),
            addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
        }
    }

    #[test]
    fn a_call_that_asked_no_server_is_a_lookup_that_the_first_connection_pays() {
        let mut lookups = Lookups::default();
        assert!(lookups.resolved(&call(SECOND, SECOND + 3 * MS, "a", &["10.0.0.1", "::1"])));
        assert_eq!(connect(&mut lookups, SECOND + 2 * MS, "10.0.0.1"), None, "it has not returned");
        assert_eq!(connect(&mut lookups, SECOND + 4 * MS, "::1"), Some(("a".into(), 3 * MS)));
        assert_eq!(connect(&mut lookups, SECOND + 5 * MS, "10.0.0.1"), Some(("a".into(), 0)), "the same call");
        assert_eq!(connect(&mut lookups, 31 * SECOND, "10.0.0.1"), Some(("a".into(), 0)), "kept by the application");
        assert_eq!(connect(&mut lookups, 32 * SECOND, "10.0.0.1"), None);
    }

    #[test]
    fn a_call_whose_thread_asked_a_server_is_paid_once_and_goes_by_the_servers_name() {
        let mut lookups = Lookups::default();
        // The first name of the search list does not exist.
        lookups.message(&query(SECOND, "a.one.test", "A"));
        lookups.message(&failed(query(SECOND, "a.one.test", "A"), SECOND + 20 * MS, "NXDOMAIN"));
        lookups.message(&query(SECOND + 21 * MS, "a.two.test", "A"));
        lookups.message(&answered(query(SECOND + 21 * MS, "a.two.test", "A"), SECOND + 40 * MS, &["10.0.0.1"]));
        let called = call(SECOND - MS, SECOND + 41 * MS, "a", &["10.0.0.1"]);
        assert!(!lookups.resolved(&called), "the questions are reported");
        assert_eq!(connect(&mut lookups, SECOND + 42 * MS, "10.0.0.1"), Some(("a.two.test".into(), 42 * MS)));
        assert_eq!(
            connect(&mut lookups, SECOND + 43 * MS, "10.0.0.1"),
            Some(("a.two.test".into(), 0)),
            "nobody pays again"
        );
        assert_eq!(connect(&mut lookups, 50 * SECOND, "10.0.0.1"), Some(("a.two.test".into(), 0)), "its time to live");
    }

    #[test]
    fn a_failed_call_is_a_lookup_only_if_no_server_was_asked() {
        let mut lookups = Lookups::default();
        assert!(lookups.resolved(&call(SECOND, 2 * SECOND, "gone", &[])));
        lookups.message(&query(3 * SECOND, "gone", "A"));
        assert!(!lookups.resolved(&call(3 * SECOND - MS, 4 * SECOND, "gone", &[])));
        assert!(lookups.efforts.len() == 1, "a call without an answer is nothing to pay for");
    }

    #[test]
    fn what_another_thread_or_an_earlier_call_asked_is_not_the_calls() {
        let mut lookups = looked_up(SECOND, 7 * MS);
        let other = DnsMessage { tid: 11, ..query(2 * SECOND, "b", "A") };
        lookups.message(&other);
        lookups.message(&answered(other, 2 * SECOND + MS, &["10.0.0.2"]));
        assert!(lookups.resolved(&call(2 * SECOND - MS, 2 * SECOND + 2 * MS, "c", &["10.0.0.1", "10.0.0.2"])));
        assert_eq!(connect(&mut lookups, 3 * SECOND, "10.0.0.2"), Some(("c".into(), 3 * MS)), "the newest");
    }

    #[test]
    fn memory_is_bounded() {
        let mut lookups = Lookups::default();
        let mut pushed_out = 0;
        for number in 0..20_000u32 {
            let name = format!("n{number}");
            let asked = DnsMessage { id: number as u16, tid: number, ..query(SECOND + u64::from(number), &name, "A") };
            pushed_out += u64::from(lookups.message(&asked).is_some());
            if number % 2 == 0 {
                let address = std::net::Ipv4Addr::from(number).to_string();
                lookups.message(&answered(asked, 2 * SECOND, &[&address]));
                let thread = u64::from(number);
                lookups.resolved(&Resolved {
                    tid: number,
                    ..call(SECOND + thread, 2 * SECOND, &name, &[&address, "::1"])
                });
            }
        }
        assert!(lookups.waiting.len() <= MAX_WAITING && pushed_out > 0);
        assert!(lookups.by_sent.len() <= MAX_WAITING * MAX_SENT && lookups.by_question.len() <= MAX_WAITING);
        assert!(lookups.efforts.len() <= MAX_EFFORTS && lookups.newest_effort.len() <= MAX_EFFORTS);
        assert!(lookups.addresses.len() <= MAX_ADDRESSES && lookups.askers.len() <= MAX_ASKERS);
        assert!(lookups.addresses.values().all(|answers| answers.len() <= MAX_ANSWERS));
    }

    proptest! {
        #[test]
        fn a_connection_never_goes_by_a_name_that_did_not_have_its_address(
            steps in prop::collection::vec((0u8..5, 0u16..3, 0u8..3, 0u8..3, any::<bool>()), 0..60),
        ) {
            // Name n only ever has address 10.0.0.n.
            let mut lookups = Lookups::default();
            for (number, (what, id, name, address, is_v6)) in steps.into_iter().enumerate() {
                let at = SECOND + number as u64 * 50 * MS;
                let record_type = if is_v6 { "AAAA" } else { "A" };
                let asked = DnsMessage { id, ..query(at, &name.to_string(), record_type) };
                match what {
                    0 => drop(lookups.message(&asked)),
                    1 => drop(lookups.message(&answered(asked, at, &[&format!("10.0.0.{name}")]))),
                    2 => drop(lookups.message(&failed(asked, at, "SERVFAIL"))),
                    3 => {
                        let began = at - u64::from(id) * 40 * MS;
                        lookups.resolved(&call(began, at, &name.to_string(), &[&format!("10.0.0.{name}")]));
                    }
                    _ => {
                        if let Some((found, cost)) = connect(&mut lookups, at, &format!("10.0.0.{address}")) {
                            prop_assert_eq!(found, address.to_string());
                            prop_assert!(cost <= at);
                        }
                    }
                }
            }
        }
    }
}
