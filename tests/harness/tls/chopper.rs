//! A relay that passes bytes on in pieces of its own, so that records are cut anywhere, in what it sends and in how it
//! reads.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::pair::{Ends, Family, listen};

/// So that pieces are not joined again on the way.
const PAUSE: Duration = Duration::from_millis(1);

/// A relay for one connection.
pub struct Chopper {
    address: SocketAddr,
    relay: JoinHandle<[Ends; 2]>,
}

impl Chopper {
    /// Will relay one connection to `to`; the pieces have these lengths, each way, and the last one is repeated.
    pub fn new(to: SocketAddr, pieces: &'static [usize]) -> Self {
        let listener = listen(Family::V4);
        let address = listener.local_addr().expect("local address");
        Self { address, relay: thread::spawn(move || relay(&listener, to, pieces)) }
    }

    /// Where the client is to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the end of the connection; returns its own two ends, that towards the client first.
    #[track_caller]
    pub fn ends(self) -> [Ends; 2] {
        self.relay.join().expect("the relay")
    }
}

fn relay(listener: &TcpListener, to: SocketAddr, pieces: &[usize]) -> [Ends; 2] {
    let (client, _) = listener.accept().expect("accept");
    let server = TcpStream::connect(to).expect("connect");
    for end in [&client, &server] {
        end.set_nodelay(true).expect("TCP_NODELAY");
        end.set_read_timeout(Some(Duration::from_secs(60))).expect("read timeout");
    }
    thread::scope(|scope| {
        scope.spawn(|| pass_on(&client, &server, pieces));
        pass_on(&server, &client, pieces);
    });
    [Ends::of(&client), Ends::of(&server)]
}

fn pass_on(mut from: &TcpStream, mut to: &TcpStream, pieces: &[usize]) {
    let last = *pieces.last().expect("lengths of pieces");
    let mut lengths = pieces.iter().copied().chain(std::iter::repeat(last));
    let mut buffer = vec![0; 65_536];
    let mut short = 0;
    loop {
        // A piece that the network cut shorter is filled up by the next.
        let length = if short > 0 { short } else { lengths.next().unwrap_or(last) };
        match from.read(&mut buffer[..length]) {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                short = length - read;
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
                thread::sleep(PAUSE);
            }
        }
    }
    // The other end may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}
