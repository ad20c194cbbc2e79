//! From what the user typed to the read-only settings of the BPF side.

use std::{net::IpAddr, str::FromStr};

use tracer_ebpf::{COMM_LEN, Cidr, Config, MAX_PORTS, MAX_REMOTES};

/// A network as typed after `--remote`: an address, or an address and a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    prefix: u32,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("'{address}' is no IP address; write 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32"))?;
        let (bits, address) = match address {
            IpAddr::V4(v4) => (32, v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => (128, v6),
        };
        let prefix = match prefix {
            None => bits,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|length| *length <= bits)
                .ok_or_else(|| format!("'{prefix}' is no prefix length from 0 to {bits}"))?,
        };
        // IPv4 lives in the last 32 bits, v4-mapped.
        Ok(Self { address: address.to_bits(), prefix: prefix + (128 - bits) })
    }
}

impl Network {
    /// The form that the kernel side compares, in memory order.
    pub fn cidr(self) -> Cidr {
        let mask = if self.prefix == 0 { 0 } else { u128::MAX << (128 - self.prefix) };
        Cidr { network: words(self.address & mask), mask: words(mask) }
    }
}

fn words(bits: u128) -> [u32; 4] {
    zerocopy::transmute!(bits.to_be_bytes())
}

/// Puts ports into the settings.
///
/// # Errors
/// If there are more than [`MAX_PORTS`].
pub fn set_ports(config: &mut Config, ports: &[u16]) -> Result<(), String> {
    if ports.len() > MAX_PORTS {
        return Err(format!("{} --port values given, at most {MAX_PORTS} are possible", ports.len()));
    }
    config.ports[..ports.len()].copy_from_slice(ports);
    config.port_count = ports.len() as u32;
    Ok(())
}

/// Puts remote networks into the settings.
///
/// # Errors
/// If there are more than [`MAX_REMOTES`].
pub fn set_remotes(config: &mut Config, remotes: &[Network]) -> Result<(), String> {
    if remotes.len() > MAX_REMOTES {
        return Err(format!("{} --remote values given, at most {MAX_REMOTES} are possible", remotes.len()));
    }
    for (slot, network) in config.remotes.iter_mut().zip(remotes) {
        *slot = network.cidr();
    }
    config.remote_count = remotes.len() as u32;
    Ok(())
}

/// A process name as the kernel keeps it: cut to 15 bytes, zero padded.
pub fn comm(name: &str) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    for (slot, byte) in comm.iter_mut().take(COMM_LEN - 1).zip(name.bytes()) {
        *slot = byte;
    }
    comm
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        let cidr = network.parse::<Network>().unwrap().cidr();
        let address = match address.parse().unwrap() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let address = words(address.to_bits());
        (0..4).all(|word| address[word] & cidr.mask[word] == cidr.network[word])
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("192.0.2.1", "192.0.2.1"));
        assert!(!contains("192.0.2.1", "192.0.2.2"));
        assert!(contains("2001:db8::/32", "2001:db8::5"));
        assert!(!contains("2001:db8::/32", "2001:db9::5"));
        assert!(contains("::/0", "10.0.0.1"));
        assert!(contains("0.0.0.0/0", "10.0.0.1"));
        assert!(!contains("0.0.0.0/0", "2001:db8::5"));
    }

    #[test]
    fn a_wrong_network_is_refused_with_the_reason() {
        assert!("10.0.0.0/33".parse::<Network>().unwrap_err().contains("0 to 32"));
        assert!("example.org".parse::<Network>().unwrap_err().contains("no IP address"));
        assert!("10.0.0.0/-1".parse::<Network>().is_err());
    }

    #[test]
    fn a_long_process_name_is_cut_as_the_kernel_cuts_it() {
        assert_eq!(&comm("a-process-with-a-long-name"), b"a-process-with-\0");
    }
}
