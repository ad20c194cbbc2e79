//! The PID namespace that this process is in. What a user types, and `/proc` shows, are numbers there; the kernel's own numbers are
//! those of the first one, the host's.

use std::{fs, os::unix::fs::MetadataExt as _};

use rustix::fs::{major, minor};
use tracer_ebpf::{Config, pid};

const OWN: &str = "/proc/self/ns/pid";

/// Inode number of the host's: the kernel gives it this one always (`PROC_PID_INIT_INO`).
const OF_HOST: u64 = 0xEFFF_FFFC;

/// Bits of the minor number in a device number inside the kernel (`MINORBITS`).
const MINOR_BITS: u32 = 20;

/// Whether it is the host's. Taken as so where `/proc` does not tell.
pub fn is_of_host() -> bool {
    fs::metadata(OWN).map_or(true, |namespace| namespace.ino() == OF_HOST)
}

/// Has the kernel side number processes as this namespace does, if it is not the host's.
pub fn settle(config: &mut Config) {
    let Ok(namespace) = fs::metadata(OWN) else { return };
    if namespace.ino() != OF_HOST {
        let device = u64::from(major(namespace.dev())) << MINOR_BITS | u64::from(minor(namespace.dev()));
        (config.own_pids, config.pid_namespace) = (1, [device, namespace.ino()]);
    }
}

/// The key under which the kernel side looks for a process that user space names.
pub fn key(config: &Config, number: u32) -> u32 {
    if config.own_pids == 0 { number } else { pid::OWN | number }
}

/// The number of a process by its key; `None` if the kernel side wrote it by a number that means nothing here.
pub fn number(config: &Config, key: u32) -> Option<u32> {
    if config.own_pids == 0 { Some(key) } else { (key & pid::OWN != 0).then_some(key & !pid::OWN) }
}

/// Whether `/proc` shows another PID namespace than this process is in. Then no number means the same in both.
pub fn is_proc_foreign() -> bool {
    let shown = fs::read_link("/proc/self").ok().and_then(|own| own.to_str()?.parse().ok());
    // Where this process has no number at all, `/proc` has no such link.
    shown.is_none_or(|shown: u32| shown != std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_back_to_its_number_and_those_of_the_kernel_to_none() {
        let host = Config::EVERYTHING;
        let own = Config { own_pids: 1, ..host };
        for config in [host, own] {
            assert_eq!(number(&config, key(&config, 4_194_303)), Some(4_194_303));
        }
        assert_eq!(number(&own, 7), None);
    }
}
