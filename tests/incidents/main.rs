//! The five incidents, and workloads that are none, end to end: real servers and clients, and what `conntracer diagnose` says
//! of them. Runs as root in a throw-away VM, one test at a time.

mod cold_pool;
mod connection_close;
mod handshake_cpu;
mod healthy;
mod idle_timeout;
mod stale_reuse;
