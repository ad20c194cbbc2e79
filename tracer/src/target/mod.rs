//! What a trace is aimed at, and what was there before it began: processes, cgroups, containers, open sockets.

pub mod adoption;
pub mod cgroup;
pub mod container;
pub mod cpu_quota;
pub mod library;
pub mod marks;
pub mod open_sockets;
pub mod pid_namespace;
pub mod process;
pub mod selection;
mod sock_diag;
mod socket_owners;
mod tcp_info;
pub mod throttling;
