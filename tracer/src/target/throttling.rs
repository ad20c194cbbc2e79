//! How often and for how long cgroups with a quota of processor time were not let run: `cpu.stat` of cgroup v2.

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::cpu_quota::Quota;

/// Most cgroups that are looked at. A node has some hundred containers.
const MAX_GROUPS: usize = 512;

/// What a cgroup's statistics count, since it was made or between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// Periods of its quota in which it had something to run.
    pub periods: u64,
    /// Those of them in which it had used it up.
    pub throttled_periods: u64,
    /// For how long it was not let run, in nanoseconds; added up over processors.
    pub throttled: u64,
}

/// The cgroups that are looked at now and then.
#[derive(Default)]
pub struct Throttling(BTreeMap<u64, Group>);

struct Group {
    directory: PathBuf,
    /// When it was first looked at.
    first: Throttled,
    /// When it was last told.
    last: Throttled,
}

impl Throttling {
    /// Looks at a cgroup from now on.
    pub fn watch(&mut self, Quota { limit, directory }: Quota) {
        if self.0.len() >= MAX_GROUPS || self.0.contains_key(&limit.cgroup) {
            return;
        }
        if let Some(first) = read(&directory) {
            self.0.insert(limit.cgroup, Group { directory, first, last: first });
        }
    }

    /// The cgroups, by their numbers, that have been throttled since the last call: by how much since they were first looked at.
    /// One that is gone is let go of.
    pub fn take_news(&mut self) -> Vec<(u64, Throttled)> {
        let mut news = Vec::new();
        self.0.retain(|cgroup, group| {
            let Some(now) = read(&group.directory) else { return false };
            if now.throttled_periods != group.last.throttled_periods {
                group.last = now;
                news.push((*cgroup, now.since(group.first)));
            }
            true
        });
        news
    }
}

impl Throttled {
    fn since(self, before: Self) -> Self {
        Self {
            periods: self.periods.saturating_sub(before.periods),
            throttled_periods: self.throttled_periods.saturating_sub(before.throttled_periods),
            throttled: self.throttled.saturating_sub(before.throttled),
        }
    }
}

fn read(directory: &std::path::Path) -> Option<Throttled> {
    parse(&fs::read_to_string(directory.join("cpu.stat")).ok()?)
}

/// Without the lines of a quota, as at the root, there is nothing.
fn parse(cpu_stat: &str) -> Option<Throttled> {
    let number = |name: &str| {
        let of_name = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok();
        cpu_stat.lines().find_map(of_name)
    };
    Some(Throttled {
        periods: number("nr_periods")?,
        throttled_periods: number("nr_throttled")?,
        throttled: number("throttled_usec")?.saturating_mul(1_000),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::record::CpuQuota;

    fn write(directory: &std::path::Path, periods: u64, throttled_periods: u64, throttled_us: u64) {
        let text = format!(
            "usage_usec 5\nnr_periods {periods}\nnr_throttled {throttled_periods}\nthrottled_usec {throttled_us}\nnr_bursts 0\n"
        );
        fs::write(directory.join("cpu.stat"), text).expect("a file");
    }

    #[test]
    fn what_was_throttled_before_it_was_watched_does_not_count_and_what_is_no_news_is_not_told() {
        let directory = std::env::temp_dir().join(format!("conntracer-throttling-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a folder");
        write(&directory, 100, 40, 4_000_000);
        let mut throttling = Throttling::default();
        let watch = |throttling: &mut Throttling, cgroup| {
            throttling.watch(Quota { limit: CpuQuota { thousandths: 70, cgroup }, directory: directory.clone() });
        };
        watch(&mut throttling, 9);
        assert_eq!(throttling.take_news(), []);
        write(&directory, 110, 47, 4_600_000);
        watch(&mut throttling, 9);
        let told = Throttled { periods: 10, throttled_periods: 7, throttled: 600_000_000 };
        assert_eq!(throttling.take_news(), [(9, told)]);
        write(&directory, 120, 47, 4_600_000);
        assert_eq!(throttling.take_news(), []);
        fs::remove_dir_all(&directory).expect("the folder goes");
        assert_eq!(throttling.take_news(), []);
        watch(&mut throttling, 10);
        assert!(throttling.0.is_empty(), "a cgroup that is gone is not looked at");
    }

    #[test]
    fn statistics_without_a_quota_say_nothing() {
        for none in ["", "usage_usec 5\nuser_usec 3\n", "nr_periods 1\nnr_throttled x\nthrottled_usec 4\n"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }
}
