//! Durations, sizes and counts for people: three digits and the unit that fits.

use crate::track::record::Nanos;

const MS: f64 = 1e6;
const SECOND: f64 = 1e9;
const MINUTE: f64 = 60.0 * SECOND;
const HOUR: f64 = 60.0 * MINUTE;

/// `0.31 ms`, `12.3 ms`, `5.02 s`, `12.5 min`, `3.20 h`
pub fn duration(nanos: Nanos) -> String {
    let nanos = nanos as f64;
    // A value that would be rounded up to a full next unit is given in that.
    let (unit, name) = match nanos {
        _ if nanos < 0.9995 * SECOND => (MS, "ms"),
        _ if nanos < 0.9995 * MINUTE => (SECOND, "s"),
        _ if nanos < 0.9995 * HOUR => (MINUTE, "min"),
        _ => (HOUR, "h"),
    };
    three_digits(nanos / unit, name)
}

/// Milliseconds in a row of such, without the unit: `0.05`, `7.3`, `214.8`
pub fn milliseconds(nanos: Nanos) -> String {
    let value = nanos as f64 / MS;
    if value < 0.995 { format!("{value:.2}") } else { format!("{value:.1}") }
}

/// `0 B`, `999 B`, `1.20 kB`, `34.0 MB`
pub fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let bytes = bytes as f64;
    let (unit, name) = match bytes {
        _ if bytes < 0.9995e6 => (1e3, "kB"),
        _ if bytes < 0.9995e9 => (1e6, "MB"),
        _ if bytes < 0.9995e12 => (1e9, "GB"),
        _ => (1e12, "TB"),
    };
    three_digits(bytes / unit, name)
}

/// `1 connection`, `2 connections`
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn three_digits(value: f64, unit: &str) -> String {
    let decimals = match value {
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_a_fitting_unit() {
        let given = [0, 310_000, 12_345_678, 999_600_000, 5_020_000_000, 59_990_000_000, 750_000_000_000, u64::MAX];
        let shown = ["0.00 ms", "0.31 ms", "12.3 ms", "1.00 s", "5.02 s", "1.00 min", "12.5 min", "5124096 h"];
        assert_eq!(given.map(duration), shown);
    }

    #[test]
    fn milliseconds_in_a_row_have_a_fitting_precision() {
        assert_eq!(
            [0, 50_000, 996_000, 7_300_000, 214_800_000].map(milliseconds),
            ["0.00", "0.05", "1.0", "7.3", "214.8"]
        );
    }

    #[test]
    fn sizes_have_three_digits_and_a_fitting_unit() {
        let given = [0, 999, 1_200, 34_000_000, 999_999, u64::MAX];
        assert_eq!(given.map(size), ["0 B", "999 B", "1.20 kB", "34.0 MB", "1.00 MB", "18446744 TB"]);
    }
}
