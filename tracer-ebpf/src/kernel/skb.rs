//! `struct sk_buff`: a packet.

use super::{
    access::{Access, Pointer, Probe},
    msg::read,
};
use crate::maps::offset;

/// The port that a datagram came from; its header is still in one piece where it is received.
#[inline(always)]
pub fn source_port(skb: Pointer) -> Option<u16> {
    let head: Pointer = Probe::read(skb, offset!(skb_head))?;
    let header: u16 = Probe::read(skb, offset!(skb_transport_header))?;
    read(head, usize::from(header)).map(u16::from_be)
}
