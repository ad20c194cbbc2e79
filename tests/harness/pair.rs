//! Connections over loopback with both ends in hand.

use std::{
    io::{self, Read, Write},
    mem::MaybeUninit,
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    thread,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    clock::{eventually, monotonic_ns, wall_ns},
    span::Span,
};

/// A read that waits longer than this fails: tests are bounded in time.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How the two ends address each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// IPv4 through IPv6 sockets, addresses v4-mapped.
    Mapped,
}

impl Family {
    /// The loopback address as the sockets of this family name it.
    fn loopback(self) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::LOCALHOST, 0).into(),
            Self::V6 => (Ipv6Addr::LOCALHOST, 0).into(),
            Self::Mapped => (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0).into(),
        }
    }
}

/// The two ends of a connection as one side sees them; v4-mapped addresses as IPv4, as in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

impl Ends {
    /// Of these addresses.
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { local: canonical(local), remote: canonical(remote) }
    }

    /// Of a connected socket.
    pub fn of(stream: &TcpStream) -> Self {
        Self::new(stream.local_addr().expect("local address"), stream.peer_addr().expect("remote address"))
    }

    /// The same connection from the other side.
    pub fn flipped(self) -> Self {
        Self { local: self.remote, remote: self.local }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A listener on loopback, on a free port.
pub fn listen(family: Family) -> TcpListener {
    let address = family.loopback();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
    if family == Family::Mapped {
        socket.set_only_v6(false).expect("a socket for both families");
    }
    socket.bind(&address.into()).and_then(|()| socket.listen(4096)).expect("a listener on loopback");
    socket.into()
}

/// Connects from a port known beforehand, so that a failed connect can be told from others; returns that port's
/// address, and the outcome.
pub fn connect_from(local: SocketAddr, remote: SocketAddr) -> (SocketAddr, io::Result<TcpStream>) {
    let socket = Socket::new(Domain::for_address(remote), Type::STREAM, None).expect("socket");
    socket.bind(&local.into()).expect("a local port");
    let local = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("local address");
    let outcome = socket.connect(&remote.into()).map(|()| socket.into());
    (local, outcome)
}

/// A connection with both ends in this process. An end that is `None` is closed.
pub struct Pair {
    pub client: Option<TcpStream>,
    pub server: Option<TcpStream>,
    /// As of a server that goes on: who listens tells which end accepted.
    _listener: Option<TcpListener>,
    ends: Ends,
    /// Wall-clock time just before and after each end was let go of.
    released: [Option<(u64, u64)>; 2],
    /// How long connect(2) took.
    connect_ns: Option<u64>,
    /// When the client's and the server's end became ready for data.
    ready: [Span; 2],
    /// Earliest and latest time of the last payload, nanoseconds of `CLOCK_MONOTONIC`.
    last_data: (u64, u64),
}

impl Pair {
    /// A fresh connection on a fresh port.
    pub fn new(family: Family) -> Self {
        let listener = listen(family);
        Self { _listener: Some(listener.try_clone().expect("a second descriptor")), ..Self::through(&listener) }
    }

    /// A fresh connection to this listener.
    pub fn through(listener: &TcpListener) -> Self {
        let to = listener.local_addr().expect("local address");
        let (connected, client) = Span::of(|| TcpStream::connect(to).expect("connect to loopback"));
        let (accepted, (server, _)) = Span::of(|| listener.accept().expect("accept"));
        let connect_ns = Some(connected.after - connected.before);
        Self { connect_ns, ready: [connected, accepted], ..Self::of(client, server, connected.before) }
    }

    /// Of two ends that were connected after `before`.
    pub fn of(client: TcpStream, server: TcpStream, before: u64) -> Self {
        for end in [&client, &server] {
            end.set_read_timeout(Some(READ_TIMEOUT)).expect("read timeout");
        }
        let ends = Ends::of(&client);
        let after = monotonic_ns();
        // Until something is sent, the kernel counts idle time from the handshake.
        Self {
            client: Some(client),
            server: Some(server),
            _listener: None,
            ends,
            released: [None; 2],
            connect_ns: None,
            ready: [Span { before, after }; 2],
            last_data: (before, after),
        }
    }

    /// As the client sees it.
    pub fn client_ends(&self) -> Ends {
        self.ends
    }

    /// As the server sees it.
    pub fn server_ends(&self) -> Ends {
        self.ends.flipped()
    }

    /// The client end.
    pub fn client(&self) -> &TcpStream {
        self.client.as_ref().expect("the client end is open")
    }

    /// The server end.
    pub fn server(&self) -> &TcpStream {
        self.server.as_ref().expect("the server end is open")
    }

    /// The client sends, the server reads it all and answers, the client reads that.
    pub fn exchange(&mut self, request: usize, response: usize) -> &mut Self {
        if request + response == 0 {
            return self;
        }
        let earliest = monotonic_ns();
        move_bytes(self.client(), self.server(), request);
        let earliest = if response > 0 { monotonic_ns() } else { earliest };
        move_bytes(self.server(), self.client(), response);
        self.last_data = (earliest, monotonic_ns());
        self
    }

    /// Stays idle for a while.
    pub fn rest(&mut self, for_ms: u64) -> &mut Self {
        thread::sleep(Duration::from_millis(for_ms));
        self
    }

    /// Does what ends the connection, and returns between how many milliseconds it had been idle by then: at least
    /// from the end of the last exchange to before `end`, at most from its beginning to after.
    pub fn end(&mut self, end: impl FnOnce(&mut Self)) -> (f64, f64) {
        let earliest = monotonic_ns();
        end(self);
        let latest = monotonic_ns();
        let ms = |ns: u64| ns as f64 / 1e6;
        (ms(earliest - self.last_data.1), ms(latest - self.last_data.0))
    }

    /// When the client's and the server's end became ready for data.
    pub fn ready(&self) -> [Span; 2] {
        self.ready
    }

    /// How long connect(2) took, if this made the connection.
    pub fn connect_ms(&self) -> Option<f64> {
        self.connect_ns.map(|ns| ns as f64 / 1e6)
    }

    /// Wall-clock nanoseconds just before and after the client, and the server, let go of their ends.
    pub fn released(&self) -> [Option<(u64, u64)>; 2] {
        self.released
    }

    /// The client lets go of its end, if it has not.
    pub fn release_client(&mut self) {
        self.released[0] = release(&mut self.client).or(self.released[0]);
    }

    /// The server lets go of its end, if it has not.
    pub fn release_server(&mut self) {
        self.released[1] = release(&mut self.server).or(self.released[1]);
    }

    /// The client closes; returns once the server has seen it.
    pub fn close_client(&mut self) {
        self.release_client();
        await_eof(self.server());
    }

    /// The server closes; returns once the client has seen it.
    pub fn close_server(&mut self) {
        self.release_server();
        await_eof(self.client());
    }

    /// The client closes while data is unread; returns once the server has felt the RST that this makes.
    pub fn close_client_unread(&mut self) {
        self.release_client();
        await_reset(self.server());
    }

    /// The server closes while data is unread; returns once the client has felt the RST that this makes.
    pub fn close_server_unread(&mut self) {
        self.release_server();
        await_reset(self.client());
    }

    /// The client closes with an RST; returns once the server has felt it.
    pub fn reset_client(&mut self) {
        set_linger_zero(self.client());
        self.release_client();
        await_reset(self.server());
    }

    /// The server closes with an RST; returns once the client has felt it.
    pub fn reset_server(&mut self) {
        set_linger_zero(self.server());
        self.release_server();
        await_reset(self.client());
    }

    /// The server announces that it sends no more; returns once the client has seen it.
    pub fn half_close_server(&mut self) {
        self.server().shutdown(Shutdown::Write).expect("shutdown");
        await_eof(self.client());
    }

    /// The client announces that it sends no more; returns once the server has seen it.
    pub fn half_close_client(&mut self) {
        self.client().shutdown(Shutdown::Write).expect("shutdown");
        await_eof(self.server());
    }
}

/// Sends that many bytes from one end to the other; both ends may be on this thread, so in pieces that fit the buffers.
fn move_bytes(mut from: &TcpStream, mut to: &TcpStream, mut bytes: usize) {
    let mut buffer = [0_u8; 16 * 1024];
    while bytes > 0 {
        let piece = &mut buffer[..bytes.min(16 * 1024)];
        from.write_all(piece).expect("send");
        to.read_exact(piece).expect("receive");
        bytes -= piece.len();
    }
}

fn release(end: &mut Option<TcpStream>) -> Option<(u64, u64)> {
    let end = end.take()?;
    let before = wall_ns();
    drop(end);
    Some((before, wall_ns()))
}

fn await_eof(mut stream: &TcpStream) {
    assert_eq!(stream.read(&mut [0]).expect("the peer's FIN"), 0, "no byte is left");
}

fn await_reset(mut stream: &TcpStream) {
    let error = stream.read(&mut [0]).expect_err("the peer's RST");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// Makes the close send an RST instead of a FIN.
pub fn set_linger_zero(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

/// Sends bytes that the other end will not read; returns once they have arrived there.
pub fn unread(mut from: &TcpStream, to: &TcpStream, bytes: usize) {
    from.write_all(&vec![0; bytes]).expect("send");
    let mut buffer = vec![MaybeUninit::uninit(); bytes];
    eventually("the unread bytes to arrive", || {
        let arrived = SockRef::from(to).peek(&mut buffer).expect("peek");
        (arrived == bytes).then_some(())
    });
}

/// What TCP itself says of a socket.
#[derive(Clone, Copy, Debug)]
pub struct TcpInfo {
    pub retransmits: u32,
    pub srtt_ms: f64,
    /// Data went with the SYN, and the peer has said that it has it.
    pub data_with_syn: bool,
}

/// Bit of `tcpi_options` (`TCPI_OPT_SYN_DATA`, `linux/tcp.h`).
const SYN_DATA: u8 = 32;

/// Asks TCP about a socket.
pub fn tcp_info(socket: &impl AsFd) -> TcpInfo {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the buffer is as long as `length` says, and any bytes are a valid tcp_info.
    let info = unsafe {
        let result = libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        );
        assert_eq!(result, 0, "TCP_INFO: {}", io::Error::last_os_error());
        info.assume_init()
    };
    TcpInfo {
        retransmits: info.tcpi_total_retrans,
        srtt_ms: f64::from(info.tcpi_rtt) / 1e3,
        data_with_syn: info.tcpi_options & SYN_DATA != 0,
    }
}
