//! Measures on this kernel how true a trace is: prints a row of each table in docs/accuracy.md, and fails when the trace
//! is worse than its bounds.
//!
//! `accuracy [CONNECTIONS [SEED]]`

use std::process::ExitCode;

use harness::{
    Backend,
    accuracy::{Report, measure},
};

/// Mistakes that are printed; where there are more, they look alike.
const SHOWN: usize = 20;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse().expect("a number"));
    let connections = numbers.next().unwrap_or(1_000);
    let seed = numbers.next().unwrap_or(1);
    harness::run("ip link set lo up");
    let dir = tempfile::tempdir().expect("a folder");
    let kernel = harness::stdout_of("uname -r");
    let mut failed = false;
    for (backend, name) in [(Backend::Auto, ""), (Backend::Kprobe, ", kprobes")] {
        let report: Report = measure(connections, seed as u64, backend, dir.path());
        let name = format!("{}{name}", kernel.trim());
        println!("{}\n{}", report.counts_row(&name), report.times_row(&name));
        let failures = report.failures();
        failed |= !failures.is_empty();
        for outlier in report.outliers.iter().take(SHOWN) {
            eprintln!("{outlier}");
        }
        for failure in failures.iter().take(SHOWN) {
            eprintln!("{failure}");
        }
        if failures.len() > SHOWN {
            eprintln!("and {} more", failures.len() - SHOWN);
        }
    }
    ExitCode::from(u8::from(failed))
}
