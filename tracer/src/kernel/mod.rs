//! What the running kernel offers: its types, its fields, and what this process may do with it.

pub mod btf;
pub mod features;
pub mod offsets;
