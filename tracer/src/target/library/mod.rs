//! The libraries that processes use, for TLS and to look names up: which files they are, and where in them the functions are
//! that probes go on.
//!
//! A library is a file that a process maps executable, whatever its name: a shared library, or an executable that it was
//! linked into. Each file is read once, however many processes map it. What is read was written by others: it may be
//! damaged or made to do harm, and must neither panic nor cost much time or memory.

mod analysis;
mod elf;
mod file_id;
mod function;
mod go;
mod kind;
mod libraries;
mod maps;
mod open;
pub mod points;
mod reader;
mod returns;
mod symbols;
mod version;

pub use analysis::{Analysis, Part, analyse};
pub use file_id::FileId;
pub use function::{Family, Function, FunctionName};
pub use kind::{Kind, Release};
pub use libraries::{Libraries, Library, Unreadable};
pub use reader::{Damage, ReadAt};
