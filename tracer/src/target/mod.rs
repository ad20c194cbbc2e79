//! What a trace is aimed at: processes, cgroups, containers.

pub mod cgroup;
pub mod container;
pub mod process;
