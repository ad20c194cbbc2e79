//! What is kept of the records: sums, counts and sketches by process name and destination. One concern a file; the rules read them.

pub mod closes;
pub mod examples;
pub mod failures;
pub mod group;
mod groups;
pub mod handshakes;
pub mod lookups;
pub mod reuse;
pub mod stale;

pub use group::Group;
pub use groups::Groups;
