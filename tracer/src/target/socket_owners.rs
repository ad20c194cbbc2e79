//! Which process holds a socket: `/proc/PID/fd` names sockets by inode number.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
};

use super::process;

/// Holder of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Start time on the boot clock; 0 if the process ended meanwhile.
    pub started_at: u64,
}

/// Owners by inode number, and how many processes did not let us look.
#[derive(Debug, Default)]
pub struct Owners {
    by_inode: HashMap<u32, Owner>,
    /// Processes whose descriptors could not be listed.
    pub denied: u64,
}

impl Owners {
    /// Finds the owners of the wanted sockets among some processes. A socket that several of them hold belongs to the
    /// one that started first: a server's parent rather than the child that inherited it.
    pub fn find(pids: &[u32], wanted: &HashSet<u32>) -> Self {
        let mut owners = Self::default();
        for pid in pids {
            match held_by(*pid, wanted) {
                Ok(inodes) if inodes.is_empty() => {}
                Ok(inodes) => {
                    let started_at = process::started_at(*pid).unwrap_or(0);
                    owners.add(Owner { pid: *pid, started_at }, &inodes);
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => owners.denied += 1,
                // The process ended meanwhile.
                Err(_) => {}
            }
        }
        owners
    }

    /// Owner of a socket.
    pub fn of(&self, inode: u32) -> Option<Owner> {
        self.by_inode.get(&inode).copied()
    }

    fn add(&mut self, owner: Owner, inodes: &[u32]) {
        for inode in inodes {
            let kept = self.by_inode.entry(*inode).or_insert(owner);
            if (owner.started_at, owner.pid) < (kept.started_at, kept.pid) {
                *kept = owner;
            }
        }
    }
}

fn held_by(pid: u32, wanted: &HashSet<u32>) -> io::Result<Vec<u32>> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let inodes = descriptors.flatten().filter_map(|entry| socket_inode(fs::read_link(entry.path()).ok()?.to_str()?));
    Ok(inodes.filter(|inode| wanted.contains(inode)).collect())
}

/// `socket:[123]` to 123.
fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_to_sockets_have_an_inode() {
        assert_eq!(socket_inode("socket:[4242]"), Some(4242));
        for other in ["", "pipe:[1]", "socket:[]", "socket:[x]", "socket:[99999999999]", "/dev/null"] {
            assert_eq!(socket_inode(other), None, "{other}");
        }
    }

    #[test]
    fn a_shared_socket_belongs_to_the_process_that_started_first() {
        let mut owners = Owners::default();
        for (pid, started_at) in [(7, 30), (9, 10), (8, 10)] {
            owners.add(Owner { pid, started_at }, &[1]);
        }
        assert_eq!(owners.of(1).map(|owner| owner.pid), Some(8));
    }
}
