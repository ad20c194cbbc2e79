//! Calls of `getaddrinfo` to facts: what was looked up, and what came of it.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use tracer_ebpf::getaddrinfo::{ADDRESSES, GetAddrInfoRecord};

/// Longest name, in bytes, without a dot at its end (RFC 1035).
const NAME_MAX: usize = 253;

/// Families that can be asked for.
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// What `getaddrinfo` returns for calls that are wrong, before it looks anything up: `EAI_BADFLAGS`, `EAI_FAMILY`, `EAI_SOCKTYPE` and
/// `EAI_SERVICE`.
const WRONG_CALLS: [i32; 4] = [-1, -6, -7, -8];

/// A name that a traced process has looked up by `getaddrinfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// When the call began, boot clock.
    pub began_at: u64,
    /// When it returned.
    pub at: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Start of the process on the boot clock; 0 if unknown.
    pub process_started_at: u64,
    /// Name of the process.
    pub comm: String,
    /// The name, in lower case, without the dot at the end.
    pub name: String,
    /// `A` or `AAAA` if addresses of one family were asked for.
    pub record_type: Option<String>,
    /// `NOERROR`, or the name of the error.
    pub outcome: String,
    /// The addresses of the answer's first entries, each once.
    pub addresses: Vec<IpAddr>,
}

/// What a call looked up. `None` if it was nothing: what was asked for was an address already, or cannot be a name.
pub fn resolved(record: &GetAddrInfoRecord) -> Option<Resolved> {
    let name = name(until_zero(&record.name))?;
    if WRONG_CALLS.contains(&record.result) {
        return None;
    }
    let record_type = match record.family {
        AF_INET => Some("A"),
        AF_INET6 => Some("AAAA"),
        _ => None,
    };
    Some(Resolved {
        began_at: record.began_at,
        at: record.at,
        pid: record.tgid,
        tid: record.tid,
        process_started_at: record.process_started_at,
        comm: String::from_utf8_lossy(until_zero(&record.comm)).into_owned(),
        name,
        record_type: record_type.map(str::to_owned),
        outcome: outcome(record.result),
        addresses: addresses(record),
    })
}

/// The addresses, each once, in the order of the answer.
fn addresses(record: &GetAddrInfoRecord) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for octets in record.addresses.iter().take((record.count as usize).min(ADDRESSES)) {
        let address = Ipv6Addr::from_octets(*octets);
        if !address.is_unspecified() && !addresses.contains(&address.to_canonical()) {
            addresses.push(address.to_canonical());
        }
    }
    addresses
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A name as the messages of DNS have it: in lower case, without the dot at the end, unusual bytes escaped.
fn name(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
    if bytes.is_empty() || bytes.len() > NAME_MAX || is_address(bytes) {
        return None;
    }
    let mut name = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'!'..=b'~' => name.push(byte.to_ascii_lowercase().into()),
            _ => name.push_str(&format!("\\{byte:03}")),
        }
    }
    Some(name)
}

/// Whether it is the text of an address: of IPv6, with or without a zone, or of IPv4 in any form that `inet_aton` takes, such as
/// `127.1`. No name ends in a number.
fn is_address(bytes: &[u8]) -> bool {
    let last = bytes.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    let is_number = match last {
        [b'0', b'x' | b'X', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
        digits => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
    };
    is_number || bytes.contains(&b':')
}

/// The word for what `getaddrinfo` returned (`netdb.h`).
fn outcome(result: i32) -> String {
    const NAMES: [(i32, &str); 9] = [
        (0, "NOERROR"),
        (-2, "EAI_NONAME"),
        (-3, "EAI_AGAIN"),
        (-4, "EAI_FAIL"),
        (-5, "EAI_NODATA"),
        (-9, "EAI_ADDRFAMILY"),
        (-10, "EAI_MEMORY"),
        (-11, "EAI_SYSTEM"),
        (-12, "EAI_OVERFLOW"),
    ];
    let known = NAMES.iter().find(|(number, _)| *number == result);
    known.map_or_else(|| format!("EAI{result}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracer_ebpf::getaddrinfo::NAME_LEN;
    use zerocopy::FromZeros;

    use super::*;

    fn call(name: &[u8], result: i32) -> GetAddrInfoRecord {
        let mut record = GetAddrInfoRecord { result, at: 7, began_at: 5, ..GetAddrInfoRecord::new_zeroed() };
        // Behind the name is what another event left there.
        record.name.fill(b'x');
        record.name[..name.len()].copy_from_slice(name);
        record.name[name.len()] = 0;
        record
    }

    #[test]
    fn a_call_is_told_with_its_name_and_the_valid_addresses() {
        let mut record = call(b"DB.Example.org.", 0);
        record.comm[..3].copy_from_slice(b"app");
        record.addresses = [[9; 16]; ADDRESSES];
        let first = std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets();
        // Entries for several kinds of sockets, and one of a family that is not known.
        record.addresses[..4].copy_from_slice(&[first, first, [0; 16], first]);
        record.count = 5;
        record.family = AF_INET;
        let told = resolved(&record).expect("a name");
        assert_eq!(
            (told.name.as_str(), told.comm.as_str(), told.outcome.as_str()),
            ("db.example.org", "app", "NOERROR")
        );
        assert_eq!(told.record_type.as_deref(), Some("A"));
        assert_eq!(
            told.addresses,
            ["10.0.0.1".parse::<IpAddr>(), "909:909:909:909:909:909:909:909".parse()].map(Result::unwrap)
        );
    }

    #[test]
    fn what_is_an_address_or_cannot_be_a_name_is_no_lookup() {
        let long = [b'a'; NAME_MAX + 1];
        let addresses: [&[u8]; 9] = [
            b"10.0.0.1",
            b"127.1",
            b"2130706433",
            b"0x7f.1",
            b"127.0.0.0x1",
            b"::1",
            b"fe80::1%eth0",
            b"10.0.0.1.",
            &long,
        ];
        for text in addresses.into_iter().chain([&b""[..], b"."]) {
            assert_eq!(resolved(&call(text, 0)), None, "{}", String::from_utf8_lossy(text));
        }
        for text in [&b"localhost"[..], b"1password.com", b"0xcafe.example", b"a.0xg", &long[1..]] {
            assert!(resolved(&call(text, 0)).is_some(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn errors_go_by_their_names_and_wrong_calls_are_no_lookups() {
        let outcomes = [-2, -3, -11, -104, 3].map(|result| resolved(&call(b"a", result)).map(|told| told.outcome));
        let expected = ["EAI_NONAME", "EAI_AGAIN", "EAI_SYSTEM", "EAI-104", "EAI3"];
        assert_eq!(outcomes, expected.map(|word| Some(word.to_owned())));
        assert!(WRONG_CALLS.iter().all(|result| resolved(&call(b"a", *result)).is_none()));
    }

    #[test]
    fn unusual_bytes_are_escaped() {
        let told = resolved(&call(b"a b\x1b\xff", 0)).expect("a name");
        assert_eq!(told.name, "a\\032b\\027\\255");
    }

    proptest! {
        #[test]
        fn any_record_is_told_or_left_out(name in prop::collection::vec(any::<u8>(), NAME_LEN), result: i32, count: u32, family: u32) {
            let mut record = GetAddrInfoRecord { result, count, family, ..GetAddrInfoRecord::new_zeroed() };
            record.name.copy_from_slice(&name);
            if let Some(told) = resolved(&record) {
                prop_assert!(told.addresses.len() <= ADDRESSES && told.name.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
