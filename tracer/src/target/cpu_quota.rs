//! How many processors the cgroup of a process lets it use: `cpu.max` of cgroup v2, the least of the cgroup and of those above it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::cgroup;
use crate::track::record::CpuQuota;

/// Most levels that are looked at; the kernel's own limit is deeper, real trees are not.
const MAX_LEVELS: usize = 64;

/// A quota, and where it is set.
#[derive(Debug, PartialEq, Eq)]
pub struct Quota {
    /// What may be used.
    pub limit: CpuQuota,
    /// The directory of the cgroup that has it.
    pub directory: PathBuf,
}

/// The quota of a process, from the text of its `/proc/PID/cgroup`; `None` without one, or where it cannot be read.
pub fn of(cgroup_file: &str) -> Option<Quota> {
    of_in(cgroup::mount()?, cgroup_file)
}

fn of_in(mount: &Path, cgroup_file: &str) -> Option<Quota> {
    let path = cgroup_file.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Seen from a cgroup namespace it may lie above the mount.
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    let directory = mount.join(path);
    let levels = directory.ancestors().take_while(|directory| directory.starts_with(mount)).take(MAX_LEVELS);
    let (thousandths, directory) = levels.filter_map(|directory| Some((limit(directory)?, directory))).min()?;
    let cgroup = fs::metadata(directory).ok()?.ino();
    Some(Quota { limit: CpuQuota { thousandths, cgroup }, directory: directory.to_owned() })
}

fn limit(directory: &Path) -> Option<u32> {
    parse(&fs::read_to_string(directory.join("cpu.max")).ok()?)
}

/// Thousandths of a processor: `7000 100000` is 70; `max 100000` is none.
fn parse(cpu_max: &str) -> Option<u32> {
    let mut numbers = cpu_max.split_whitespace().map(|number| number.parse::<u64>().ok());
    let (quota, period) = (numbers.next()??, numbers.next()??);
    u32::try_from(quota.checked_mul(1_000)?.checked_div(period)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_share_of_its_period() {
        assert_eq!(parse("7000 100000\n"), Some(70));
        assert_eq!(parse("250000 100000"), Some(2_500));
        for none in ["max 100000", "", "7000", "7000 0", "-1 5", "18446744073709551615 1"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    #[test]
    fn the_least_of_all_levels_counts() {
        let mount = std::env::temp_dir().join(format!("conntracer-quota-{}", std::process::id()));
        let deep = mount.join("a/b");
        fs::create_dir_all(&deep).expect("folders");
        let write = |path: &Path, text: &str| fs::write(path.join("cpu.max"), text).expect("a file");
        write(&deep, "max 100000");
        write(&mount.join("a"), "50000 100000");
        let found = |cgroup_file| of_in(&mount, cgroup_file).map(|quota| (quota.limit.thousandths, quota.directory));
        assert_eq!(found("1:cpu:/other\n0::/a/b\n"), Some((500, mount.join("a"))));
        write(&deep, "7000 100000");
        assert_eq!(found("0::/a/b\n"), Some((70, deep)));
        assert_eq!(of_in(&mount, "0::/../b\n"), None);
        assert_eq!(of_in(&mount, "1:cpu:/a/b\n"), None);
        fs::remove_dir_all(&mount).expect("the folders go");
    }
}
