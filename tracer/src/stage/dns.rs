//! DNS messages to facts: the question, and what was answered. The bytes go no further.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use foldhash::fast::RandomState;
use hashlink::LinkedHashMap;
use hickory_proto::{
    op::{Header, MessageType, OpCode, Query},
    rr::{DNSClass, Name, RData, Record, RecordType},
    serialize::binary::{BinDecodable as _, BinDecoder},
};
use serde::{Deserialize, Serialize};
use tracer_ebpf::dns::{DnsRecord, MESSAGE_LEN, flag};

/// The most TCP streams that are followed at once; beyond, the one unused for longest is given up.
const MAX_STREAMS: usize = 256;
/// Bytes of a message over TCP that are kept to be parsed.
const MAX_KEPT: usize = 4096;
/// A stream that rested in the middle of a message for so long is another one on the same port.
const STREAM_AGE_NS: u64 = 30_000_000_000;
/// The most records of an answer that are looked at, and the most addresses kept.
const MAX_RECORDS: usize = 256;
const MAX_ADDRESSES: usize = 64;

/// A DNS message as a traced process sent or received it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsMessage {
    /// When it passed, boot clock.
    pub at: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Start of the process on the boot clock; 0 if unknown.
    pub process_started_at: u64,
    /// Name of the process.
    pub comm: String,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local port.
    pub local_port: u16,
    /// The server.
    pub server: SocketAddr,
    /// Over TCP.
    pub tcp: bool,
    /// The message's number: an answer has its query's.
    pub id: u16,
    /// The name in question, in lower case, without the dot at the end.
    pub name: String,
    /// The type in question, such as `A`.
    pub record_type: String,
    /// What was answered; `None` for a query.
    pub answer: Option<DnsAnswer>,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// Such as `NOERROR`.
    pub rcode: String,
    /// The answer did not fit a datagram: the resolver is to ask again over TCP.
    pub truncated: bool,
    /// The addresses that the name, or what it is an alias of, has.
    pub addresses: Vec<IpAddr>,
    /// For how many seconds they hold; of several, the shortest.
    pub ttl: u32,
}

/// Why a message tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsError {
    /// It is not a DNS message, or contradicts itself.
    Malformed,
    /// What was copied of it ends before its question does.
    Cut,
    /// So much of a TCP stream was not copied that it is not known where its next message begins.
    StreamLost,
}

impl DnsError {
    /// The stable word for this cause of loss.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Malformed => "dns_malformed",
            Self::Cut => "dns_cut",
            Self::StreamLost => "dns_stream_lost",
        }
    }
}

/// Finds messages in what passed: a datagram is one, a TCP stream holds them one after the other.
#[derive(Default)]
pub struct Messages {
    streams: LinkedHashMap<Key, Stream, RandomState>,
}

/// One direction of a TCP connection to a server.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    netns: u32,
    local_port: u16,
    server: SocketAddr,
    sent: bool,
}

/// The message of a stream that has begun.
#[derive(Default)]
struct Stream {
    last_at: u64,
    /// Its first bytes, with the length that stands before it.
    kept: Vec<u8>,
    /// Its bytes that have passed, kept or not.
    passed: usize,
    /// Where messages begin is not known any more.
    lost: bool,
}

/// A message, and whether bytes of it are missing at its end.
type Whole = (Vec<u8>, bool);

impl Messages {
    /// Takes in what passed; returns each message that is complete by it, or what is wrong with it. What a process says that
    /// is a server itself (answers sent, queries received) is left out.
    pub fn take(&mut self, record: &DnsRecord) -> Vec<Result<DnsMessage, DnsError>> {
        let bytes = &record.bytes[..(record.length as usize).min(MESSAGE_LEN)];
        let left_out = record.left_out as usize;
        if record.flags & flag::TCP == 0 {
            return message(record, bytes, left_out > 0).transpose().into_iter().collect();
        }
        let mut whole = Vec::new();
        let in_step = self.stream(record).take(bytes, left_out, &mut whole);
        let messages = whole.iter().filter_map(|(bytes, cut)| message(record, bytes, *cut).transpose());
        messages.chain(in_step.err().map(Err)).collect()
    }

    fn stream(&mut self, record: &DnsRecord) -> &mut Stream {
        let key = Key {
            netns: record.netns,
            local_port: record.local_port,
            server: server(record),
            sent: record.flags & flag::SENT != 0,
        };
        while self.streams.len() >= MAX_STREAMS && !self.streams.contains_key(&key) {
            self.streams.pop_front();
        }
        let stream = self.streams.entry(key).or_insert_with(Stream::default);
        if record.at.saturating_sub(stream.last_at) > STREAM_AGE_NS {
            *stream = Stream::default();
        }
        stream.last_at = record.at;
        stream
    }
}

impl Stream {
    /// Takes in bytes, and that more passed of which nothing is known.
    fn take(&mut self, mut bytes: &[u8], left_out: usize, whole: &mut Vec<Whole>) -> Result<(), DnsError> {
        if self.lost {
            return Ok(());
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.wanted()));
            // What follows a hole cannot be parsed.
            let room = if self.kept.len() == self.passed { MAX_KEPT.saturating_sub(self.kept.len()) } else { 0 };
            self.kept.extend_from_slice(&now[..now.len().min(room)]);
            self.passed += now.len();
            bytes = later;
            self.hand_out(whole);
        }
        let hole = left_out.min(if self.passed < 2 { 0 } else { self.wanted() });
        self.passed += hole;
        if hole > 0 {
            self.hand_out(whole);
        }
        self.lost = hole < left_out;
        if self.lost { Err(DnsError::StreamLost) } else { Ok(()) }
    }

    /// Bytes until the length is known, then until the message is complete.
    fn wanted(&self) -> usize {
        match self.kept.first_chunk() {
            Some(length) => 2 + usize::from(u16::from_be_bytes(*length)) - self.passed,
            None => 2 - self.passed,
        }
    }

    /// Hands out the message if it is complete.
    fn hand_out(&mut self, whole: &mut Vec<Whole>) {
        if self.kept.len() >= 2 && self.wanted() == 0 {
            let cut = self.kept.len() < self.passed;
            whole.push((self.kept.split_off(2), cut));
            self.kept.clear();
            self.passed = 0;
        }
    }
}

fn server(record: &DnsRecord) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from_octets(record.server).to_canonical(), record.server_port)
}

/// What a message says, if it is a query sent or an answer received.
fn message(record: &DnsRecord, bytes: &[u8], cut: bool) -> Result<Option<DnsMessage>, DnsError> {
    let bad = if cut { DnsError::Cut } else { DnsError::Malformed };
    let mut decoder = BinDecoder::new(bytes);
    let header = Header::read(&mut decoder).map_err(|_| bad)?;
    let is_query = header.metadata.message_type == MessageType::Query;
    if is_query != (record.flags & flag::SENT != 0) || header.metadata.op_code != OpCode::Query {
        return Ok(None);
    }
    // Nobody asks more than one question at once; a server that cannot read it may answer without.
    if header.counts.queries != 1 {
        return if header.counts.queries == 0 && !is_query { Ok(None) } else { Err(DnsError::Malformed) };
    }
    let question = Query::read(&mut decoder).map_err(|_| bad)?;
    let answer = if is_query { None } else { Some(answer(&header, &question, &mut decoder, cut)?) };
    let comm_end = record.comm.iter().position(|byte| *byte == 0).unwrap_or(record.comm.len());
    Ok(Some(DnsMessage {
        at: record.at,
        pid: record.tgid,
        tid: record.tid,
        process_started_at: record.process_started_at,
        comm: String::from_utf8_lossy(&record.comm[..comm_end]).into_owned(),
        netns: record.netns,
        local_port: record.local_port,
        server: server(record),
        tcp: record.flags & flag::TCP != 0,
        id: header.metadata.id,
        name: text(question.name()),
        record_type: question.query_type().to_string(),
        answer,
    }))
}

fn answer(header: &Header, question: &Query, decoder: &mut BinDecoder<'_>, cut: bool) -> Result<DnsAnswer, DnsError> {
    let truncated = header.metadata.truncation;
    let mut records = Vec::new();
    let mut whole = true;
    for _ in 0..usize::from(header.counts.answers).min(MAX_RECORDS) {
        match Record::read(decoder) {
            Ok(record) => records.push(record),
            // The records before the cut are good.
            Err(_) if cut || truncated => {
                whole = false;
                break;
            }
            Err(_) => return Err(DnsError::Malformed),
        }
    }
    let (addresses, ttl) = addresses(question, &records);
    let high = if whole { rcode_high(header, decoder) } else { 0 };
    let rcode = u16::from(high) << 4 | u16::from(header.metadata.response_code.low());
    Ok(DnsAnswer { rcode: rcode_word(rcode), truncated, addresses, ttl })
}

/// The upper eight bits of an extended code: they stand where the OPT record behind the answers has its time to live. 0 where
/// there is none, or what is there cannot be read: nothing else is taken from behind the answers, so it spoils none.
fn rcode_high(header: &Header, decoder: &mut BinDecoder<'_>) -> u8 {
    let counts = &header.counts;
    let left = MAX_RECORDS.saturating_sub(counts.answers.into());
    let behind = usize::from(counts.authorities) + usize::from(counts.additionals);
    let mut records = (0..behind.min(left)).map_while(|_| Record::<RData>::read(decoder).ok());
    let opt = records.find(|record| record.record_type() == RecordType::OPT);
    opt.map_or(0, |opt| opt.ttl.to_be_bytes()[0])
}

/// The addresses of the name in question: its own, or those of what it is an alias of. A record of any other name is no
/// answer to the question, whoever sent it.
fn addresses(question: &Query, records: &[Record]) -> (Vec<IpAddr>, u32) {
    let mut names: Vec<&Name> = vec![question.name()];
    let (mut addresses, mut ttl) = (Vec::new(), u32::MAX);
    // Aliases come before what they stand for, so that one look is enough.
    for record in records.iter().filter(|record| record.dns_class == DNSClass::IN) {
        if !names.contains(&&record.name) {
            continue;
        }
        let address = match &record.data {
            RData::CNAME(alias) => {
                names.push(&alias.0);
                ttl = ttl.min(record.ttl);
                continue;
            }
            RData::A(address) if question.query_type() == RecordType::A => IpAddr::V4(address.0),
            RData::AAAA(address) if question.query_type() == RecordType::AAAA => IpAddr::V6(address.0),
            _ => continue,
        };
        ttl = ttl.min(record.ttl);
        if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let ttl = if addresses.is_empty() { 0 } else { ttl };
    (addresses, ttl)
}

/// In lower case, because resolvers mix the case at random, and without the dot at the end. Bytes that are not of a host
/// name are escaped, as zone files do.
fn text(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    match text.strip_suffix('.') {
        Some(stripped) if !stripped.is_empty() => stripped.to_owned(),
        _ => text,
    }
}

/// The word of RFC 1035, 2136, 6891 and the IANA registry for an answer's code.
fn rcode_word(code: u16) -> String {
    const WORDS: [&str; 12] = [
        "NOERROR",
        "FORMERR",
        "SERVFAIL",
        "NXDOMAIN",
        "NOTIMP",
        "REFUSED",
        "YXDOMAIN",
        "YXRRSET",
        "NXRRSET",
        "NOTAUTH",
        "NOTZONE",
        "DSOTYPENI",
    ];
    // From this one on the codes need the OPT record.
    const FIRST_EXTENDED: usize = 16;
    const EXTENDED: [&str; 8] =
        ["BADVERS", "BADKEY", "BADTIME", "BADMODE", "BADNAME", "BADALG", "BADTRUNC", "BADCOOKIE"];
    let code = usize::from(code);
    let word = WORDS.get(code).or_else(|| EXTENDED.get(code.checked_sub(FIRST_EXTENDED)?));
    word.map_or_else(|| format!("RCODE{code}"), |word| (*word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Edns, Message, ResponseCode};
    use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS};
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn query(of: &str, kind: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name(of), kind));
        message
    }

    fn response(of: &str, kind: RecordType, records: &[(&str, RData)]) -> Message {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name(of), kind));
        for (owner, data) in records {
            message.add_answer(Record::from_rdata(name(owner), 60, data.clone()));
        }
        message
    }

    fn a(last: u8) -> RData {
        RData::A(A::new(192, 0, 2, last))
    }

    fn record(bytes: &[u8], flags: u32) -> DnsRecord {
        let mut record = DnsRecord {
            flags,
            length: bytes.len().min(MESSAGE_LEN) as u32,
            left_out: bytes.len().saturating_sub(MESSAGE_LEN) as u32,
            at: 5,
            tgid: 12,
            local_port: 4000,
            server_port: 53,
            ..DnsRecord::new_zeroed()
        };
        let length = bytes.len().min(MESSAGE_LEN);
        record.bytes[..length].copy_from_slice(&bytes[..length]);
        record
    }

    fn take(bytes: &[u8], flags: u32) -> Vec<Result<DnsMessage, DnsError>> {
        Messages::default().take(&record(bytes, flags))
    }

    fn received(message: &Message) -> DnsAnswer {
        answered(&take(&message.to_vec().expect("encodes"), 0))
    }

    fn answered(messages: &[Result<DnsMessage, DnsError>]) -> DnsAnswer {
        let [Ok(DnsMessage { answer: Some(answer), .. })] = messages else { panic!("{messages:?}") };
        answer.clone()
    }

    fn ips(answer: &DnsAnswer) -> Vec<String> {
        answer.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_query_tells_name_and_type_in_one_spelling() {
        let messages = take(&query("wWw.ExAmple.org.", RecordType::AAAA).to_vec().expect("encodes"), flag::SENT);
        let [Ok(message)] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!((message.name.as_str(), message.record_type.as_str(), message.id), ("www.example.org", "AAAA", 7));
        assert_eq!(message.answer, None);
    }

    #[test]
    fn an_answer_follows_aliases_and_takes_the_shortest_time_to_live() {
        let alias = |to| RData::CNAME(CNAME(name(to)));
        let records = [("www.a.", alias("b.c.")), ("b.c.", alias("d.")), ("d.", a(1)), ("d.", a(2))];
        let answer = received(&response("WWW.a.", RecordType::A, &records));
        assert_eq!((ips(&answer), answer.ttl), (vec!["192.0.2.1".to_owned(), "192.0.2.2".to_owned()], 60));
    }

    #[test]
    fn what_was_not_asked_for_is_no_answer() {
        let v6 = RData::AAAA(AAAA::new(1, 2, 3, 4, 5, 6, 7, 8));
        let records = [("other.", a(1)), ("www.a.", v6), ("www.a.", a(3))];
        assert_eq!(ips(&received(&response("www.a.", RecordType::A, &records))), ["192.0.2.3"]);
    }

    #[test]
    fn a_failure_has_its_word() {
        let mut message = response("gone.", RecordType::A, &[]);
        message.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(received(&message).rcode, "NXDOMAIN");
    }

    /// What a server answers that speaks EDNS, with this code.
    fn extended(code: u16) -> Message {
        let mut message = response("www.a.", RecordType::A, &[("www.a.", a(1))]);
        message.add_authority(Record::from_rdata(name("a."), 60, RData::NS(NS(name("ns.a.")))));
        message.add_additional(Record::from_rdata(name("ns.a."), 60, a(9)));
        message.metadata.response_code = code.into();
        message.set_edns(Edns::new());
        message
    }

    #[test]
    fn an_extended_code_is_told_whole() {
        let words = [
            (0, "NOERROR"),
            (3, "NXDOMAIN"),
            (11, "DSOTYPENI"),
            (12, "RCODE12"),
            (16, "BADVERS"),
            (23, "BADCOOKIE"),
            (24, "RCODE24"),
            (3841, "RCODE3841"),
            (4095, "RCODE4095"),
        ];
        for (code, word) in words {
            let answer = received(&extended(code));
            assert_eq!((answer.rcode.as_str(), ips(&answer)), (word, vec!["192.0.2.1".to_owned()]), "{code}");
        }
    }

    #[test]
    fn what_is_wrong_behind_the_answers_spoils_none() {
        let whole = extended(16).to_vec().expect("encodes");
        let answers = response("www.a.", RecordType::A, &[("www.a.", a(1))]).to_vec().expect("encodes").len();
        for length in answers..whole.len() {
            let answer = answered(&take(&whole[..length], 0));
            assert_eq!((answer.rcode.as_str(), answer.addresses.len()), ("NOERROR", 1), "{length} of {}", whole.len());
        }
        assert_eq!(answered(&take(&whole, 0)).rcode, "BADVERS");
    }

    #[test]
    fn a_process_that_is_a_server_says_nothing_of_its_own_lookups() {
        assert_eq!(take(&query("a.", RecordType::A).to_vec().expect("encodes"), 0), []);
        assert_eq!(take(&response("a.", RecordType::A, &[("a.", a(1))]).to_vec().expect("encodes"), flag::SENT), []);
    }

    #[test]
    fn a_large_answer_gives_the_addresses_before_the_cut() {
        let records: Vec<_> = (0..120).map(|last| ("www.example.org.", a(last))).collect();
        let answer = received(&response("www.example.org.", RecordType::A, &records));
        assert_eq!(answer.addresses.len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_name_that_points_at_itself_is_malformed() {
        let mut bytes = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        bytes.extend([0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(take(&bytes, 0), [Err(DnsError::Malformed)]);
    }

    fn framed(messages: &[Message]) -> Vec<u8> {
        let framed = messages.iter().flat_map(|message| {
            let bytes = message.to_vec().expect("encodes");
            [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()
        });
        framed.collect()
    }

    #[test]
    fn an_answer_over_tcp_that_is_larger_than_a_copy_is_known_by_its_beginning_and_the_next_is_whole() {
        let records: Vec<_> = (0..120).map(|last| ("www.example.org.", a(last))).collect();
        let large = response("www.example.org.", RecordType::A, &records);
        let mut messages = Messages::default();
        let mut first = messages.take(&record(&framed(&[large]), flag::TCP));
        let Some(Ok(DnsMessage { answer: Some(answer), .. })) = first.pop() else { panic!("{first:?}") };
        assert_eq!(answer.addresses.first().map(ToString::to_string).as_deref(), Some("192.0.2.0"));
        let next = messages.take(&record(&framed(&[response("b.", RecordType::A, &[("b.", a(9))])]), flag::TCP));
        assert!(matches!(next.as_slice(), [Ok(message)] if message.name == "b"), "{next:?}");
    }

    #[test]
    fn a_stream_of_which_too_much_is_missing_is_given_up_and_said_once() {
        let mut messages = Messages::default();
        let mut hole = record(&framed(&[query("a.", RecordType::A)]), flag::SENT | flag::TCP);
        hole.left_out = 70_000;
        assert!(matches!(messages.take(&hole).as_slice(), [Ok(_), Err(DnsError::StreamLost)]));
        assert_eq!(messages.take(&record(&framed(&[query("b.", RecordType::A)]), flag::SENT | flag::TCP)), []);
    }

    fn any_message() -> impl Strategy<Value = Vec<u8>> {
        let answer = response("www.example.org.", RecordType::A, &[("www.example.org.", a(1)), ("x.", a(2))]);
        let valid = answer.to_vec().expect("encodes");
        let mutated =
            prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8).prop_map(move |changes| {
                let mut bytes = valid.clone();
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                bytes
            });
        prop_oneof![prop::collection::vec(any::<u8>(), 0..1400), mutated]
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in any_message(), flags in 0u32..4, left_out in 0u32..5000, length in any::<u32>()) {
            let mut record = record(&bytes, flags);
            record.left_out = left_out;
            Messages::default().take(&record);
            record.length = length;
            Messages::default().take(&record);
        }

        #[test]
        fn a_stream_gives_the_same_messages_however_it_is_cut(
            cuts in prop::collection::vec(1usize..60, 1..30),
            count in 1usize..5,
        ) {
            let names: Vec<_> = (0..count).map(|number| format!("n{number}.example.org.")).collect();
            let sent: Vec<_> = names.iter().map(|name| query(name, RecordType::A)).collect();
            let bytes = framed(&sent);
            let mut messages = Messages::default();
            let mut rest = bytes.as_slice();
            let mut got = Vec::new();
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at(rest.len().min(*cut));
                if piece.is_empty() {
                    break;
                }
                got.extend(messages.take(&record(piece, flag::SENT | flag::TCP)));
                rest = later;
            }
            let got: Vec<_> = got.into_iter().map(|message| message.map(|message| format!("{}.", message.name))).collect();
            prop_assert_eq!(got, names.into_iter().map(Ok).collect::<Vec<_>>());
        }
    }
}
