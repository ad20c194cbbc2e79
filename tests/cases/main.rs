//! conntracer against real kernels and real sockets. Runs as root in a throw-away VM, one test at a time.

mod accuracy;
mod bad_input;
mod burst;
mod connects;
mod containers;
mod cpu_quota;
mod detach;
mod dns;
mod doctor;
mod exchanges;
mod faults;
mod filters;
mod getaddrinfo;
mod http;
mod labels;
mod lives;
mod network;
mod network_costs;
mod overload;
mod owners;
mod preexisting;
mod recording;
mod rights;
mod run;
mod sessions;
mod soak;
mod targets;
mod tls;
mod tls_libraries;
mod waiting;
mod whole_shared_traces;

/// Declares functions that take a running trace as tests, once with each kind of hooks.
macro_rules! on_both_backends {
    ($($test:ident)*) => {
        mod auto {
            $(#[test] fn $test() { super::$test(&harness::Tracer::shared(harness::Backend::Auto)); })*
        }
        mod kprobe {
            $(#[test] fn $test() { super::$test(&harness::Tracer::shared(harness::Backend::Kprobe)); })*
        }
    };
}
use on_both_backends;
