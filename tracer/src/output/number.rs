//! Numbers, times and addresses as text, by integer arithmetic alone: these are most of what an output line holds, and
//! `core::fmt` would cost more than all the rest.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;

use crate::track::record::{Nanos, WallTime};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// The two digits of every number below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

fn pair(number: u64) -> [u8; 2] {
    PAIRS[(number % 100) as usize]
}

/// Decimal digits.
pub fn decimal(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
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
    let [a, b] = pair(fraction / 10_000);
    let [c, d] = pair(fraction / 100);
    let [e, f] = pair(fraction);
    let digits = [b'.', a, b, c, d, e, f];
    let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
    out.extend_from_slice(&digits[..digits.len() - zeros]);
}

/// `ip:port` or `[ip]:port`.
pub fn address(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            for octet in [a, b, c] {
                decimal(octet, out);
                out.push(b'.');
            }
            decimal(d, out);
            out.push(b':');
            decimal(address.port(), out);
        }
        IpAddr::V6(_) => {
            use std::io::Write;
            // Writing to a vector cannot fail; zones and flow labels are never set.
            let _ = write!(out, "{address}");
        }
    }
}

/// Writes RFC 3339 times in UTC, remembering the day it last wrote: the calendar is the dear part.
#[derive(Debug)]
pub struct Times {
    day: u64,
    /// `2026-11-21T`
    date: String,
}

impl Default for Times {
    fn default() -> Self {
        Self { day: 0, date: date_of(0) }
    }
}

impl Times {
    /// `2026-11-21T03:14:33.123456789Z`
    pub fn rfc3339(&mut self, time: WallTime, out: &mut Vec<u8>) {
        let seconds = time.0 / NANOS_PER_SECOND;
        let (day, second) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
        if day != self.day {
            *self = Self { day, date: date_of(day) };
        }
        out.extend_from_slice(self.date.as_bytes());
        out.extend_from_slice(&clock(second));
        out.extend_from_slice(&fraction(time.0 % NANOS_PER_SECOND));
    }
}

/// `03:14:33` for a second of the day.
pub fn clock(second: u64) -> [u8; 8] {
    let ([a, b], [c, d], [e, f]) = (pair(second / 3600), pair(second / 60 % 60), pair(second % 60));
    [a, b, b':', c, d, b':', e, f]
}

/// `.123456789Z`
fn fraction(nanos: u64) -> [u8; 11] {
    let [a, b] = pair(nanos / 10_000_000);
    let [c, d] = pair(nanos / 100_000);
    let [e, f] = pair(nanos / 1_000);
    let [g, h] = pair(nanos / 10);
    let [_, i] = pair(nanos % 10);
    [b'.', a, b, c, d, e, f, g, h, i, b'Z']
}

fn date_of(day: u64) -> String {
    // u64 nanoseconds end in the year 2554, well within the calendar.
    let seconds = i64::try_from(day * SECONDS_PER_DAY).unwrap_or(0);
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT").to_string()
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
