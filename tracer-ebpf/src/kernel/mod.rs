//! Typed accessors over the offset table: a kernel field is `Some(value)`, or `None` where this kernel lacks it or it
//! could not be read.

pub mod access;
pub mod file;
pub mod msg;
pub mod registers;
pub mod skb;
pub mod sock;
pub mod task;
