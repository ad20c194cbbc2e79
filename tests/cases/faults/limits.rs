//! The tracer may open few files, or lock little memory.

use harness::{conntracer, stdout_of};

use super::measured;

/// Rights to trace, and none to raise one's own limits.
const WITHOUT_RESOURCE: &[&str] = &["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"];

#[test]
fn a_low_limit_on_open_files_is_raised_where_that_is_allowed_and_else_named_with_what_to_do() {
    let low = &["prlimit", "--nofile=64:64", "--"];
    let raised = conntracer(low, &["trace", "-d", "1"]);
    assert!(raised.status.success(), "{raised:#?}");
    let refused = conntracer(&[WITHOUT_RESOURCE, &["--"], low].concat(), &["trace", "-d", "1"]);
    refused.assert_fails(1, &["open files", "ulimit -n"]);
    // A limit that only has to be claimed is. Old kernels would stumble over that on locked memory.
    let claimable = &["prlimit", "--memlock=unlimited", "--nofile=64:4096", "--"];
    let claimed = conntracer(&[claimable, WITHOUT_RESOURCE, &["--"]].concat(), &["trace", "-d", "1"]);
    assert!(claimed.status.success(), "{claimed:#?}");
    measured("64 open files: raised where allowed, else an error with the way out");
}

#[test]
fn a_low_limit_on_locked_memory_is_raised_where_that_is_allowed_and_else_named_if_it_matters() {
    let low = &["prlimit", "--memlock=65536:65536", "--"];
    let raised = conntracer(low, &["trace", "-d", "1"]);
    assert!(raised.status.success(), "{raised:#?}");
    let bound = conntracer(&[WITHOUT_RESOURCE, &["--"], low].concat(), &["trace", "-d", "1"]);
    // From 5.11 on the kernel counts BPF memory elsewhere.
    if stdout_of("uname --kernel-release").starts_with("5.10.") {
        bound.assert_fails(1, &["locked memory", "ulimit -l"]);
    } else {
        assert!(bound.status.success(), "{bound:#?}");
    }
    measured(&format!("64 KiB of locked memory without CAP_SYS_RESOURCE: {}", bound.status));
}
