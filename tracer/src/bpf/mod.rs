//! The BPF object on the user side: which hooks there are, loading and attaching them, stepping down where a kernel
//! refuses, and reading back what was lost.

mod detaching;
pub mod detail;
pub mod filter;
pub mod hooks;
pub mod library_probes;
pub mod load;
pub mod losses;
pub mod trial;

pub use load::{Backend, Loaded, Settings, load};
