//! NDJSON lines against a JSON library's idea of the same records, and against the published schema.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use jiff::Timestamp;
use proptest::{option, prelude::*};
use serde_json::{Value, json};
use tracer::{
    output::{Output, ndjson::Ndjson},
    track::record::{
        Bound, Close, Closer, Confidence, Connection, ConnectionId, DetailChange, Exchange, Exchanges, Group,
        GroupExchanges, Hello, Hook, How, HttpHead, HttpMethod, HttpVersion, KeepAlive, LookedUp, Lookup, LookupWay,
        Loss, Overhead, Parts, Process, Record, Role, Setup, Summary, Tls, TlsFailed, TlsFailure, TlsSource, WallTime,
    },
};

const TYPE_FIRST: &str = r#"{"type":""#;

/// A duration in milliseconds as decimal digits would be read, independent of the writer.
fn ms(nanos: Option<u64>) -> Value {
    let Some(nanos) = nanos else {
        return Value::Null;
    };
    let digits = format!("{}.{:06}", nanos / 1_000_000, nanos % 1_000_000);
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    serde_json::from_str(digits).expect("a number")
}

fn time(time: Option<WallTime>) -> Value {
    let rfc3339 = |WallTime(nanos)| {
        let time = Timestamp::from_nanosecond(i128::from(nanos)).expect("in range");
        format!("{time:.9}")
    };
    time.map(rfc3339).into()
}

fn role(role: Option<Role>) -> Value {
    role.map(|role| format!("{role:?}").to_lowercase()).into()
}

fn lower(word: impl std::fmt::Debug) -> Value {
    format!("{word:?}").to_lowercase().into()
}

fn id(id: ConnectionId) -> String {
    let life = if id.life > 0 { format!(".{}", id.life) } else { String::new() };
    format!("{:x}{life}", id.socket)
}

fn notes(notes: &[Confidence]) -> Value {
    let note = |note: &Confidence| json!({ "field": note.field, "bound": lower(note.bound), "why": note.why });
    notes.iter().map(note).collect()
}

fn version(number: u16) -> Value {
    match number {
        0x0303 => "1.2".into(),
        0x0304 => "1.3".into(),
        other => format!("{other:#06x}").into(),
    }
}

fn tls(tls: &Tls) -> Value {
    let Hello { sni, alpn_offered, alpn, resumed, .. } = &*tls.hello;
    let cipher = |number| match number {
        0x1301 => "TLS_AES_128_GCM_SHA256".to_owned(),
        other => format!("{other:#06x}"),
    };
    let failed = tls.failed.map(|failed| {
        let (how, alert) = match failed.how {
            TlsFailed::Alert(48) => ("alert".into(), "unknown_ca".into()),
            TlsFailed::Alert(other) => ("alert".into(), other.to_string().into()),
            TlsFailed::Closed(how) => (lower(how), Value::Null),
        };
        json!({ "how": how, "by": lower(failed.by), "alert": alert, "after_ms": ms(failed.after) })
    });
    let versions = tls.hello.versions_offered.as_ref();
    json!({
        "handshake_ms": ms(tls.handshake), "version": tls.hello.version.map(version), "sni": sni,
        "alpn_offered": alpn_offered, "alpn": alpn,
        "versions_offered": versions.map(|versions| versions.iter().copied().map(version).collect::<Vec<_>>()),
        "cipher": tls.hello.cipher.map(cipher), "resumed": resumed, "retried": tls.retried,
        "mid_stream": tls.mid_stream, "library": tls.library, "source": tls.source.as_str(), "cpu_ms": ms(tls.parts.cpu),
        "runqueue_ms": ms(tls.parts.runqueue), "wait_ms": ms(tls.parts.wait), "failed": failed,
    })
}

fn remote_name<'r>(
    role: Option<Role>,
    hello: Option<&'r Hello>,
    looked_up: Option<&'r LookedUp>,
) -> (Option<&'r str>, Option<&'static str>) {
    match (hello, looked_up) {
        (Some(Hello { sni: Some(name), .. }), _) if role != Some(Role::Server) => (Some(name), Some("sni")),
        (_, Some(looked_up)) => (Some(&looked_up.name), Some("dns")),
        _ => (None, None),
    }
}

/// A process may have another number at the host.
fn numbered(mut line: Value, process: &Process) -> Value {
    let (own, host) = process.numbers();
    line["pid"] = own.into();
    if let Some(host) = host {
        line["host_pid"] = host.into();
    }
    line
}

fn exchange(exchange: &Exchange) -> Value {
    let setup = exchange.setup.as_deref().map(|setup| {
        json!({
            "dns_ms": ms(setup.dns), "connect_ms": ms(setup.connect), "handshake_ms": ms(setup.handshake),
            "total_ms": ms(setup.total),
        })
    });
    let line = json!({
        "type": "exchange", "connection": id(exchange.connection), "index": exchange.index,
        "pid": exchange.process.pid, "comm": exchange.process.comm, "role": role(exchange.role),
        "remote": exchange.remote.to_string(),
        "remote_name": remote_name(exchange.role, exchange.hello.as_deref(), exchange.looked_up.as_deref()).0, "cold": exchange.cold,
        "greeting": exchange.greeting, "began_at": time(exchange.began_at), "idle_before_ms": ms(exchange.idle_before),
        "first_byte_ms": ms(exchange.first_byte), "duration_ms": ms(exchange.duration),
        "bytes_out": exchange.bytes_out, "bytes_in": exchange.bytes_in, "setup": setup,
        "http": http(exchange.request.as_deref(), exchange.response.as_deref()),
        "stale": exchange.stale, "open": exchange.open, "confidence": notes(&exchange.confidence),
    });
    numbered(line, &exchange.process)
}

/// What both heads say together; of what both say the response's counts.
fn http(request: Option<&HttpHead>, response: Option<&HttpHead>) -> Value {
    let heads = || response.into_iter().chain(request);
    if heads().next().is_none() {
        return Value::Null;
    }
    let mut tokens: Vec<&String> = Vec::new();
    for token in request.into_iter().chain(response).flat_map(|head| &head.connection) {
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }
    let asks = |head: Option<&HttpHead>| head.is_some_and(|head| head.connection.contains(&"close".to_owned()));
    let close_asked = match (asks(request), asks(response)) {
        (true, true) => json!("both"),
        (true, false) => json!("request"),
        (false, true) => json!("response"),
        (false, false) => Value::Null,
    };
    let version = heads().find_map(|head| head.version).map(|version| match version {
        HttpVersion::V1_0 => "1.0",
        HttpVersion::V1_1 => "1.1",
        HttpVersion::V2 => "2",
    });
    let keep_alive = heads().find_map(|head| head.keep_alive);
    json!({
        "method": request.and_then(|head| head.method).map(HttpMethod::as_str),
        "status": response.and_then(|head| head.status), "version": version,
        "host": request.and_then(|head| head.host.as_ref()), "connection_header": tokens, "close_asked": close_asked,
        "keep_alive": keep_alive.map(|said| json!({ "timeout_s": said.timeout_s, "max": said.max })),
    })
}

fn identity(kind: &str, connection: &Connection) -> Value {
    let Connection { process, .. } = connection;
    let hello = connection.tls.as_ref().map(|tls| &*tls.hello);
    let (name, source) = remote_name(connection.role, hello, connection.looked_up.as_deref());
    let line = json!({
        "type": kind, "id": id(connection.id), "pid": process.pid, "tid": connection.tid,
        "comm": process.comm, "exe": process.exe, "container": process.container, "netns": connection.netns,
        "role": role(connection.role), "family": if connection.remote.is_ipv4() { "ipv4" } else { "ipv6" },
        "local": connection.local.to_string(), "remote": connection.remote.to_string(), "remote_name": name,
        "remote_name_source": source, "opened_at": time(connection.opened_at), "preexisting": connection.preexisting,
        "dns_ms": ms(connection.looked_up.as_ref().map(|looked_up| looked_up.cost)), "connect_ms": ms(connection.connect),
        "syn_retransmits": connection.syn_retransmits,
    });
    numbered(line, process)
}

fn close(close: &Close) -> Value {
    let name = |number| match number {
        111 => "ECONNREFUSED".to_owned(),
        other => format!("E{other}"),
    };
    json!({
        "closer": lower(close.closer), "how": lower(close.how), "errno": close.errno.map(name),
        "process_exited": close.process_exited, "unnoticed_ms": ms(close.unnoticed),
        "released_at": time(close.released_at), "ended_at": time(close.ended_at),
    })
}

fn loss(loss: &Loss) -> Value {
    json!({ "at": time(Some(loss.at)), "place": loss.place, "cause": loss.cause, "count": loss.count })
}

fn group(group: &Group) -> Value {
    let (local, peer, none) = group.closers;
    let known = group.exchanges.as_ref();
    let each = known.and_then(|known| known.count.saturating_mul(1_000).checked_div(group.connections));
    json!({
        "comm": group.comm, "role": role(group.role), "destination": group.destination,
        "connections": group.connections, "open": group.open, "failed": group.failed, "closed_by_local": local,
        "closed_by_peer": peer, "closed_by_none": none, "bytes_sent": group.bytes.0, "bytes_received": group.bytes.1,
        "setup_ms": ms(Some(group.setup)), "connect_median_ms": ms(group.connect_median),
        "idle_min_ms": ms(group.idle.map(|idle| idle.0)), "idle_median_ms": ms(group.idle.map(|idle| idle.1)),
        "idle_max_ms": ms(group.idle.map(|idle| idle.2)),
        "exchanges": known.map(|known| known.count), "cold": known.map(|known| known.cold),
        "warm": known.map(|known| known.warm), "stale": known.map(|known| known.stale),
        "exchanges_per_connection": ms(each.map(|thousandths| thousandths.saturating_mul(1_000))),
        "cold_median_ms": ms(known.and_then(|known| known.cold_median)),
        "cold_first_byte_median_ms": ms(known.and_then(|known| known.cold_first_byte_median)),
        "warm_median_ms": ms(known.and_then(|known| known.warm_median)),
        "setup_total_ms": {
            "dns_ms": ms(known.map(|known| known.dns)), "connect_ms": ms(Some(group.setup)), "handshake_ms": ms(known.map(|known| known.handshake)),
        },
    })
}

fn a_lookup(lookup: &Lookup) -> Value {
    let (source, server, transport) = match lookup.way {
        LookupWay::Port53 { server, tcp } => {
            ("port53", Some(server.to_string()), Some(if tcp { "tcp" } else { "udp" }))
        }
        LookupWay::GetAddrInfo => ("getaddrinfo", None, None),
    };
    let line = json!({
        "type": "dns", "pid": lookup.process.pid, "tid": lookup.tid, "comm": lookup.process.comm,
        "exe": lookup.process.exe, "container": lookup.process.container, "netns": lookup.netns,
        "source": source, "server": server, "transport": transport,
        "name": lookup.name, "record_type": lookup.record_type, "asked_at": time(Some(lookup.asked_at)),
        "latency_ms": ms(lookup.latency), "rcode": lookup.rcode,
        "answers": lookup.answers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "retries": lookup.retries, "failed": lookup.rcode.as_deref() != Some("NOERROR"),
    });
    numbered(line, &lookup.process)
}

fn expected(record: &Record) -> Value {
    match record {
        Record::Open(connection) => identity("open", connection),
        Record::Connection(connection) => {
            let exchanges = connection.exchanges.as_ref();
            let rest = json!({
                "closed_at": time(connection.closed_at), "lifetime_ms": ms(connection.lifetime),
                "open": connection.open, "tls": connection.tls.as_deref().map(tls),
                "exchanges": exchanges.map(|exchanges| exchanges.count), "bytes_sent": connection.bytes_sent,
                "bytes_received": connection.bytes_received, "retransmits": connection.retransmits,
                "srtt_ms": ms(connection.srtt), "keepalive": connection.keepalive,
                "idle_before_close_ms": ms(connection.idle_before_close),
                "max_idle_ms": ms(exchanges.and_then(|exchanges| exchanges.max_idle)),
                "close": connection.close.as_ref().map(close),
                "stale_exchange": exchanges.map(|exchanges| exchanges.stale),
                "confidence": notes(&connection.confidence),
            });
            merged(identity("connection", connection), rest)
        }
        Record::Lookup(lookup) => a_lookup(lookup),
        Record::Exchange(turn) => exchange(turn),
        Record::Throttling(_) => panic!("no line for it"),
        Record::Detail(change) => json!({
            "type": "detail", "at": time(Some(change.at)),
            "detail": if change.lowered { "connections" } else { "exchanges" },
            "overhead_percent": rounded(change.overhead.percent), "limit_percent": rounded(change.overhead.limit),
            "programs_counted": change.overhead.counts_programs,
        }),
        Record::Loss(lost) => merged(json!({ "type": "loss" }), loss(lost)),
        Record::Summary(summary) => json!({
            "type": "summary", "began_at": time(Some(summary.began_at)), "stopped_at": time(Some(summary.stopped_at)),
            "connections": summary.connections, "open": summary.open,
            "groups": summary.groups.iter().map(group).collect::<Vec<_>>(), "other": summary.other.as_ref().map(group),
            "hooks": summary.hooks, "losses": summary.losses.iter().map(loss).collect::<Vec<_>>(),
            "remarks": summary.remarks,
        }),
    }
}

/// To thousandths.
fn rounded(percent: f64) -> f64 {
    format!("{percent:.3}").parse().expect("a number")
}

fn merged(mut first: Value, second: Value) -> Value {
    if let (Value::Object(first), Value::Object(second)) = (&mut first, second) {
        first.extend(second);
    }
    first
}

fn any_role() -> impl Strategy<Value = Option<Role>> {
    option::of(prop_oneof![Just(Role::Client), Just(Role::Server)])
}

/// Without the zones and flow labels of IPv6, which the kernel's records do not have.
fn any_address() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
}

fn any_time() -> impl Strategy<Value = Option<WallTime>> {
    option::of(any::<u64>().prop_map(WallTime))
}

prop_compose! {
    fn any_process()(
        pid in any::<u32>(), host_pid in any::<Option<u32>>(), comm in any::<String>(), exe in any::<Option<String>>(), container in any::<Option<String>>(),
    ) -> Process {
        Process { pid, host_pid, started_at: 0, comm, exe, container, quota: None }
    }
}

prop_compose! {
    fn any_close()(
        closer in prop::sample::select(vec![Closer::Local, Closer::Peer, Closer::None]),
        how in prop::sample::select(vec![How::Fin, How::Rst, How::Timeout, How::Refused, How::Unreachable, How::Aborted]),
        errno in option::of(prop::sample::select(vec![111, 4095, u32::MAX])),
        process_exited in any::<bool>(),
        unnoticed in any::<Option<u64>>(),
        (released_at, ended_at) in (any_time(), any_time()),
    ) -> Close {
        Close { closer, how, errno, process_exited, unnoticed, unused: unnoticed, released_at, ended_at }
    }
}

const BOUNDS: [Bound; 4] = [Bound::Lower, Bound::Upper, Bound::Estimate, Bound::Unknown];

fn note(bound: Bound) -> Confidence {
    Confidence { field: "idle_before_close_ms", bound, why: "so \"it\" is" }
}

prop_compose! {
    fn any_exchanges()(count in any::<u32>(), max_idle in any::<Option<u64>>(), stale in any::<bool>()) -> Exchanges {
        Exchanges { count, max_idle, stale }
    }
}

prop_compose! {
    fn any_parts()(
        cpu in any::<Option<u64>>(), runqueue in any::<Option<u64>>(), wait in any::<Option<u64>>(),
    ) -> Parts {
        Parts { cpu, runqueue, wait }
    }
}

prop_compose! {
    fn any_hello()(
        version in option::of(prop::sample::select(vec![0x0303, 0x0304, 0x7f17])),
        cipher in option::of(prop::sample::select(vec![0x1301, 0xfefe])),
        sni in any::<Option<String>>(),
        alpn_offered in any::<Option<Vec<String>>>(),
        alpn in any::<Option<String>>(),
        versions_offered in option::of(prop::collection::vec(prop::sample::select(vec![0x0303, 0x0304]), 0..4)),
        resumed in any::<Option<bool>>(),
    ) -> Rc<Hello> {
        Rc::new(Hello { version, cipher, sni, alpn_offered, alpn, versions_offered, resumed })
    }
}

prop_compose! {
    fn any_failure()(
        how in prop_oneof![
            prop::sample::select(vec![48, 222]).prop_map(TlsFailed::Alert),
            prop::sample::select(vec![How::Fin, How::Rst, How::Timeout]).prop_map(TlsFailed::Closed),
        ],
        by in prop::sample::select(vec![Closer::Local, Closer::Peer, Closer::None]),
        after in any::<Option<u64>>(),
    ) -> TlsFailure {
        TlsFailure { how, by, after }
    }
}

prop_compose! {
    fn any_tls()(
        hello in any_hello(), handshake in any::<Option<u64>>(), parts in any_parts(),
        (retried, mid_stream) in any::<(Option<bool>, Option<bool>)>(), failed in option::of(any_failure()),
        library in option::of("(OpenSSL|GnuTLS) [0-9.a-z]{1,20}"),
        source in prop::sample::select(&[TlsSource::Wire, TlsSource::Uprobe, TlsSource::Both][..]),
    ) -> Tls {
        let library = library.map(Rc::from);
        Tls { hello, handshake, parts, retried, mid_stream, library, source, failed }
    }
}

prop_compose! {
    fn any_setup()(
        (dns, connect) in any::<(Option<u64>, Option<u64>)>(),
        (handshake, total) in any::<(Option<u64>, Option<u64>)>(),
        parts in any_parts(),
    ) -> Box<Setup> {
        Box::new(Setup { dns, connect, handshake, parts, total })
    }
}

prop_compose! {
    fn any_head()(
        method in option::of(prop::sample::select(HttpMethod::ALL)),
        status in option::of(100..=999u16),
        version in option::of(prop::sample::select(&[HttpVersion::V1_0, HttpVersion::V1_1, HttpVersion::V2][..])),
        host in option::of("[-A-Za-z0-9._:\\[\\]]{0,255}"),
        connection in prop::collection::vec(prop_oneof![Just("close".to_owned()), "[!-~]{1,64}"], 0..8),
        keep_alive in option::of(any::<(Option<u32>, Option<u32>)>()),
    ) -> Rc<HttpHead> {
        let keep_alive = keep_alive.map(|(timeout_s, max)| KeepAlive { timeout_s, max });
        Rc::new(HttpHead { method, status, version, host, connection, keep_alive })
    }
}

prop_compose! {
    fn any_exchange()(
        // Few sockets, so that lines of one connection follow each other.
        (socket, life, index, process) in (0..3u64, 0..3u32, any::<u32>(), any_process()),
        (role, local_port, remote) in (any_role(), any::<u16>(), any_address()),
        (hello, looked_up) in (option::of(any_hello().boxed()), option::of(any_looked_up())),
        (cold, greeting, stale, open) in any::<(Option<bool>, bool, bool, bool)>(),
        began_at in any_time(),
        (idle_before, first_byte, duration) in any::<(Option<u64>, Option<u64>, Option<u64>)>(),
        (bytes_out, bytes_in) in any::<(Option<u64>, Option<u64>)>(),
        setup in option::of(any_setup().boxed()),
        (request, response) in (option::of(any_head().boxed()), option::of(any_head().boxed())),
        bounds in prop::collection::vec(prop::sample::select(BOUNDS.to_vec()), 0..3),
    ) -> Exchange {
        Exchange {
            connection: ConnectionId { socket, life }, index, process: Rc::new(process), role, local_port, remote, hello,
            looked_up: looked_up.map(Rc::new),
            cold, greeting, began_at, idle_before, first_byte, duration, bytes_out, bytes_in, setup, stale, open,
            request, response,
            confidence: bounds.into_iter().map(note).collect(),
        }
    }
}

/// The same exchange twice and the next one: the text that they have in common is written once.
fn exchanges_in_a_row() -> impl Strategy<Value = Vec<Record>> {
    let names = (option::of(any_hello().boxed()), option::of(any_looked_up()));
    (any_exchange(), any::<bool>(), names).prop_map(|(first, keeps_name, (hello, looked_up))| {
        let (hello, looked_up) = match keeps_name {
            true => (first.hello.clone(), first.looked_up.clone()),
            false => (hello, looked_up.map(Rc::new)),
        };
        let second = Exchange { index: first.index.wrapping_add(1), hello, looked_up, ..first.clone() };
        vec![first.clone(), first, second].into_iter().map(Record::Exchange).collect()
    })
}

prop_compose! {
    fn any_connection()(
        (socket, life, process) in (any::<u64>(), 0..3u32, any_process()),
        (tid, netns, role) in (any::<Option<u32>>(), any::<Option<u32>>(), any_role()),
        (local, remote) in (any_address(), any_address()),
        (opened_at, closed_at, lifetime) in (any_time(), any_time(), any::<Option<u64>>()),
        (open, preexisting, established) in any::<(bool, bool, bool)>(),
        (connect, syn_retransmits) in any::<(Option<u64>, Option<u32>)>(),
        (bytes_sent, bytes_received) in any::<(Option<u64>, Option<u64>)>(),
        (retransmits, srtt, keepalive) in any::<(Option<u32>, Option<u64>, Option<bool>)>(),
        idle_before_close in any::<Option<u64>>(),
        close in option::of(any_close().boxed()),
        bounds in prop::collection::vec(prop::sample::select(BOUNDS.to_vec()), 0..3),
        (exchanges, tls, looked_up) in
            (option::of(any_exchanges()), option::of(any_tls().boxed()), option::of(any_looked_up())),
    ) -> Connection {
        Connection {
            id: ConnectionId { socket, life },
            process: Rc::new(process),
            opened_by: None,
            tid, netns, role, local, remote, opened_at, closed_at, lifetime, open, preexisting, established, connect,
            looked_up: looked_up.map(Rc::new),
            syn_retransmits, bytes_sent, bytes_received, retransmits, srtt, keepalive, idle_before_close, close,
            exchanges, tls: tls.map(Box::new),
            confidence: bounds.into_iter().map(note).collect(),
        }
    }
}

fn any_looked_up() -> impl Strategy<Value = LookedUp> {
    any::<(String, u64)>().prop_map(|(name, cost)| LookedUp { name: name.into(), cost })
}

fn any_way() -> impl Strategy<Value = LookupWay> {
    let asked = (any_address(), any::<bool>()).prop_map(|(server, tcp)| LookupWay::Port53 { server, tcp });
    prop_oneof![asked, Just(LookupWay::GetAddrInfo)]
}

prop_compose! {
    fn any_lookup()(
        (process, tid, netns) in (any_process(), any::<u32>(), any::<Option<u32>>()),
        (way, name, record_type) in (any_way(), any::<String>(), any::<Option<String>>()),
        (asked_at, latency, retries) in any::<(u64, Option<u64>, u32)>(),
        rcode in option::of(prop_oneof![Just("NOERROR".to_owned()), any::<String>()]),
        answers in prop::collection::vec(any::<IpAddr>(), 0..3),
    ) -> Lookup {
        let (process, asked_at) = (Rc::new(process), WallTime(asked_at));
        Lookup { process, tid, netns, way, name, record_type, asked_at, latency, rcode, answers, retries }
    }
}

prop_compose! {
    fn any_loss()(at in any::<u64>(), place in any::<String>(), cause in any::<String>(), count in any::<u64>()) -> Loss {
        Loss { at: WallTime(at), place, cause, count }
    }
}

prop_compose! {
    fn any_detail_change()(
        at in any::<u64>(), lowered in any::<bool>(), percent in 0.0..10_000.0_f64, limit in 0.1..10_000.0_f64,
        counts_programs in any::<bool>(),
    ) -> DetailChange {
        DetailChange { at: WallTime(at), lowered, overhead: Overhead { percent, limit, counts_programs } }
    }
}

prop_compose! {
    fn any_group_exchanges()(
        (count, cold, warm, stale) in any::<(u64, u64, u64, u64)>(),
        (cold_median, cold_first_byte_median, warm_median) in any::<(Option<u64>, Option<u64>, Option<u64>)>(),
        (dns, handshake) in any::<(u64, u64)>(),
    ) -> GroupExchanges {
        GroupExchanges { count, cold, warm, stale, cold_median, cold_first_byte_median, warm_median, dns, handshake }
    }
}

prop_compose! {
    fn any_group()(
        (comm, role, destination) in (any::<String>(), any_role(), any::<String>()),
        (connections, open, failed) in any::<(u64, u64, u64)>(),
        (setup, connect_median) in any::<(u64, Option<u64>)>(),
        bytes in any::<(Option<u64>, Option<u64>)>(),
        idle in any::<Option<(u64, u64, u64)>>(),
        closers in any::<(u64, u64, u64)>(),
        exchanges in option::of(any_group_exchanges()),
    ) -> Group {
        Group {
            comm, role, destination, connections, open, failed, setup, exchanges, connect_median, bytes, idle, closers,
        }
    }
}

prop_compose! {
    fn any_hook()(
        name in any::<String>(), backend in any::<Option<String>>(), reason in any::<Option<String>>(),
        without in any::<Option<String>>(),
    ) -> Hook {
        Hook { name, backend, reason, without }
    }
}

prop_compose! {
    fn any_summary()(
        (began_at, stopped_at, connections, open) in any::<(u64, u64, u64, u64)>(),
        groups in prop::collection::vec(any_group(), 0..3),
        other in option::of(any_group()),
        hooks in prop::collection::vec(any_hook(), 0..3),
        losses in prop::collection::vec(any_loss(), 0..3),
        remarks in prop::collection::vec(any::<String>(), 0..3),
    ) -> Summary {
        let (began_at, stopped_at) = (WallTime(began_at), WallTime(stopped_at));
        Summary { began_at, stopped_at, connections, open, groups, other, hooks, losses, remarks }
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        3 => any_connection().prop_map(Record::Open).boxed(),
        6 => any_connection().prop_map(Record::Connection).boxed(),
        4 => any_exchange().prop_map(Record::Exchange).boxed(),
        2 => any_lookup().prop_map(Record::Lookup).boxed(),
        1 => any_loss().prop_map(Record::Loss),
        1 => any_detail_change().prop_map(Record::Detail),
        1 => any_summary().prop_map(|summary| Record::Summary(Box::new(summary))).boxed(),
    ]
}

pub fn schema() -> jsonschema::Validator {
    let schema = include_str!("../../../docs/ndjson.schema.json");
    let schema = serde_json::from_str(schema).expect("the schema is JSON");
    jsonschema::draft202012::new(&schema).expect("the schema is one")
}

#[test]
fn without_exchanges_only_their_lines_are_left_out() {
    let mut runner = prop::test_runner::TestRunner::default();
    let verdict = runner.run(&prop::collection::vec(any_record(), 1..8), |records| {
        let (mut writer, mut out) = (Ndjson::new(false), Vec::new());
        records.iter().for_each(|record| writer.record(record, &mut out));
        let text = String::from_utf8(out).expect("UTF-8");
        let left = records.iter().filter(|record| !matches!(record, Record::Exchange(_))).count();
        prop_assert_eq!(text.lines().count(), left);
        let is_left = text.contains(r#"{"type":"exchange""#);
        prop_assert!(!is_left);
        Ok(())
    });
    verdict.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn the_schema_is_strict() {
    let schema = schema();
    let line =
        json!({ "type": "loss", "at": "2026-11-21T03:14:33.000000000Z", "place": "kernel", "cause": "x", "count": 1 });
    assert!(schema.is_valid(&line));
    assert!(!schema.is_valid(&merged(line.clone(), json!({ "more": 1 }))));
    assert!(!schema.is_valid(&merged(line, json!({ "count": null }))));
}

#[test]
fn every_line_is_what_a_library_would_write_and_fits_the_schema() {
    let schema = schema();
    let strategy =
        prop_oneof![4 => prop::collection::vec(any_record(), 1..8).boxed(), 1 => exchanges_in_a_row().boxed()];
    let mut runner = prop::test_runner::TestRunner::default();
    let verdict = runner.run(&strategy, |records| {
        let (mut writer, mut out) = (Ndjson::default(), Vec::new());
        for record in &records {
            writer.record(record, &mut out);
        }
        let text = String::from_utf8(out).expect("UTF-8");
        let lines: Vec<_> = text.lines().collect();
        prop_assert_eq!(lines.len(), records.len());
        for (line, record) in lines.into_iter().zip(&records) {
            prop_assert!(line.starts_with(TYPE_FIRST));
            let line: Value = serde_json::from_str(line).expect("JSON");
            prop_assert_eq!(&line, &expected(record));
            prop_assert!(
                schema.is_valid(&line),
                "{:?}",
                schema.iter_errors(&line).map(|e| e.to_string()).collect::<Vec<_>>()
            );
        }
        Ok(())
    });
    verdict.unwrap_or_else(|failure| panic!("{failure}"));
}
