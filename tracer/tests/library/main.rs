//! Finding TLS libraries: in files, and in processes.

mod files;
mod image;
mod processes;
