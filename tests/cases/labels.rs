//! What changes how a connection's exchanges are to be read is said with it: the kernel's own TLS, Multipath TCP, TCP Fast
//! Open.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
};

use harness::{
    Closer, Connection, Ends, Exchange, Family, How, Log, Namespace, Pair, Role, Span, Talk, Tracer, lacks, listen,
    output_of, tcp_info,
};
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};

crate::on_both_backends! {
    the_kernels_own_tls_is_named_and_its_bytes_count_as_they_are_on_the_wire
    multipath_tcp_is_named_and_its_bytes_count
    an_ask_that_goes_with_the_syn_is_the_first_exchange
}

/// The words that say what the connection is, beside the field that they are about.
const KERNEL_TLS: (&str, &str) = ("exchanges", "the kernel's own TLS");
const MPTCP: (&str, &str) = ("exchanges", "Multipath TCP");
const FAST_OPEN: (&str, &str) = ("connect_ms", "TCP Fast Open");

/// Fails unless the connection bears these labels, each once, and no other.
#[track_caller]
fn assert_labels(connection: &Connection, labels: &[(&str, &str)]) {
    for label in [KERNEL_TLS, MPTCP, FAST_OPEN] {
        let (field, words) = label;
        let notes = &connection.confidence;
        let found = notes.iter().filter(|note| note.field == field && note.why.contains(words)).count();
        assert_eq!(found, usize::from(labels.contains(&label)), "{label:?}: {connection:#?}");
    }
}

/// Both ends' records: reported once, with these bytes sent and received by the client.
#[track_caller]
fn both_ends(trace: &Tracer, client: Ends, sent: u64, received: u64) -> [(Connection, Vec<Exchange>); 2] {
    [(client, sent, received), (client.flipped(), received, sent)].map(|(ends, out, into)| {
        let connection = trace.connection(ends);
        connection.assert_bytes(out, into);
        // Where they are not known, there are none to wait for.
        let exchanges = if connection.exchanges.is_some() { trace.exchanges_of(&connection) } else { Vec::new() };
        (connection, exchanges)
    })
}

/// A record of TLS 1.2 with AES-GCM is so much longer than what is in it: header, nonce, and tag.
const RECORD: usize = 5 + 8 + 16;

/// Both directions of a connection under one key, as if a handshake had agreed on it.
fn begin_kernel_tls(end: &TcpStream) -> nix::Result<()> {
    setsockopt(end, sockopt::TcpUlp::default(), b"tls")?;
    let keys = libc::tls12_crypto_info_aes_gcm_128 {
        info: libc::tls_crypto_info { version: libc::TLS_1_2_VERSION, cipher_type: libc::TLS_CIPHER_AES_GCM_128 },
        iv: [1; 8],
        key: [2; 16],
        salt: [3; 4],
        rec_seq: [0; 8],
    };
    setsockopt(end, sockopt::TcpTlsTx, &sockopt::TlsCryptoInfo::Aes128Gcm(keys))?;
    setsockopt(end, sockopt::TcpTlsRx, &sockopt::TlsCryptoInfo::Aes128Gcm(keys))
}

fn the_kernels_own_tls_is_named_and_its_bytes_count_as_they_are_on_the_wire(trace: &Tracer) {
    let has_module = output_of("modprobe tls").status.success();
    let mut talk = Talk::new(Family::V4);
    let begun = [talk.pair.client(), talk.pair.server()].map(begin_kernel_tls);
    if begun.contains(&Err(Errno::ENOENT)) {
        assert!(!has_module, "the module is there, but the kernel knows no `tls`");
        lacks("TLS of its own", "no module `tls`, and setsockopt(TCP_ULP, \"tls\") says ENOENT");
        talk.ask(10).close();
        assert_labels(&trace.connection(talk.ends(Role::Client)), &[]);
        return;
    }
    assert_eq!(begun, [Ok(()); 2]);
    let (asked, answered) = (1_000, 5_000);
    say(&mut talk, Role::Client, asked);
    talk.rest(60);
    say(&mut talk, Role::Server, answered);
    talk.close();

    let wire = |bytes: usize| (bytes + RECORD) as u64;
    for (connection, exchanges) in both_ends(trace, talk.ends(Role::Client), wire(asked), wire(answered)) {
        println!("{connection:#?} {exchanges:#?}");
        assert_labels(&connection, &[KERNEL_TLS]);
        // What it takes from TCP passes the hook of receives by, as the label says, but never doubles or splits an exchange.
        assert_eq!(connection.tls, None, "no handshake was seen: {connection:#?}");
        assert!(exchanges.len() <= 1, "one exchange at most: {exchanges:#?}");
    }
}

/// One end says so many bytes in one record, and the other takes them.
fn say(talk: &mut Talk, from: Role, bytes: usize) {
    let (client, server) = (talk.pair.client(), talk.pair.server());
    let (mut sender, mut taker, to) =
        if from == Role::Client { (client, server, Role::Server) } else { (server, client, Role::Client) };
    talk.log.send(from, bytes + RECORD, || sender.write_all(&vec![5; bytes]).expect("send"));
    talk.log.take(to, bytes + RECORD, || {
        let mut taken = vec![0; bytes];
        taker.read_exact(&mut taken).expect("receive");
        assert_eq!(taken, vec![5; bytes], "the kernel's TLS is in use at both ends");
    });
}

/// A connection over Multipath TCP, of one subflow.
fn multipath_pair() -> io::Result<Pair> {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP));
    let listener = socket()?;
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(1)?;
    let client = socket()?;
    let (connected, outcome) = Span::of(|| client.connect(&listener.local_addr()?));
    outcome?;
    let (server, _) = listener.accept()?;
    Ok(Pair::of(client.into(), server.into(), connected.before))
}

fn multipath_tcp_is_named_and_its_bytes_count(trace: &Tracer) {
    Namespace::run(|namespace| {
        match multipath_pair() {
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
                let setting = std::path::Path::new("/proc/sys/net/mptcp");
                assert!(!setting.exists(), "the kernel has settings for it");
                lacks("Multipath TCP", "socket(IPPROTO_MPTCP) says EPROTONOSUPPORT, and there is no net.mptcp");
                return;
            }
            // Off, as it may be by default.
            _ => namespace.set("mptcp/enabled", "1"),
        }
        let pair = multipath_pair().expect("Multipath TCP");
        let mut talk = Talk { log: Log::new(pair.ready()), pair };
        talk.ask(1_000).rest(60).answer(5_000).rest(30).ask(7).answer(8);
        talk.close();
        for (connection, exchanges) in both_ends(trace, talk.ends(Role::Client), 1_007, 5_008) {
            println!("{connection:#?} {exchanges:#?}");
            assert_labels(&connection, &[MPTCP]);
            assert_eq!(connection.exchanges, None, "its data passes the hooks by: {connection:#?}");
            connection.assert_ended(
                if connection.role == Some(Role::Client) { Closer::Local } else { Closer::Peer },
                How::Fin,
            );
        }
    });
}

/// How a client asks for TCP Fast Open.
#[derive(Clone, Copy, Debug)]
enum Asks {
    /// `sendto` with MSG_FASTOPEN, which connects.
    ByMessage,
    /// The option TCP_FASTOPEN_CONNECT: the connect waits for the first data.
    ByOption,
}

fn set_tcp_option(socket: &impl AsRawFd, option: i32, value: i32) {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value is as long as is said.
    let outcome =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), length) };
    assert_eq!(outcome, 0, "setsockopt: {}", io::Error::last_os_error());
}

/// Connects and sends in one; returns the client and when its bytes were handed over.
fn connect_and_ask(asks: Asks, to: SocketAddr, bytes: &[u8]) -> (TcpStream, Span) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    let handed_over = match asks {
        Asks::ByMessage => {
            let (span, sent) = Span::of(|| socket.send_to_with_flags(bytes, &to.into(), libc::MSG_FASTOPEN));
            assert_eq!(sent.expect("MSG_FASTOPEN"), bytes.len());
            span
        }
        Asks::ByOption => {
            set_tcp_option(&socket, libc::TCP_FASTOPEN_CONNECT, 1);
            socket.connect(&to.into()).expect("connect");
            Span::of(|| (&socket).write_all(bytes).expect("send")).0
        }
    };
    (TcpStream::from(OwnedFd::from(socket)), handed_over)
}

fn an_ask_that_goes_with_the_syn_is_the_first_exchange(trace: &Tracer) {
    const ASKED: usize = 700;
    const ANSWERED: usize = 3_000;
    for asks in [Asks::ByMessage, Asks::ByOption] {
        Namespace::run(|namespace| {
            namespace.set("ipv4/tcp_fastopen", "3");
            let listener = listen(Family::V4);
            set_tcp_option(&listener, libc::TCP_FASTOPEN, 16);
            // The first connection fetches the cookie that later ones show.
            for with_syn in [false, true, true] {
                let talk = fast_open_talk(asks, &listener, ASKED, ANSWERED);
                println!("{asks:?}, with the SYN: {with_syn}");
                assert_eq!(talk.with_syn, with_syn, "TCP says whether the data went with the SYN");
                let [(client, exchanges), (server, at_server)] =
                    both_ends(trace, talk.client, ASKED as u64, ANSWERED as u64);
                println!("{client:#?} {exchanges:#?} {server:#?} {at_server:#?}");
                // Without a cookie the option makes a connect like any other.
                let early = with_syn || matches!(asks, Asks::ByMessage);
                assert_labels(&client, if early { &[FAST_OPEN] } else { &[] });
                assert_labels(&server, &[]);
                let [exchange] = &exchanges[..] else { panic!("one exchange: {exchanges:#?}") };
                assert_eq!((exchange.greeting, exchange.cold), (false, Some(true)), "{exchange:#?}");
                let bytes = (exchange.bytes_out, exchange.bytes_in);
                assert_eq!(bytes, (Some(ASKED as u64), Some(ANSWERED as u64)), "{exchange:#?}");
                let first_byte = talk.asked.until(talk.answered);
                assert!(exchange.first_byte_ms.is_some_and(|ms| first_byte.holds(ms)), "{first_byte:?}: {exchange:#?}");
                let [exchange] = &at_server[..] else { panic!("one exchange: {at_server:#?}") };
                let bytes = (exchange.bytes_out, exchange.bytes_in);
                assert_eq!((bytes, exchange.greeting), ((Some(ANSWERED as u64), Some(ASKED as u64)), false));
                assert!(exchange.first_byte_ms.is_some_and(|ms| ms >= 60.0), "{exchange:#?}");
            }
        });
    }
}

/// What a connection whose ask went with the connect was like.
struct FastOpen {
    client: Ends,
    with_syn: bool,
    asked: Span,
    answered: Span,
}

fn fast_open_talk(asks: Asks, listener: &TcpListener, asked: usize, answered: usize) -> FastOpen {
    let to = listener.local_addr().expect("local address");
    let (client, handed_over) = connect_and_ask(asks, to, &vec![1; asked]);
    let (server, _) = listener.accept().expect("accept");
    let mut pair = Pair::of(client, server, handed_over.before);
    let (mut client, mut server) = (pair.client(), pair.server());
    server.read_exact(&mut vec![0; asked]).expect("receive");
    std::thread::sleep(std::time::Duration::from_millis(70));
    server.write_all(&vec![2; answered]).expect("send");
    let (taken, ()) = Span::of(|| client.read_exact(&mut vec![0; answered]).expect("receive"));
    let with_syn = tcp_info(pair.client()).data_with_syn;
    pair.close_client();
    pair.release_server();
    FastOpen { client: pair.client_ends(), with_syn, asked: handed_over, answered: taken }
}
