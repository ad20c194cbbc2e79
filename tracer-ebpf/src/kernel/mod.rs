//! Typed accessors over the offset table: a kernel field is `Some(value)`, or `None` where this kernel lacks it or it
//! could not be read.

pub mod access;
#[expect(dead_code, reason = "the hooks that use it follow")]
pub mod msg;
pub mod sock;
pub mod task;
