//! Files of `/etc` for one test.

use std::io::Write;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tempfile::NamedTempFile;

/// Files in the place of those of `/etc`, for this thread and the programs that it starts.
pub struct Etc {
    _files: Vec<NamedTempFile>,
}

impl Etc {
    /// Files with these names, which must be there, and contents.
    #[track_caller]
    pub fn with(files: &[(&str, &str)]) -> Self {
        // Other threads keep their own view of /etc.
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).expect("a mount namespace of one's own (needs root)");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        let put = |(name, text): &(&str, &str)| {
            let (file, at) = (file(text), format!("/etc/{name}"));
            mount(Some(file.path()), at.as_str(), none, MsFlags::MS_BIND, none)
                .unwrap_or_else(|error| panic!("{at}: {error}"));
            file
        };
        Self { _files: files.iter().map(put).collect() }
    }
}

/// A file that goes when it is dropped.
#[track_caller]
pub fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("write");
    file
}
