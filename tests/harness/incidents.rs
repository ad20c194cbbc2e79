//! What the incidents have in common: a DynamoDB behind TLS, clients with names of their own in a group that is traced, and
//! what is found about them.

mod diagnosis;
mod expiry;
mod page;
mod program;
mod store;

pub use diagnosis::{Diagnosis, Findings, SLOW_MACHINE};
pub use expiry::Expiry;
pub use program::{Call, Crowd, Program, Server};
pub use store::{Front, Store};

/// The setting that names whom to trust.
pub fn trusting() -> String {
    format!("ca={}", crate::tls::Authority::get().root.path())
}

/// A source in `tests/clients/incidents`.
fn source(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/incidents").join(name)
}

/// Where `cargo xtask setup` has put a language's libraries.
fn libraries(language: &str) -> std::path::PathBuf {
    crate::client_binary("libraries").join(language)
}

/// Does both at once; returns what they return.
pub fn at_once<A: Send, B: Send>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other)
    })
}

/// The middle one of these figures, the lower of two, which is what the tracer takes; there must be one.
#[track_caller]
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures[(figures.len() - 1) / 2]
}

/// Where an incident happens.
pub struct Scene {
    /// The clients, which are traced.
    pub crowd: Crowd,
    /// What they call.
    pub store: Store,
}
