//! `--cgroup` and `--container`: from a path or a container id to what the BPF side compares, a cgroup's number and
//! its level.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::container;

/// Where cgroup v2 is mounted: alone, or beside v1 as systemd's hybrid layout has it.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Inode number of the real root of the cgroup tree; a cgroup namespace shows another one.
const ROOT_ID: u64 = 1;
/// Most cgroups visited in search of a container. A full Kubernetes node has a few thousand.
const MAX_CGROUPS: usize = 100_000;
/// Shortest container id that is looked up: fewer digits match by accident.
const MIN_PREFIX: usize = 4;
/// What statfs says of cgroup v2 (`CGROUP2_SUPER_MAGIC`).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// A cgroup as the BPF side knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
    /// Its 64-bit id: on 64-bit machines the inode number of its directory.
    pub id: u64,
    /// Levels below the root, which is 0.
    pub level: u32,
}

/// Why there is no cgroup to trace.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CgroupError {
    /// No cgroup v2.
    #[error("cgroup v2 is not mounted at /sys/fs/cgroup: select processes with -p or --comm instead")]
    NotMounted,
    /// A cgroup namespace hides the true root.
    #[error(
        "conntracer runs in a cgroup namespace and cannot tell how deep a cgroup lies: \
         start its container with the host's cgroup namespace (docker run --cgroupns=host)"
    )]
    Namespace,
    /// No such directory.
    #[error("there is no cgroup {}: give a path below /sys/fs/cgroup, as `systemd-cgls` shows them", .0.display())]
    NotFound(PathBuf),
    /// A directory elsewhere.
    #[error("{} is not a cgroup: it does not lie below {}", path.display(), root.display())]
    Outside {
        /// What was given.
        path: PathBuf,
        /// Where cgroups are.
        root: PathBuf,
    },
    /// Not an id.
    #[error(
        "{0} is not a container id: give at least {MIN_PREFIX} of its hexadecimal digits, as `docker ps` shows them"
    )]
    NotAnId(String),
    /// No container of that id.
    #[error("no running container has an id that begins with {0}")]
    NoContainer(String),
    /// Several containers.
    #[error("{prefix} is ambiguous: it begins the ids of {}", ids.join(", "))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// The ids that match.
        ids: Vec<String>,
    },
    /// The search was given up.
    #[error("there are more than {MAX_CGROUPS} cgroups: give the container's with --cgroup instead")]
    TooMany,
}

/// The cgroup of a path: absolute, or relative to where cgroups are mounted.
///
/// # Errors
/// If it does not exist, is not a cgroup, or its level cannot be told.
pub fn by_path(path: &Path) -> Result<Cgroup, CgroupError> {
    by_path_in(&mounted_root()?, path)
}

/// The cgroup of the running container whose id begins with the given digits.
///
/// # Errors
/// If no container or several match, or its level cannot be told.
pub fn by_container(prefix: &str) -> Result<Cgroup, CgroupError> {
    by_container_in(&mounted_root()?, prefix)
}

/// The processes in a cgroup and in those below it, in no order; what cannot be read is left out.
pub fn processes(cgroup: &Cgroup) -> Vec<u32> {
    let (mut pids, mut to_visit, mut visited) = (Vec::new(), vec![cgroup.path.clone()], 0);
    while let Some(directory) = to_visit.pop() {
        visited += 1;
        if visited > MAX_CGROUPS {
            break;
        }
        let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        to_visit.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
    pids
}

/// The version of cgroups here: 2, or 1 where only that is mounted; `None` if none is.
pub fn version() -> Option<u8> {
    let is_v1 = || fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| has_type(&mounts, "cgroup"));
    if mount().is_some() { Some(2) } else { is_v1().then_some(1) }
}

/// Whether a file system of this type is in a table of mounts, the third field of a line.
fn has_type(mounts: &str, wanted: &str) -> bool {
    mounts.lines().any(|line| line.split(' ').nth(2) == Some(wanted))
}

/// Where cgroup v2 is mounted, if it is.
pub(super) fn mount() -> Option<&'static Path> {
    let is_v2 = |path: &&&str| rustix::fs::statfs(**path).is_ok_and(|stat| stat.f_type as u64 == CGROUP2_MAGIC);
    MOUNTS.iter().find(is_v2).map(Path::new)
}

fn mounted_root() -> Result<PathBuf, CgroupError> {
    let root = mount().ok_or(CgroupError::NotMounted)?;
    let id = fs::metadata(root).map_err(|_| CgroupError::NotMounted)?.ino();
    if id == ROOT_ID { Ok(PathBuf::from(root)) } else { Err(CgroupError::Namespace) }
}

fn by_path_in(root: &Path, path: &Path) -> Result<Cgroup, CgroupError> {
    // `/system.slice`, as /proc/PID/cgroup writes it, is meant below the root too; it comes before what may have that
    // name in the file system.
    let below_root = root.join(path.strip_prefix("/").unwrap_or(path));
    let candidates = if path.starts_with(root) { vec![path.to_owned()] } else { vec![below_root, path.to_owned()] };
    let found = candidates.iter().filter(|path| path.is_absolute()).find_map(|path| fs::canonicalize(path).ok());
    let found = found.filter(|path| path.is_dir()).ok_or_else(|| CgroupError::NotFound(path.into()))?;
    describe(root, found)
}

fn by_container_in(root: &Path, prefix: &str) -> Result<Cgroup, CgroupError> {
    let wanted = prefix.to_ascii_lowercase();
    if wanted.len() < MIN_PREFIX || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(CgroupError::NotAnId(prefix.into()));
    }
    let mut found = containers(root, &wanted)?;
    found.sort();
    // cgroup trees may hold one container at two depths (a pod's sandbox): the outer one contains the other.
    found.dedup_by(|later, kept| later.0 == kept.0);
    match found.as_slice() {
        [] => Err(CgroupError::NoContainer(prefix.into())),
        [(_, path)] => describe(root, path.clone()),
        several => {
            let ids = several.iter().map(|(id, _)| id.clone()).collect();
            Err(CgroupError::Ambiguous { prefix: prefix.into(), ids })
        }
    }
}

/// Ids and directories of all containers whose id begins with `wanted`.
fn containers(root: &Path, wanted: &str) -> Result<Vec<(String, PathBuf)>, CgroupError> {
    let (mut found, mut to_visit, mut visited) = (Vec::new(), vec![root.to_owned()], 0);
    while let Some(directory) = to_visit.pop() {
        visited += 1;
        if visited > MAX_CGROUPS {
            return Err(CgroupError::TooMany);
        }
        let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(id) = container::id(name).filter(|id| id.starts_with(wanted)) {
            found.push((id.to_owned(), directory.clone()));
        }
        to_visit.extend(subdirectories(&directory));
    }
    Ok(found)
}

/// cgroups that vanish while they are listed are passed over.
fn subdirectories(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

fn describe(root: &Path, path: PathBuf) -> Result<Cgroup, CgroupError> {
    let outside = |path: &Path| CgroupError::Outside { path: path.into(), root: root.into() };
    let level = path.strip_prefix(root).map_err(|_| outside(&path))?.components().count();
    let id = fs::metadata(&path).map_err(|_| CgroupError::NotFound(path.clone()))?.ino();
    // A path has at most PATH_MAX bytes, so its components fit.
    Ok(Cgroup { id, level: level as u32, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "abcd0de5a2b94d7788aa00bb11cc22dd33ee44ff5566778899aabbccddeeff00";
    const SECOND: &str = "abcd1de5a2b94d7788aa00bb11cc22dd33ee44ff5566778899aabbccddeeff00";

    /// A tree of directories shaped as cgroups are; it is removed when dropped.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("conntracer-cgroup-{name}-{}", std::process::id()));
            let scope = format!("system.slice/docker-{FIRST}.scope");
            let pod = format!("kubepods/besteffort/pod1/{SECOND}");
            for path in ["user.slice/session-1.scope", &scope, &pod] {
                fs::create_dir_all(root.join(path)).expect("made");
            }
            Self(fs::canonicalize(root).expect("exists"))
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_path_may_be_absolute_relative_or_as_proc_writes_it() {
        let tree = Tree::new("paths");
        let expected = fs::metadata(tree.0.join("user.slice")).expect("exists").ino();
        let absolute = tree.0.join("user.slice/../user.slice");
        for path in [Path::new("user.slice"), Path::new("/user.slice"), &absolute] {
            let cgroup = by_path_in(&tree.0, path).expect("found");
            assert_eq!((cgroup.id, cgroup.level), (expected, 1), "{}", path.display());
        }
        assert_eq!(by_path_in(&tree.0, Path::new("/")).map(|root| root.level), Ok(0));
    }

    #[test]
    fn a_path_that_is_no_cgroup_is_refused() {
        let tree = Tree::new("refused");
        let refused = |path: &str| by_path_in(&tree.0, Path::new(path)).expect_err("refused");
        assert_eq!(refused("nowhere.slice"), CgroupError::NotFound("nowhere.slice".into()));
        assert!(matches!(refused("/proc"), CgroupError::Outside { .. }));
        assert!(matches!(refused("../.."), CgroupError::Outside { .. }));
    }

    #[test]
    fn a_container_is_found_by_the_beginning_of_its_id() {
        let tree = Tree::new("container");
        let first = by_container_in(&tree.0, "ABCD0").expect("found");
        assert_eq!((first.level, first.path.parent()), (2, Some(tree.0.join("system.slice").as_path())));
        assert_eq!(by_container_in(&tree.0, SECOND).expect("found").level, 4);
    }

    #[test]
    fn a_prefix_that_names_no_container_or_several_is_refused() {
        let tree = Tree::new("ambiguous");
        let refused = |prefix: &str| by_container_in(&tree.0, prefix).expect_err("refused");
        assert_eq!(
            refused("abcd"),
            CgroupError::Ambiguous { prefix: "abcd".into(), ids: vec![FIRST.into(), SECOND.into()] }
        );
        assert_eq!(refused("ffff"), CgroupError::NoContainer("ffff".into()));
        for prefix in ["", "abc", "my-web-server"] {
            assert_eq!(refused(prefix), CgroupError::NotAnId(prefix.into()));
        }
    }
}
