//! Numbers, times and addresses as text, by integer arithmetic alone: these are most of what an output line holds, and
//! `core::fmt` would cost more than all the rest.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;

use crate::track::record::{Nanos, WallTime};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// Three digits, and a length in bytes.
type Triple = [u8; 4];

/// Every number below 1000 with leading zeros, and its length without trailing zeros.
static PADDED: [Triple; 1000] = {
    let mut triples = [[0; 4]; 1000];
    let mut number = 0;
    while number < 1000 {
        let [a, b, c] = [number / 100, number / 10 % 10, number % 10];
        let length = if c != 0 {
            3
        } else if b != 0 {
            2
        } else if a != 0 {
            1
        } else {
            0
        };
        triples[number] = [b'0' + a as u8, b'0' + b as u8, b'0' + c as u8, length];
        number += 1;
    }
    triples
};

/// Every number below 1000 without leading zeros, and its length.
static PLAIN: [Triple; 1000] = {
    let mut triples = [[0; 4]; 1000];
    let mut number = 0;
    while number < 1000 {
        let [a, b, c, _] = PADDED[number];
        triples[number] = match number {
            0..10 => [c, 0, 0, 1],
            10..100 => [b, c, 0, 2],
            _ => [a, b, c, 3],
        };
        number += 1;
    }
    triples
};

fn padded(number: u64) -> Triple {
    PADDED[(number % 1000) as usize]
}

fn plain(number: u64) -> Triple {
    PLAIN[(number % 1000) as usize]
}

/// Appends the first so many of these bytes. Copying all and cutting is cheaper than a copy of variable length.
fn put<const N: usize>(bytes: [u8; N], length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&bytes);
    out.truncate(out.len() - N.saturating_sub(length));
}

/// Decimal digits.
pub fn decimal(number: impl Into<u64>, out: &mut Vec<u8>) {
    let number = number.into();
    if number < 1000 {
        let [a, b, c, length] = plain(number);
        put([a, b, c], length.into(), out);
    } else if number < 1_000_000 {
        let [a, b, c, length] = plain(number / 1000);
        put([a, b, c], length.into(), out);
        let [d, e, f, _] = padded(number);
        out.extend_from_slice(&[d, e, f]);
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }
}

/// Lower-case hexadecimal digits, no leading zeros.
pub fn hex(number: u64, out: &mut Vec<u8>) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(number >> (4 * place) & 0xf) as usize]);
    }
}

/// A duration in milliseconds, exact to the nanosecond: `12.345678`, without trailing zeros.
pub fn milliseconds(duration: Nanos, out: &mut Vec<u8>) {
    decimal(duration / 1_000_000, out);
    let fraction = duration % 1_000_000;
    if fraction == 0 {
        return;
    }
    let [a, b, c, short] = padded(fraction / 1000);
    let [d, e, f, long] = padded(fraction);
    let digits = if long == 0 { short } else { 3 + long };
    put([b'.', a, b, c, d, e, f], 1 + usize::from(digits), out);
}

/// `ip:port` or `[ip]:port`.
pub fn address(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            let mut text = [0; 16];
            let mut end = 0;
            for (octet, after) in ip.octets().into_iter().zip(*b"...:") {
                let [a, b, c, length] = plain(octet.into());
                text[end..end + 3].copy_from_slice(&[a, b, c]);
                end += usize::from(length);
                text[end] = after;
                end += 1;
            }
            put(text, end, out);
            decimal(address.port(), out);
        }
        IpAddr::V6(_) => {
            use std::io::Write;
            // Writing to a vector cannot fail; zones and flow labels are never set.
            let _ = write!(out, "{address}");
        }
    }
}

/// Writes RFC 3339 times in UTC, remembering the second it last wrote: the calendar is the dear part.
#[derive(Debug)]
pub struct Times {
    second: u64,
    /// `2026-11-21T03:14:33.`
    prefix: [u8; 20],
}

impl Default for Times {
    fn default() -> Self {
        Self { second: 0, prefix: prefix_of(0) }
    }
}

impl Times {
    /// `2026-11-21T03:14:33.123456789Z`
    pub fn rfc3339(&mut self, time: WallTime, out: &mut Vec<u8>) {
        let (second, nanos) = (time.0 / NANOS_PER_SECOND, time.0 % NANOS_PER_SECOND);
        if second != self.second {
            self.change_to(second);
        }
        out.extend_from_slice(&self.prefix);
        let [a, b, c, _] = padded(nanos / 1_000_000);
        let [d, e, f, _] = padded(nanos / 1_000);
        let [g, h, i, _] = padded(nanos);
        out.extend_from_slice(&[a, b, c, d, e, f, g, h, i, b'Z']);
    }

    fn change_to(&mut self, second: u64) {
        if second / SECONDS_PER_DAY == self.second / SECONDS_PER_DAY {
            self.prefix[11..19].copy_from_slice(&clock(second % SECONDS_PER_DAY));
        } else {
            self.prefix = prefix_of(second);
        }
        self.second = second;
    }
}

/// `03:14:33` for a second of the day.
pub fn clock(second: u64) -> [u8; 8] {
    let [hour, minute, second] = [second / 3600, second / 60 % 60, second % 60].map(padded);
    [hour[1], hour[2], b':', minute[1], minute[2], b':', second[1], second[2]]
}

fn prefix_of(second: u64) -> [u8; 20] {
    let mut prefix = *b"1970-01-01T00:00:00.";
    // u64 nanoseconds end in the year 2554, well within the calendar.
    let time = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
    let date = time.unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y-%m-%d").to_string();
    for (place, digit) in prefix.iter_mut().zip(date.bytes()) {
        *place = digit;
    }
    prefix[11..19].copy_from_slice(&clock(second % SECONDS_PER_DAY));
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn milliseconds_are_exact_and_short() {
        let ms = |duration| written(|out| milliseconds(duration, out));
        assert_eq!(ms(0), "0");
        assert_eq!(ms(1), "0.000001");
        assert_eq!(ms(12_345_678), "12.345678");
        assert_eq!(ms(12_300_000), "12.3");
        assert_eq!(ms(5_000_000_000), "5000");
        assert_eq!(ms(u64::MAX), "18446744073709.551615");
    }

    proptest! {
        #[test]
        fn times_agree_with_the_calendar(nanos in any::<u64>(), earlier in any::<u64>()) {
            let mut times = Times::default();
            times.rfc3339(WallTime(earlier), &mut Vec::new());
            let expected = Timestamp::from_nanosecond(i128::from(nanos)).expect("in range");
            prop_assert_eq!(written(|out| times.rfc3339(WallTime(nanos), out)), format!("{expected:.9}"));
        }

        #[test]
        fn addresses_agree_with_the_standard_library(ip in any::<IpAddr>(), port in any::<u16>()) {
            let end = SocketAddr::new(ip, port);
            prop_assert_eq!(written(|out| address(end, out)), end.to_string());
        }

        #[test]
        fn hex_agrees_with_the_standard_library(number in any::<u64>()) {
            prop_assert_eq!(written(|out| hex(number, out)), format!("{number:x}"));
        }
    }
}
