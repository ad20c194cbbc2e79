//! The container or systemd unit of a process, read off its cgroup paths.

use std::iter;

/// Length of the ids that container runtimes give: 256 bits in hexadecimal.
const ID_LEN: usize = 64;

/// Length of the first part of the ids of AWS Fargate, in hexadecimal; digits follow.
const FARGATE_LEN: usize = 32;

/// Names the container, or else the machine of LXC or systemd-nspawn, or else the systemd unit, of a process from the text of its
/// `/proc/PID/cgroup`. The innermost one is taken. `None` if the paths name none, as inside a cgroup namespace.
pub fn name(cgroup_file: &str) -> Option<String> {
    let found = |test: fn(&str) -> Option<&str>| paths(cgroup_file).find_map(|path| path.rsplit('/').find_map(test));
    let found_id = found(id).map(str::to_owned);
    found_id.or_else(|| paths(cgroup_file).find_map(machine)).or_else(|| found(unit).map(str::to_owned))
}

/// The container id in one component of a cgroup path, in full: `docker-ID.scope` (also `cri-containerd-`, `crio-`,
/// `libpod-`, `nerdctl-`), `SLICE:cri-containerd:ID`, or the plain `ID`.
pub fn id(component: &str) -> Option<&str> {
    if is_of_fargate(component) {
        return Some(component);
    }
    let component = component.strip_suffix(".scope").unwrap_or(component);
    let (runtime, id) =
        component.rfind(['-', ':']).map_or(("", component), |at| (&component[..at], &component[at + 1..]));
    let is_id = id.len() == ID_LEN && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    // The monitor of a container is a process of the host, in a cgroup of its own.
    (is_id && !runtime.ends_with("conmon")).then_some(id)
}

/// `HEXADECIMAL-DIGITS`, in which Fargate puts the task and a number.
fn is_of_fargate(component: &str) -> bool {
    component.split_once('-').is_some_and(|(task, number)| {
        task.len() == FARGATE_LEN
            && task.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The innermost machine: `lxc.payload.NAME` (LXC from 4.0 on, LXD, Incus), `lxc/NAME` (before), `systemd-nspawn@NAME.service`. Their
/// monitors are processes of the host.
fn machine(path: &str) -> Option<String> {
    let components: Vec<&str> = path.split('/').collect();
    let of = |(at, component): (usize, &&str)| {
        let nspawn = || component.strip_prefix("systemd-nspawn@")?.strip_suffix(".service");
        let older = || (at > 0 && components.get(at - 1) == Some(&"lxc")).then_some(*component);
        let name = component.strip_prefix("lxc.payload.").or_else(nspawn).or_else(older)?;
        (!name.is_empty()).then(|| unescaped(name))
    };
    components.iter().enumerate().rev().find_map(of)
}

/// systemd writes `-` as `\x2d`, and others likewise, in the names of instances.
fn unescaped(name: &str) -> String {
    let mut parts = name.split(r"\x");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(u8::is_ascii);
        match code {
            Some(code) => {
                text.push(code.into());
                text.push_str(&part[2..]);
            }
            None => {
                text.push_str(r"\x");
                text.push_str(part);
            }
        }
    }
    text
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
            // Docker on v1, by cgroupfs and by systemd.
            ("9:memory:/docker/@\n1:name=systemd:/docker/@", "@"),
            ("9:memory:/system.slice/docker-@.scope\n0::/system.slice/containerd.service", "@"),
            ("11:cpu,cpuacct:/docker/@/init.scope", "@"),
            // containerd without Kubernetes (its namespace comes first), and nerdctl.
            ("0::/default/@", "@"),
            ("3:pids:/k8s.io/@", "@"),
            ("0::/system.slice/nerdctl-@.scope", "@"),
            // Kubernetes: guaranteed, burstable, best effort; by systemd and by cgroupfs; v1 and v2.
            ("0::/kubepods.slice/kubepods-pod8d_1.slice/cri-containerd-@.scope", "@"),
            ("0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod8d_1.slice/docker-@.scope", "@"),
            ("5:memory:/kubepods/pod8d3ac3f4-1b7e-4b7e-9a57-d5b5a6f0f0b6/@", "@"),
            ("5:memory:/kubepods/burstable/pod8d3ac3f4-1b7e-4b7e-9a57-d5b5a6f0f0b6/@", "@"),
            ("5:memory:/kubepods/besteffort/podb1/crio-@", "@"),
            ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podb1.slice/crio-@.scope", "@"),
            ("0::/kubepods.slice/kubepods-podb1.slice/crio-conmon-@.scope", "crio-conmon-@.scope"),
            // kind: a node in Docker, with pods in it.
            ("0::/system.slice/docker-@.scope/kubelet.slice/kubelet-kubepods.slice/cri-containerd-@.scope", "@"),
            // Podman: rootful by systemd and by cgroupfs, in a pod, rootless.
            ("0::/libpod_parent/libpod-@", "@"),
            ("0::/machine.slice/machine-libpod_pod_7.slice/libpod-@.scope/container", "@"),
            ("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-@.scope/container", "@"),
            ("2:pids:/user.slice/user-1000.slice/user@1000.service/user.slice/podman-77.scope/@", "@"),
            // ECS, on machines of one's own and on Fargate.
            ("9:memory:/ecs/6f1f5a4e-3c1d-4f3b-a9ae-111111111111/@", "@"),
            (
                "0::/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-3405691582",
                "0123456789abcdef0123456789abcdef-3405691582",
            ),
            // LXC, LXD and Incus, and systemd-nspawn; what they run has units of its own.
            ("0::/lxc.payload.web-1/system.slice/nginx.service", "web-1"),
            ("0::/lxc.monitor.web-1", ""),
            ("4:memory:/lxc/web-1", "web-1"),
            ("4:memory:/lxc/web-1/system.slice/cron.service\n1:name=systemd:/lxc/web-1/init.scope", "web-1"),
            (r"0::/machine.slice/systemd-nspawn@web\x2d1.service/payload/system.slice/nginx.service", "web-1"),
            ("0::/lxc.payload.host/docker/@", "@"),
            // Units: of the system, of a user, templates, the machine's first process.
            ("0::/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
            (r"0::/system.slice/mnt-my\x2ddata.service", r"mnt-my\x2ddata.service"),
            ("0::/init.scope", "init.scope"),
            ("0::/user.slice/user-1000.slice/user@1000.service/init.scope", "init.scope"),
        ];
        for (text, expected) in table {
            // A template's or a user's unit has that sign too, but not where an id would stand.
            let with_id = |text: &str| text.replace("-@", &format!("-{ID}")).replace("/@", &format!("/{ID}"));
            let (given, expected) = (with_id(&text.replace(":@", &format!(":{ID}"))), with_id(expected));
            let expected = if expected == "@" { ID.to_owned() } else { expected };
            assert_eq!(name(&given), Some(expected).filter(|name| !name.is_empty()), "{text}");
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
