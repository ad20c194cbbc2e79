//! A process that opens and closes connections as it is told: one order a line on stdin, one answer a line on stdout
//! (`ok ...` or `error ...`). It holds one listener and one connection.

use std::{
    io::{IoSlice, IoSliceMut, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    process::exit,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        socket::{
            AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
            socketpair,
        },
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, getpid, gettid},
};
use socket2::SockRef;

#[derive(Default)]
struct Actor {
    listener: Option<TcpListener>,
    stream: Option<TcpStream>,
    /// A forked process that waits for a connection, and the socket to pass it through.
    worker: Option<(Pid, OwnedFd)>,
}

fn main() {
    let mut actor = Actor::default();
    // Read without a buffer: what follows an order may be for the process that takes over.
    while let Some(order) = next_order() {
        match actor.carry_out(&order) {
            Ok(answer) => println!("ok {answer}"),
            Err(error) => println!("error {error:#}"),
        }
    }
}

fn next_order() -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    let mut stdin = UnbufferedStdin;
    while stdin.read(&mut byte).ok()? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
}

struct UnbufferedStdin;

impl Read for UnbufferedStdin {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        Ok(nix::unistd::read(std::io::stdin(), buffer)?)
    }
}

impl Actor {
    fn carry_out(&mut self, order: &str) -> Result<String> {
        let (verb, argument) = order.split_once(' ').unwrap_or((order, ""));
        match verb {
            "ready" => {}
            "listen" => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                let address = listener.local_addr()?;
                self.listener = Some(listener);
                return Ok(address.to_string());
            }
            "accept" => {
                let (stream, peer) = self.listener.as_ref().context("not listening")?.accept()?;
                self.hold(stream)?;
                return Ok(peer.to_string());
            }
            "connect" => return self.connect(argument.parse()?),
            "connect-on-thread" => {
                let to: SocketAddr = argument.parse()?;
                let connect = move || (TcpStream::connect(to), gettid());
                let thread = thread::Builder::new().name("helper".to_owned()).spawn(connect)?;
                let (stream, tid) = thread.join().expect("a thread that connects");
                let local = self.hold(stream?)?;
                return Ok(format!("{local} {tid}"));
            }
            "send" => self.stream()?.write_all(&vec![0; argument.parse()?])?,
            "receive" => self.stream()?.read_exact(&mut vec![0; argument.parse()?])?,
            "await-eof" => {
                if self.stream()?.read(&mut [0])? != 0 {
                    bail!("there is data, not the end");
                }
            }
            "linger-0" => SockRef::from(&self.stream()?).set_linger(Some(Duration::ZERO))?,
            "close" => self.stream = None,
            "prepare-worker" => return self.prepare_worker(),
            "pass-to-worker" => return self.pass_to_worker(),
            "pid" => return Ok(getpid().to_string()),
            "fork" => return self.go_on_in_child(),
            "exit" => exit(0),
            _ => bail!("unknown order"),
        }
        Ok(String::new())
    }

    fn stream(&self) -> Result<&TcpStream> {
        self.stream.as_ref().context("not connected")
    }

    fn hold(&mut self, stream: TcpStream) -> Result<SocketAddr> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let local = stream.local_addr()?;
        self.stream = Some(stream);
        Ok(local)
    }

    fn connect(&mut self, to: SocketAddr) -> Result<String> {
        let stream = TcpStream::connect(to)?;
        Ok(self.hold(stream)?.to_string())
    }

    /// The child takes over, with all sockets; this process closes its own, so that the child closes last.
    fn go_on_in_child(&mut self) -> Result<String> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: this process has a single thread.
        match unsafe { fork() }? {
            ForkResult::Child => {
                nix::unistd::read(&theirs, &mut [0])?;
                Ok(getpid().to_string())
            }
            ForkResult::Parent { child } => {
                *self = Self::default();
                nix::unistd::write(&ours, b"x")?;
                wait_and_exit(child)
            }
        }
    }

    /// Forks a worker before there is a connection; it waits for one to be passed.
    fn prepare_worker(&mut self) -> Result<String> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: this process has a single thread.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop(ours);
                *self = Self::default();
                self.stream = Some(receive_stream(&theirs)?);
                nix::unistd::read(&theirs, &mut [0])?;
                // From here on it answers in its parent's place.
                Ok(getpid().to_string())
            }
            ForkResult::Parent { child } => {
                self.worker = Some((child, ours));
                Ok(child.to_string())
            }
        }
    }

    fn pass_to_worker(&mut self) -> Result<String> {
        let (worker, socket) = self.worker.take().context("no worker")?;
        let stream = self.stream.take().context("not connected")?;
        let descriptors = [stream.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None)?;
        drop(stream);
        // The worker goes on only now, so that it is the last to close.
        nix::unistd::write(&socket, b"x")?;
        wait_and_exit(worker)
    }
}

fn receive_stream(socket: &OwnedFd) -> Result<TcpStream> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let [descriptor] = descriptors[..]
        {
            // SAFETY: the kernel has just made this descriptor for us.
            return Ok(unsafe { TcpStream::from_raw_fd(descriptor) });
        }
    }
    bail!("no socket was passed")
}

fn wait_and_exit(child: Pid) -> ! {
    let _ = waitpid(child, None);
    exit(0)
}
