//! What a trace needs to be allowed: the table of features by right, what this process holds of it, how to get the rest, and
//! giving up what is no longer needed. `docs/permissions.md` shows the table to users; a test holds the two together.

pub mod advice;
pub mod given_up;
pub mod held;
pub mod right;
pub mod table;

pub use held::Held;
pub use right::Right;
pub use table::{FEATURES, Feature, Kept};
