//! `struct tcp_info` as sock_diag sends it: fields at fixed offsets, with more appended from kernel to kernel
//! (`include/uapi/linux/tcp.h`). A field beyond what the kernel sent is `None`.

use tracer_ebpf::tcp_state;

const NANOS_A_MICRO: u64 = 1_000;
const NANOS_A_MILLI: u64 = 1_000_000;

/// Offsets in bytes; the userspace API never moves them.
mod at {
    pub const LAST_DATA_SENT: usize = 44;
    pub const LAST_DATA_RECV: usize = 52;
    pub const RTT: usize = 68;
    pub const TOTAL_RETRANS: usize = 100;
    pub const BYTES_RECEIVED: usize = 128;
    pub const BYTES_SENT: usize = 200;
    pub const BYTES_RETRANS: usize = 208;
}

/// The bytes of a `tcp_info`, however many there are.
#[derive(Clone, Copy, Debug)]
pub struct TcpInfo<'a>(pub &'a [u8]);

impl TcpInfo<'_> {
    /// Payload bytes sent, each counted once.
    pub fn bytes_sent(self) -> Option<u64> {
        // Both counters are read without a lock, so the second may be ahead for a moment.
        Some(self.u64(at::BYTES_SENT)?.saturating_sub(self.u64(at::BYTES_RETRANS)?))
    }

    /// Payload bytes received. The kernel counts sequence numbers, of which the peer's FIN takes one.
    pub fn bytes_received(self, state: u8) -> Option<u64> {
        let fin_arrived =
            matches!(state, tcp_state::CLOSE_WAIT | tcp_state::LAST_ACK | tcp_state::CLOSING | tcp_state::TIME_WAIT);
        Some(self.u64(at::BYTES_RECEIVED)?.saturating_sub(u64::from(fin_arrived)))
    }

    /// Segments sent again.
    pub fn retransmits(self) -> Option<u32> {
        self.u32(at::TOTAL_RETRANS)
    }

    /// Smoothed round trip in nanoseconds; `None` if none was measured yet.
    pub fn srtt(self) -> Option<u64> {
        let micros = self.u32(at::RTT).filter(|micros| *micros != 0)?;
        Some(u64::from(micros) * NANOS_A_MICRO)
    }

    /// Nanoseconds since payload was last sent; `None` if none ever was: the kernel then counts from somewhere else.
    pub fn sent_idle(self) -> Option<u64> {
        self.bytes_sent().filter(|bytes| *bytes > 0)?;
        self.millis(at::LAST_DATA_SENT)
    }

    /// Nanoseconds since payload was last received; `None` if none ever was.
    pub fn received_idle(self, state: u8) -> Option<u64> {
        self.bytes_received(state).filter(|bytes| *bytes > 0)?;
        self.millis(at::LAST_DATA_RECV)
    }

    fn millis(self, at: usize) -> Option<u64> {
        Some(u64::from(self.u32(at)?) * NANOS_A_MILLI)
    }

    fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
    }

    fn u64(self, at: usize) -> Option<u64> {
        Some(u64::from_ne_bytes(self.0.get(at..at + 8)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Vec<u8> {
        let mut bytes = vec![0; 300];
        for (at, value) in [
            (at::LAST_DATA_SENT, 5u64),
            (at::LAST_DATA_RECV, 7),
            (at::RTT, 250),
            (at::TOTAL_RETRANS, 3),
            (at::BYTES_RECEIVED, 101),
            (at::BYTES_SENT, 1000),
            (at::BYTES_RETRANS, 400),
        ] {
            bytes[at..at + 4].copy_from_slice(&(value as u32).to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn counters_are_payload_bytes_and_nanoseconds() {
        let bytes = filled();
        let info = TcpInfo(&bytes);
        assert_eq!(info.bytes_sent(), Some(600));
        assert_eq!(info.bytes_received(tcp_state::ESTABLISHED), Some(101));
        assert_eq!(info.bytes_received(tcp_state::CLOSE_WAIT), Some(100), "the FIN is no payload");
        assert_eq!(info.retransmits(), Some(3));
        assert_eq!(info.srtt(), Some(250_000));
        assert_eq!(info.sent_idle(), Some(5_000_000));
        assert_eq!(info.received_idle(tcp_state::ESTABLISHED), Some(7_000_000));
    }

    #[test]
    fn a_shorter_struct_leaves_its_last_fields_unknown() {
        let bytes = filled();
        for len in 0..bytes.len() {
            let info = TcpInfo(&bytes[..len]);
            assert_eq!(info.bytes_sent().is_some(), len >= at::BYTES_RETRANS + 8, "{len} bytes");
            assert_eq!(info.retransmits().is_some(), len >= at::TOTAL_RETRANS + 4, "{len} bytes");
        }
    }

    #[test]
    fn idle_time_is_unknown_where_no_payload_went() {
        let info = TcpInfo(&[0; 300]);
        assert_eq!((info.sent_idle(), info.received_idle(tcp_state::ESTABLISHED)), (None, None));
    }
}
