//! TLS as real programs speak it: certificates, servers, clients, and what each of them says of a connection.

mod authority;
mod chopper;
mod client;
mod container;
mod database;
mod go_server;
mod joins;
mod nginx;
mod numbered;
mod server;
mod stepwise;

pub use authority::{Authority, Certificate};
pub use chopper::Chopper;
pub(crate) use client::stripped;
pub use client::{Client, Request, Told, hello};
pub use container::in_musl_container;
pub use database::{Database, pgbench, redis_benchmark};
pub use go_server::GoServer;
pub use joins::Joins;
pub use nginx::{Nginx, Served, Site};
pub use numbered::{Asked, Load, Numbered};
pub use server::{PythonServer, Watched};
pub use stepwise::Stepwise;

/// The name that the servers' certificate is for.
pub const NAME: &str = "shop.test";

/// The name of the data base in the incidents; the certificate is for it too.
pub const STORE: &str = "dynamo.test";

/// A source in `tests/clients/tls`.
fn source(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/tls").join(name)
}
