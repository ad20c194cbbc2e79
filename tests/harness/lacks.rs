//! What a kernel does not have, and a test can therefore not look at.

use std::io::Write as _;

use crate::commands::stdout_of;

/// Says that this kernel lacks something, and by what that is known, where it is seen although the test passes: what is
/// printed is only shown if a test fails.
pub fn lacks(what: &str, reason: &str) {
    let release = stdout_of("uname --kernel-release");
    let text = format!("not tested: {} has no {what}: {reason}\n", release.trim_end());
    std::io::stderr().write_all(text.as_bytes()).expect("standard error");
}
