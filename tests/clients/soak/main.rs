//! `soak MINUTES`: Node and Go under load, with traces that come and go. Prints what came of it, and fails if anything was
//! disturbed.

use std::{process::ExitCode, time::Duration};

use harness::soak::soak;

fn main() -> ExitCode {
    let minutes: f64 = std::env::args().nth(1).map_or(30.0, |minutes| minutes.parse().expect("a number of minutes"));
    let report = soak(Duration::from_secs_f64(minutes * 60.0));
    for failure in &report.failures {
        eprintln!("{failure}");
    }
    println!("{report}");
    ExitCode::from(u8::from(!report.failures.is_empty()))
}
