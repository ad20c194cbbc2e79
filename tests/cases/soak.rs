//! A minute of what `cargo xtask soak` runs.

use std::time::Duration;

use harness::soak::soak;

#[test]
fn node_and_go_are_not_disturbed_by_traces_that_come_and_go() {
    let report = soak(Duration::from_secs(60));
    println!("{report}");
    assert!(report.failures.is_empty(), "{}\n{report}", report.failures.join("\n"));
}
