//! What the privileged tests share: a tracer under test, connections made on purpose, processes that do as they are
//! told, networks that fail on demand, and the comparison of a trace with what really happened.
//!
//! Everything here runs as root on a throw-away machine.

pub mod accuracy;
mod actor;
mod apart;
mod cgroup;
mod clock;
mod commands;
mod container;
pub mod echo;
mod etc;
pub mod incidents;
mod java;
mod lacks;
mod memory;
mod net;
mod nobody;
mod pair;
mod programs;
pub mod record;
mod resolver;
pub mod soak;
mod span;
mod talk;
pub mod tls;
mod tracer;
mod waiting;

pub use actor::Actor;
pub use apart::{Comparison, SLACK_MS, until_undisturbed};
pub use cgroup::Cgroup;
pub use clock::{eventually, monotonic_ns, wall_ns};
pub use commands::{output_of, output_within, run, stdout_of};
pub use container::{Container, child_of, with_host_pids};
pub use etc::Etc;
pub use lacks::lacks;
pub use memory::resident_kib;
pub use net::{DropRule, Link, Namespace};
pub use nobody::{Nobody, Rights, public_folder};
pub use pair::{Ends, Family, Pair, TcpInfo, connect_from, listen, set_linger_zero, tcp_info, unread};
pub use programs::LoadedPrograms;
pub use record::{Close, Closer, Connection, Exchange, Finding, How, Line, Lookup, Role, Summary, Tls};
pub use resolver::Resolver;
pub use span::{Range, Span};
pub use talk::{Expected, Log, Talk, send_parts};
pub use tracer::{
    Backend, Exit, OF_SKIPPED, Trace, Tracer, conntracer, parse_lines, skipped, skipped_at_most, traced_run,
    tracer_path,
};
pub use waiting::while_waiting;

/// Where cargo put the other binaries of this package: a test binary lies in `deps/`, beside them.
pub fn client_binary(name: &str) -> std::path::PathBuf {
    let own = std::env::current_exe().expect("the path of this program");
    let dir = own.parent().expect("a program lies in a folder");
    let dir = if dir.ends_with("deps") { dir.parent().expect("deps lies in a folder") } else { dir };
    dir.join(name)
}
