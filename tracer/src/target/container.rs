//! The container or systemd unit of a process, read off its cgroup paths.

use std::iter;

/// Length of the ids that all container runtimes give: 256 bits in hexadecimal.
const ID_LEN: usize = 64;

/// Names the container, or else the systemd unit, of a process from the text of its `/proc/PID/cgroup`. The innermost
/// one is taken. `None` if the paths name neither, as inside a cgroup namespace.
pub fn name(cgroup_file: &str) -> Option<String> {
    let found = |test: fn(&str) -> Option<&str>| paths(cgroup_file).find_map(|path| path.rsplit('/').find_map(test));
    found(id).or_else(|| found(unit)).map(str::to_owned)
}

/// The container id in one component of a cgroup path, in full: `docker-ID.scope` (also `cri-containerd-`, `crio-`,
/// `libpod-`, `nerdctl-`), `SLICE:cri-containerd:ID`, or the plain `ID`.
pub fn id(component: &str) -> Option<&str> {
    let component = component.strip_suffix(".scope").unwrap_or(component);
    let (runtime, id) =
        component.rfind(['-', ':']).map_or(("", component), |at| (&component[..at], &component[at + 1..]));
    let is_id = id.len() == ID_LEN && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    // The monitor of a container is a process of the host, in a cgroup of its own.
    (is_id && !runtime.ends_with("conmon")).then_some(id)
}

fn unit(component: &str) -> Option<&str> {
    let is_unit = [".service", ".scope"].iter().any(|suffix| component.ends_with(suffix));
    is_unit.then_some(component)
}

/// The paths of a `/proc/PID/cgroup`: cgroup v2's first, then those of v1's hierarchies.
fn paths(cgroup_file: &str) -> impl Iterator<Item = &str> {
    let is_v2 = |line: &&str| line.starts_with("0::");
    let v2 = cgroup_file.lines().filter(is_v2);
    let v1 = cgroup_file.lines().filter(move |line| !is_v2(line));
    iter::chain(v2, v1).filter_map(|line| line.splitn(3, ':').nth(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1c0de5a2b94d7788aa00bb11cc22dd33ee44ff5566778899aabbccddeeff00";

    #[test]
    fn every_runtimes_paths_name_the_container_or_the_unit() {
        let table = [
            ("0::/system.slice/docker-@.scope", "@"),
            ("12:pids:/docker/@\n0::/docker/@", "@"),
            ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-@.scope", "@"),
            ("0::/system.slice/containerd.service/kubepods-besteffort-pod1_2.slice:cri-containerd:@", "@"),
            ("0::/kubepods/besteffort/pod5a1c1b7e-0d0c-4a3f/@", "@"),
            ("0::/kubepods.slice/kubepods-pod1.slice/crio-@.scope/container", "@"),
            ("0::/machine.slice/libpod-@.scope/container", "@"),
            ("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-@.scope", "@"),
            ("0::/system.slice/nerdctl-@.scope", "@"),
            ("0::/system.slice/nginx.service", "nginx.service"),
            ("0::/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
            ("0::/user.slice/user@1000.service/app.slice/app-mail.service", "app-mail.service"),
            ("1:name=systemd:/system.slice/cron.service\n0::/", "cron.service"),
            ("0::/machine.slice/libpod-conmon-@.scope", "libpod-conmon-@.scope"),
        ];
        for (text, expected) in table {
            let expected = expected.replace('@', ID);
            assert_eq!(name(&text.replace('@', ID)), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_innermost_container_is_named() {
        let inner = ID.replace('3', "a");
        let text = format!("0::/docker/{ID}/docker/{inner}");
        assert_eq!(name(&text), Some(inner));
    }

    #[test]
    fn paths_without_a_container_or_unit_name_nothing() {
        for text in ["", "0::/", "0::/user.slice", "0::", "nonsense", "0::/docker/1234", "\0\u{fffd}"] {
            assert_eq!(name(text), None, "{text:?}");
        }
    }
}
