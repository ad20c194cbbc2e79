//! The kernel's list of TCP sockets in the network namespace of the calling thread, asked for over netlink.

use std::{io, net::SocketAddr};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, Timer, nlas::Nla},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

/// The kernel fills at most 32 KiB at a time.
const BUFFER_LEN: usize = 64 << 10;

/// A socket as the kernel lists it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Socket cookie.
    pub cookie: u64,
    /// Inode number, by which `/proc/PID/fd` names it; 0 if no process holds it.
    pub inode: u32,
    /// TCP state.
    pub state: u8,
    /// Local end; v4-mapped addresses as IPv4.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// The timer that runs is the keepalive timer.
    pub keepalive_timer: bool,
    /// The bytes of `struct tcp_info`; empty if the kernel sent none.
    pub tcp_info: Vec<u8>,
}

/// Hands every TCP socket, IPv4 and IPv6, to `each`; returns how many messages could not be understood.
///
/// # Errors
/// If the kernel refuses or does not know sock_diag.
pub fn list(mut each: impl FnMut(Listed)) -> Result<u64> {
    let mut damaged = list_family(AF_INET, SocketId::new_v4(), &mut each)?;
    damaged += list_family(AF_INET6, SocketId::new_v6(), &mut each)?;
    Ok(damaged)
}

fn list_family(family: u8, socket_id: SocketId, each: &mut impl FnMut(Listed)) -> Result<u64> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).context("cannot open a sock_diag socket")?;
    socket.bind_auto().context("cannot bind the sock_diag socket")?;
    socket.connect(&NetlinkAddr::new(0, 0)).context("cannot connect to sock_diag")?;
    socket.send(&request(family, socket_id), 0).context("cannot ask sock_diag for sockets")?;
    let mut buffer = vec![0; BUFFER_LEN];
    let mut damaged = 0;
    loop {
        let len = match socket.recv(&mut &mut buffer[..], 0) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot read sock_diag's answer"),
        };
        let bytes = buffer.get(..len).unwrap_or(&buffer);
        if read_datagram(bytes, each, &mut damaged)? == Progress::Done {
            return Ok(damaged);
        }
    }
}

fn request(family: u8, socket_id: SocketId) -> Vec<u8> {
    let states = StateFlags::all() - StateFlags::TIME_WAIT - StateFlags::CLOSE - StateFlags::SYN_RECV;
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::INFO, states, socket_id };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[derive(PartialEq, Eq)]
enum Progress {
    More,
    Done,
}

/// Reads the messages of one datagram. A message that is not understood is counted and passed over.
fn read_datagram(mut bytes: &[u8], each: &mut impl FnMut(Listed), damaged: &mut u64) -> Result<Progress> {
    while let Ok(head) = NetlinkBuffer::new_checked(bytes) {
        // Messages are padded to 4 bytes; a length of 0 would never end.
        let len = (head.length() as usize).max(4).next_multiple_of(4);
        match NetlinkMessage::<SockDiagMessage>::deserialize(bytes).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response))) => each(listed(*response)),
            Ok(NetlinkPayload::Done(_)) => return Ok(Progress::Done),
            Ok(NetlinkPayload::Error(error)) if error.code.is_some() => {
                return Err(error.to_io())
                    .context("sock_diag does not answer (is the kernel module tcp_diag missing?)");
            }
            Ok(NetlinkPayload::Overrun(_)) => bail!("sock_diag lost part of its answer"),
            Ok(_) => {}
            Err(_) => *damaged += 1,
        }
        bytes = bytes.get(len..).unwrap_or_default();
    }
    Ok(Progress::More)
}

fn listed(response: InetResponse) -> Listed {
    let id = response.header.socket_id;
    let tcp_info = response.nlas.into_iter().find_map(|attribute| match attribute {
        Nla::TcpInfo(bytes) => Some(bytes),
        _ => None,
    });
    Listed {
        cookie: u64::from_ne_bytes(id.cookie),
        inode: response.header.inode,
        state: response.header.state,
        local: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
        remote: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
        keepalive_timer: matches!(response.header.timer, Some(Timer::KeepAlive(_))),
        tcp_info: tcp_info.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_go_on_for_ever(bytes: Vec<u8>, kind in 0u16..24, len in 0u32..200) {
            let mut message = len.to_ne_bytes().to_vec();
            message.extend(kind.to_ne_bytes());
            message.extend(&bytes);
            let _ = read_datagram(&message, &mut |_| {}, &mut 0);
            let _ = read_datagram(&bytes, &mut |_| {}, &mut 0);
        }
    }
}
