//! Numbers, times and addresses as text, by integer arithmetic alone: these are most of what an output line holds, and
//! `core::fmt` would cost more than all the rest.

use std::net::{Ipv4Addr, SocketAddr};

use jiff::Timestamp;

use super::line::Put;
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

/// Every octet with a dot after it, and the length of both last.
static OCTETS: [[u8; 8]; 256] = {
    let mut octets = [[0; 8]; 256];
    let mut number = 0;
    while number < 256 {
        let [a, b, c, length] = PLAIN[number];
        octets[number] = match length {
            1 => [a, b'.', 0, 0, 0, 0, 0, 2],
            2 => [a, b, b'.', 0, 0, 0, 0, 3],
            _ => [a, b, c, b'.', 0, 0, 0, 4],
        };
        number += 1;
    }
    octets
};

#[inline]
fn padded(number: u64) -> Triple {
    PADDED[(number % 1000) as usize]
}

#[inline]
fn plain(number: u64) -> Triple {
    PLAIN[(number % 1000) as usize]
}

/// Decimal digits.
#[inline(always)]
pub fn decimal(number: impl Into<u64>, out: &mut impl Put) {
    let number = number.into();
    if number < 1000 {
        let digits = plain(number);
        out.put(&digits, digits[3].into());
    } else if number < 1_000_000 {
        let digits = plain(number / 1000);
        out.put(&digits, digits[3].into());
        out.put(&padded(number), 3);
    } else {
        long_decimal(number, out);
    }
}

fn long_decimal(number: u64, out: &mut impl Put) {
    out.word(itoa::Buffer::new().format(number).as_bytes());
}

/// Lower-case hexadecimal digits, no leading zeros.
pub fn hex(number: u64, out: &mut impl Put) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    let mut text = [0; 16];
    let mut rest = number << ((16 - digits) * 4);
    for place in &mut text[..digits as usize] {
        *place = b"0123456789abcdef"[(rest >> 60) as usize];
        rest <<= 4;
    }
    out.put(&text, digits as usize);
}

/// A duration in milliseconds, exact to the nanosecond: `12.345678`, without trailing zeros.
#[inline]
pub fn milliseconds(duration: Nanos, out: &mut impl Put) {
    decimal(duration / 1_000_000, out);
    let fraction = duration % 1_000_000;
    if fraction == 0 {
        return;
    }
    let [a, b, c, short] = padded(fraction / 1000);
    let [d, e, f, long] = padded(fraction);
    let digits = if long == 0 { short } else { 3 + long };
    out.put(&[b'.', a, b, c, d, e, f, 0], 1 + usize::from(digits));
}

/// Writes addresses, remembering the last IPv4 host: one end mostly has few.
#[derive(Debug, Default)]
pub struct Ends {
    host: Option<Ipv4Addr>,
    /// `127.0.0.1:`
    text: [u8; 16],
    length: usize,
}

impl Ends {
    /// `ip:port` or `[ip]:port`.
    #[inline]
    pub fn write(&mut self, address: SocketAddr, out: &mut impl Put) {
        match address {
            SocketAddr::V4(address) => {
                if self.host != Some(*address.ip()) {
                    self.change_to(*address.ip());
                }
                out.put(&self.text, self.length);
                decimal(address.port(), out);
            }
            SocketAddr::V6(address) => {
                use std::io::Write;
                let mut text = [0; 64];
                let mut rest = text.as_mut_slice();
                // The longest address has 58 characters.
                let _ = write!(rest, "{address}");
                let length = 64 - rest.len();
                out.put(&text, length);
            }
        }
    }

    fn change_to(&mut self, host: Ipv4Addr) {
        let mut text = [0; 24];
        let mut length = 0;
        for octet in host.octets() {
            let octet = &OCTETS[usize::from(octet)];
            text[length..length + 8].copy_from_slice(octet);
            length += usize::from(octet[7]);
        }
        text[length - 1] = b':';
        self.text.copy_from_slice(&text[..16]);
        (self.host, self.length) = (Some(host), length);
    }
}

/// A time in quotes: `"2026-11-21T03:14:33.123456789Z"`.
pub type Quoted = [u8; 32];

/// Makes RFC 3339 times in UTC, remembering the second of the last one: the calendar is the dear part.
#[derive(Debug)]
pub struct Times {
    /// When the second began, nanoseconds.
    second_at: u64,
    text: Quoted,
}

impl Default for Times {
    fn default() -> Self {
        let mut text = *br#""1970-01-01T00:00:00.000000000Z""#;
        text[1..20].copy_from_slice(&date_and_clock(0));
        Self { second_at: 0, text }
    }
}

impl Times {
    /// The text of a time.
    #[inline]
    pub fn quoted(&mut self, time: WallTime) -> &Quoted {
        let mut nanos = time.0.wrapping_sub(self.second_at);
        if nanos >= NANOS_PER_SECOND {
            nanos = self.change_to(time.0);
        }
        let ([a, b, c, _], [d, e, f, _]) = (padded(nanos / 1_000_000), padded(nanos / 1_000));
        let [g, h, i, _] = padded(nanos);
        self.text[21..29].copy_from_slice(&[a, b, c, d, e, f, g, h]);
        self.text[29] = i;
        &self.text
    }

    /// Takes up the second of a time. Returns the nanoseconds since.
    #[cold]
    fn change_to(&mut self, time: u64) -> u64 {
        let (second, nanos) = (time / NANOS_PER_SECOND, time % NANOS_PER_SECOND);
        if second / SECONDS_PER_DAY == self.second_at / NANOS_PER_SECOND / SECONDS_PER_DAY {
            self.text[12..20].copy_from_slice(&clock(second % SECONDS_PER_DAY));
        } else {
            self.text[1..20].copy_from_slice(&date_and_clock(second));
        }
        self.second_at = time - nanos;
        nanos
    }
}

/// `03:14:33` for a second of the day.
pub fn clock(second: u64) -> [u8; 8] {
    let [hour, minute, second] = [second / 3600, second / 60 % 60, second % 60].map(padded);
    [hour[1], hour[2], b':', minute[1], minute[2], b':', second[1], second[2]]
}

fn date_and_clock(second: u64) -> [u8; 19] {
    let mut prefix = *b"1970-01-01T00:00:00";
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
    use std::net::IpAddr;

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
            times.quoted(WallTime(earlier));
            let expected = Timestamp::from_nanosecond(i128::from(nanos)).expect("in range");
            let text = String::from_utf8(times.quoted(WallTime(nanos)).to_vec()).expect("ASCII");
            prop_assert_eq!(text, format!("\"{expected:.9}\""));
        }

        #[test]
        fn addresses_agree_with_the_standard_library(ips in any::<[IpAddr; 3]>(), port in any::<u16>()) {
            let mut ends = Ends::default();
            for ip in ips.into_iter().flat_map(|ip| [ip, ip]) {
                let end = SocketAddr::new(ip, port);
                prop_assert_eq!(written(|out| ends.write(end, out)), end.to_string());
            }
        }

        #[test]
        fn hex_agrees_with_the_standard_library(number in any::<u64>()) {
            prop_assert_eq!(written(|out| hex(number, out)), format!("{number:x}"));
        }
    }
}
