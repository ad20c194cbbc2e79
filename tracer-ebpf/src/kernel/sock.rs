//! `struct sock` and `struct tcp_sock`.

use core::marker::PhantomData;

use aya_ebpf::helpers::bpf_jiffies64;
use tracer_ebpf::{Address, MISSING};

use super::access::{Access, Direct, DirectTcp, Pointer};
use crate::maps::offset;

/// Families of addresses (`bits/socket.h`).
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

/// A field that the kernel lacks, or memory that cannot be read.
pub struct BadRead;

/// A TCP socket, read by `A`.
#[derive(Clone, Copy)]
pub struct Sock<A> {
    /// The kernel's `struct sock *`.
    pub pointer: Pointer,
    access: PhantomData<A>,
}

/// Both ends of a connection, IPv4 v4-mapped, ports in host order.
pub struct Ends {
    pub local: Address,
    pub remote: Address,
    pub local_port: u16,
    pub remote_port: u16,
}

impl<A: Access> Sock<A> {
    #[inline(always)]
    pub fn new(pointer: Pointer) -> Self {
        Self { pointer, access: PhantomData }
    }

    /// TCP state.
    #[inline(always)]
    pub fn state(self) -> Option<u8> {
        A::read(self.pointer, offset!(sk_state))
    }

    /// Addresses and ports; `None` for families other than IPv4 and IPv6.
    #[inline(always)]
    pub fn ends(self) -> Option<Ends> {
        let family: u16 = A::read(self.pointer, offset!(sk_family))?;
        let local_port = self.local_port()?;
        let remote_port = u16::from_be(A::read(self.pointer, offset!(sk_dport))?);
        let (local, remote) = match family {
            AF_INET => (
                v4_mapped(A::read(self.pointer, offset!(sk_rcv_saddr))?),
                v4_mapped(A::read(self.pointer, offset!(sk_daddr))?),
            ),
            AF_INET6 => (self.v6(offset!(sk_v6_rcv_saddr))?, self.v6(offset!(sk_v6_daddr))?),
            _ => return None,
        };
        Some(Ends { local, remote, local_port, remote_port })
    }

    /// A reset gives the local port back at once unless the application chose it, also where nobody has accepted yet.
    #[inline(always)]
    fn local_port(self) -> Option<u16> {
        let port: u16 = A::read(self.pointer, offset!(sk_num))?;
        if port != 0 {
            return Some(port);
        }
        Some(self.tcp().and_then(TcpSock::source_port).unwrap_or(0))
    }

    /// An IPv6 address, in two loads: the verifier allows no wider one.
    #[inline(always)]
    fn v6(self, offset: u32) -> Option<Address> {
        if offset == MISSING {
            return None;
        }
        let high: u64 = A::read(self.pointer, offset)?;
        let low: u64 = A::read(self.pointer, offset + 8)?;
        Some(join(high, low))
    }

    /// Remote port of a connected socket, 0 of another.
    #[inline(always)]
    pub fn remote_port(self) -> Option<u16> {
        A::read(self.pointer, offset!(sk_dport)).map(u16::from_be)
    }

    /// The port it is bound to, 0 if none.
    #[inline(always)]
    pub fn bound_port(self) -> Option<u16> {
        A::read(self.pointer, offset!(sk_num))
    }

    /// The cookie that the socket already has, 0 if none.
    #[inline(always)]
    pub fn cookie(self) -> Option<u64> {
        A::read(self.pointer, offset!(sk_cookie))
    }

    /// Whether any BPF program keeps something with the socket; `None` if that is unknown.
    #[inline(always)]
    pub fn has_storage(self) -> Option<bool> {
        A::read::<u64>(self.pointer, offset!(sk_storage)).map(|storage| storage != 0)
    }

    /// The socket's error, as a positive errno.
    #[inline(always)]
    pub fn error(self) -> Option<u32> {
        A::read::<i32>(self.pointer, offset!(sk_err)).map(i32::unsigned_abs)
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub fn netns(self) -> Option<u32> {
        let net: Pointer = A::read(self.pointer, offset!(sk_net))?;
        A::read(net, offset!(net_inum))
    }

    /// The connection over TCP that a socket of IPv4 or IPv6 is: itself, or the first subflow of Multipath TCP. `Ok(None)` for
    /// other protocols.
    ///
    /// # Errors
    /// If the kernel's fields cannot be read.
    #[inline(always)]
    pub fn over_tcp(self) -> Result<Option<Self>, BadRead> {
        if !self.is_ip().ok_or(BadRead)? {
            return Ok(None);
        }
        match A::read(self.pointer, offset!(sk_protocol)).ok_or(BadRead)? {
            IPPROTO_TCP => Ok(Some(self)),
            IPPROTO_MPTCP => {
                let first = A::read::<Pointer>(self.pointer, offset!(mptcp_first)).filter(|first| !first.is_null());
                first.map(Self::new).map(Some).ok_or(BadRead)
            }
            _ => Ok(None),
        }
    }

    /// Whether a socket of any family is a connection over TCP itself, rather than a Multipath TCP socket above some.
    #[inline(always)]
    pub fn is_tcp(self) -> Option<bool> {
        Some(self.is_ip()? && A::read::<u16>(self.pointer, offset!(sk_protocol))? == IPPROTO_TCP)
    }

    #[inline(always)]
    fn is_ip(self) -> Option<bool> {
        A::read::<u16>(self.pointer, offset!(sk_family)).map(|family| family == AF_INET || family == AF_INET6)
    }

    /// Whether it is a socket of IPv6, whatever it talks to.
    #[inline(always)]
    pub fn is_v6(self) -> Option<bool> {
        A::read::<u16>(self.pointer, offset!(sk_family)).map(|family| family == AF_INET6)
    }

    /// Whether the peer's FIN has arrived.
    #[inline(always)]
    pub fn peer_fin(self) -> Option<bool> {
        self.socket_flag(offset!(sock_done))
    }

    /// `SO_KEEPALIVE`.
    #[inline(always)]
    pub fn keepalive(self) -> Option<bool> {
        self.socket_flag(offset!(sock_keepopen))
    }

    /// A bit of `enum sock_flags`, by its number.
    #[inline(always)]
    fn socket_flag(self, bit: u32) -> Option<bool> {
        if bit == MISSING {
            return None;
        }
        let flags: u64 = A::read(self.pointer, offset!(sk_flags))?;
        Some(flags >> (bit & 63) & 1 == 1)
    }

    /// The TCP part.
    #[inline(always)]
    pub fn tcp(self) -> Option<TcpSock<A>> {
        Some(TcpSock { pointer: A::tcp_sock(self.pointer)?, access: PhantomData })
    }
}

impl Sock<Direct> {
    /// The same, if it is there, of TCP and a whole socket, for the arguments of tracepoints, before anything is read through them.
    ///
    /// Some of those are null, or the remains of a socket in `TIME_WAIT`, behind which other memory would be read. And some verifiers
    /// trust them, 6.12's for one: each time that a pointer is read through what it trusts, it goes through all of the kernel's types
    /// by name for what can be trusted behind it (`btf_nested_type_is_trusted`), which was a fifth of what it took until a trace of
    /// connections began. It does not trust what has been cast; a load through that costs a few instructions more.
    #[inline(always)]
    pub fn as_tcp(self) -> Option<Sock<DirectTcp>> {
        if self.pointer.is_null() {
            return None;
        }
        Direct::tcp_sock(self.pointer).map(Sock::new)
    }
}

/// The TCP part of a socket.
#[derive(Clone, Copy)]
pub struct TcpSock<A> {
    pointer: Pointer,
    access: PhantomData<A>,
}

impl<A: Access> TcpSock<A> {
    /// Local port as its packets carry it.
    #[inline(always)]
    fn source_port(self) -> Option<u16> {
        A::read(self.pointer, offset!(tcp_sport)).map(u16::from_be)
    }

    /// Ticks since the last payload was sent, or since the connection was established if none was.
    #[inline(always)]
    pub fn sent_idle(self) -> Option<u32> {
        A::read(self.pointer, offset!(tcp_lsndtime)).map(ticks_since)
    }

    /// Ticks since the last payload was received, likewise.
    #[inline(always)]
    pub fn received_idle(self) -> Option<u32> {
        A::read(self.pointer, offset!(tcp_lrcvtime)).map(ticks_since)
    }

    /// Ticks since the last segment with an acknowledgment arrived, a FIN included.
    #[inline(always)]
    pub fn ack_age(self) -> Option<u32> {
        A::read(self.pointer, offset!(tcp_rcv_tstamp)).map(ticks_since)
    }

    /// Payload bytes sent, each once.
    #[inline(always)]
    pub fn bytes_sent(self) -> Option<u64> {
        let sent: u64 = A::read(self.pointer, offset!(tcp_bytes_sent))?;
        let again: u64 = A::read(self.pointer, offset!(tcp_bytes_retrans))?;
        Some(sent.wrapping_sub(again))
    }

    /// Sequence space received in order: payload, and one more for the peer's FIN.
    #[inline(always)]
    pub fn sequence_received(self) -> Option<u64> {
        A::read(self.pointer, offset!(tcp_bytes_received))
    }

    /// Smoothed round trip in microseconds. The kernel keeps it in eighths.
    #[inline(always)]
    pub fn srtt_us(self) -> Option<u32> {
        A::read::<u32>(self.pointer, offset!(tcp_srtt_us)).map(|eighths| eighths >> 3)
    }

    /// Number of the next byte that the application hands over, modulo 2^32.
    #[inline(always)]
    pub fn write_seq(self) -> Option<u32> {
        A::read(self.pointer, offset!(tcp_write_seq))
    }

    /// Number of the next byte that the application takes, modulo 2^32.
    #[inline(always)]
    pub fn copied_seq(self) -> Option<u32> {
        A::read(self.pointer, offset!(tcp_copied_seq))
    }

    /// Number of the next byte that is to come from the network, modulo 2^32.
    #[inline(always)]
    pub fn rcv_nxt(self) -> Option<u32> {
        A::read(self.pointer, offset!(tcp_rcv_nxt))
    }

    /// Whether the application handed over data with the connect, to go with the SYN if the peer's cookie is known.
    #[inline(always)]
    pub fn is_fast_open(self) -> Option<bool> {
        let request: Pointer = A::read(self.pointer, offset!(tcp_fastopen_req))?;
        if request.is_null() {
            return Some(false);
        }
        A::read::<u64>(request, offset!(fastopen_size)).map(|size| size != 0)
    }

    /// Whether it is a subflow of a Multipath TCP connection.
    #[inline(always)]
    pub fn is_mptcp(self) -> Option<bool> {
        A::read::<u8>(self.pointer, offset!(tcp_is_mptcp)).map(|is| is != 0)
    }

    /// Whether an upper layer protocol, such as the kernel's own TLS, stands between the application and TCP.
    #[inline(always)]
    pub fn has_upper_layer_protocol(self) -> Option<bool> {
        A::read::<u64>(self.pointer, offset!(tcp_ulp_ops)).map(|operations| operations != 0)
    }

    /// Segments sent again, SYNs included.
    #[inline(always)]
    pub fn retransmits(self) -> Option<u32> {
        A::read(self.pointer, offset!(tcp_total_retrans))
    }
}

/// Kernel ticks from `then` to now, modulo 2^32 as TCP counts them.
#[inline(always)]
fn ticks_since(then: u32) -> u32 {
    // SAFETY: takes nothing, reads a counter.
    (unsafe { bpf_jiffies64() } as u32).wrapping_sub(then)
}

/// `::ffff:a.b.c.d`
#[inline(always)]
pub fn v4_mapped(address: u32) -> Address {
    // The upper half of the low word is the IPv4 address; memory order, so native conversions throughout.
    join(0, u64::from(0xffff_u16.to_be()) << MAPPED_MARK_SHIFT | u64::from(address) << MAPPED_ADDRESS_SHIFT)
}

#[cfg(target_endian = "little")]
const MAPPED_MARK_SHIFT: u32 = 16;
#[cfg(target_endian = "little")]
const MAPPED_ADDRESS_SHIFT: u32 = 32;
#[cfg(target_endian = "big")]
const MAPPED_MARK_SHIFT: u32 = 32;
#[cfg(target_endian = "big")]
const MAPPED_ADDRESS_SHIFT: u32 = 0;

/// Whether an address is an IPv4 one in IPv6's clothes.
#[inline(always)]
pub fn is_v4_mapped(address: &Address) -> bool {
    // SAFETY: same size, every bit pattern is valid.
    let words: [u32; 4] = unsafe { core::mem::transmute(*address) };
    words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be()
}

/// Two words as they stand in memory.
#[inline(always)]
pub fn join(first: u64, second: u64) -> Address {
    // SAFETY: same size, every bit pattern is valid.
    unsafe { core::mem::transmute([first, second]) }
}

/// An address as two words, for comparisons: BPF has no function to compare bytes by.
#[inline(always)]
pub fn words(address: Address) -> [u64; 2] {
    // SAFETY: same size, every bit pattern is valid.
    unsafe { core::mem::transmute(address) }
}
