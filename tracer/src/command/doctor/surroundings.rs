//! Whether this process runs in a container, and what it sees of the host from there.

use std::{env, path::Path};

use super::report::Surroundings;
use crate::{
    rights::advice,
    target::{cgroup, pid_namespace, process},
};

/// What engines leave in a container: a file, or a variable of its processes.
const FILES: &[&str] = &["/.dockerenv", "/run/.containerenv"];
const VARIABLES: &[&str] = &["KUBERNETES_SERVICE_HOST", "container"];

/// Looks around.
pub fn look() -> Surroundings {
    let files = FILES.iter().filter(|file| Path::new(file).exists());
    let variables = VARIABLES.iter().filter(|variable| env::var_os(variable).is_some());
    Surroundings {
        container: process::identity(std::process::id()).and_then(|identity| identity.container),
        signs: files.chain(variables).copied().collect(),
        is_in_host_pids: pid_namespace::is_of_host(),
        is_proc_foreign: pid_namespace::is_proc_foreign(),
        is_filtered: advice::is_filtered(),
        cgroup_version: cgroup::version(),
    }
}
