//! What the user wants traced, in the forms that the rest needs: settings for the kernel side, the processes that exist
//! now, and a test for sockets found open.

use std::{collections::BTreeSet, fmt, net::SocketAddr, path::Path};

use anyhow::{Result, anyhow, bail};
use tracer_ebpf::{Config, role, select};
use zerocopy::transmute;

use super::{cgroup, cgroup::Cgroup, open_sockets, pid_namespace, process};
use crate::{bpf::filter, cli, stage::event::OpenSocket};

/// Which processes.
#[derive(Clone, Debug)]
pub enum Processes {
    /// All of the node.
    Node,
    /// These and their descendants.
    Pids(Vec<u32>),
    /// All of this name, now and later.
    Comm(String),
    /// All of a cgroup.
    Cgroup(Cgroup),
    /// Our own future children: the command of `run`.
    Children,
}

/// Processes and connections to trace.
#[derive(Clone)]
pub struct Selection {
    processes: Processes,
    config: Config,
}

impl Selection {
    /// Checks and resolves what was typed.
    ///
    /// # Errors
    /// If a target does not exist, or there are more filters than the kernel side compares.
    pub fn new(target: &cli::Target, filter: &cli::Filter) -> Result<Self> {
        Self::of(processes(target)?, filter)
    }

    /// The children of this very process, from now on.
    ///
    /// # Errors
    /// If there are more filters than the kernel side compares.
    pub fn children(filter: &cli::Filter) -> Result<Self> {
        Self::of(Processes::Children, filter)
    }

    fn of(processes: Processes, filter: &cli::Filter) -> Result<Self> {
        let mut config = Config::EVERYTHING;
        filter::set_ports(&mut config, &filter.port).map_err(|error| anyhow!(error))?;
        filter::set_remotes(&mut config, &filter.remote).map_err(|error| anyhow!(error))?;
        config.role = filter.role.map_or(0, |role| role.number().into());
        match &processes {
            Processes::Node => {}
            Processes::Pids(_) | Processes::Children => config.select = select::TARGETS,
            Processes::Comm(name) => {
                config.select = select::TARGETS | select::COMM;
                config.comm = filter::comm(name);
            }
            Processes::Cgroup(cgroup) => {
                config.select = select::CGROUP;
                config.cgroup_id = cgroup.id;
                config.cgroup_level = cgroup.level;
            }
        }
        pid_namespace::settle(&mut config);
        Ok(Self { processes, config })
    }

    /// Settings for the kernel side.
    pub fn config(&self) -> Config {
        self.config
    }

    /// Whether the trace is over when these processes have ended.
    pub fn ends_with_its_processes(&self) -> bool {
        matches!(self.processes, Processes::Pids(_))
    }

    /// Whether the targets are children that this process has yet to start.
    pub fn begins_with_our_children(&self) -> bool {
        matches!(self.processes, Processes::Children)
    }

    /// Whether any of them may be in another network namespace than this process: of those that come later, that is not known.
    pub fn may_be_elsewhere(&self) -> bool {
        match &self.processes {
            Processes::Node | Processes::Comm(_) | Processes::Cgroup(_) => true,
            Processes::Pids(pids) => open_sockets::is_any_elsewhere(&with_descendants(pids)),
            Processes::Children => false,
        }
    }

    /// Whether no target was named.
    pub fn is_whole_node(&self) -> bool {
        matches!(self.processes, Processes::Node)
    }

    /// The selected processes that exist now; `None` if all are selected.
    pub fn present(&self) -> Option<Vec<u32>> {
        match &self.processes {
            Processes::Node => None,
            Processes::Children => Some(Vec::new()),
            Processes::Pids(pids) => Some(with_descendants(pids)),
            Processes::Comm(name) => Some(with_descendants(&process::with_comm(name))),
            Processes::Cgroup(cgroup) => Some(cgroup::processes(cgroup)),
        }
    }

    /// Whether the filters let a socket pass that was found open.
    pub fn admits(&self, socket: &OpenSocket) -> bool {
        let config = &self.config;
        let service = if socket.role == role::SERVER { socket.local } else { socket.remote };
        let ports = &config.ports[..config.port_count as usize];
        let remotes = &config.remotes[..config.remote_count as usize];
        (config.role == 0 || config.role == u32::from(socket.role))
            && (ports.is_empty() || ports.contains(&service.port()))
            && (remotes.is_empty() || remotes.iter().any(|cidr| contains(cidr, socket.remote)))
    }

    /// What to tell the user who waits for something that is not there yet.
    pub fn waiting_for(&self, present: Option<&[u32]>) -> Option<String> {
        match &self.processes {
            Processes::Comm(name) if present.is_some_and(<[u32]>::is_empty) => {
                Some(format!("no process is named '{name}' now; waiting for one to start"))
            }
            Processes::Cgroup(cgroup) if present.is_some_and(<[u32]>::is_empty) => {
                Some(format!("no process is in {} now; waiting for one", cgroup.path.display()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.processes {
            Processes::Node => f.write_str("the whole node"),
            Processes::Children => f.write_str("the command and its children"),
            Processes::Comm(name) => write!(f, "processes named '{name}'"),
            Processes::Cgroup(cgroup) => write!(f, "cgroup {}", cgroup.path.display()),
            Processes::Pids(pids) => {
                let list: Vec<_> = pids.iter().map(u32::to_string).collect();
                write!(f, "PID {}", list.join(", "))
            }
        }
    }
}

fn processes(target: &cli::Target) -> Result<Processes> {
    if !target.pid.is_empty() {
        if pid_namespace::is_proc_foreign() {
            bail!(
                "/proc shows another PID namespace than conntracer is in, so no PID can be told: \
                 mount /proc anew, or start conntracer in the PID namespace that /proc is of"
            );
        }
        for pid in &target.pid {
            process::check(*pid)?;
        }
        return Ok(Processes::Pids(target.pid.clone()));
    }
    if let Some(name) = &target.comm {
        return Ok(Processes::Comm(name.clone()));
    }
    if let Some(id) = &target.container {
        return Ok(Processes::Cgroup(cgroup::by_container(id)?));
    }
    if let Some(path) = &target.cgroup {
        return Ok(Processes::Cgroup(cgroup::by_path(Path::new(path))?));
    }
    Ok(Processes::Node)
}

fn with_descendants(pids: &[u32]) -> Vec<u32> {
    let mut all: BTreeSet<u32> = pids.iter().copied().collect();
    for pid in pids {
        all.extend(process::descendants(*pid));
    }
    all.into_iter().collect()
}

fn contains(cidr: &tracer_ebpf::Cidr, remote: SocketAddr) -> bool {
    let remote = match remote {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
        SocketAddr::V6(v6) => *v6.ip(),
    };
    let words: [u32; 4] = transmute!(remote.octets());
    words.iter().zip(cidr.mask).zip(cidr.network).all(|((word, mask), network)| word & mask == network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(role: u8, local: &str, remote: &str) -> OpenSocket {
        OpenSocket {
            at: 1,
            cookie: 1,
            pid: 1,
            process_started_at: 0,
            netns: 1,
            role,
            state: 1,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            bytes_sent: None,
            bytes_received: None,
            retransmits: None,
            srtt: None,
            keepalive: None,
            sent_idle: None,
            received_idle: None,
        }
    }

    fn selection(port: &[u16], remote: &[&str], role: Option<cli::Role>) -> Selection {
        let remote = remote.iter().map(|network| network.parse().unwrap()).collect();
        Selection::of(Processes::Node, &cli::Filter { port: port.to_vec(), remote, role }).unwrap()
    }

    #[test]
    fn the_service_port_is_the_remote_one_of_a_client_and_the_local_one_of_a_server() {
        let to_443 = socket(role::CLIENT, "10.0.0.1:5000", "10.0.0.2:443");
        let on_443 = socket(role::SERVER, "10.0.0.1:443", "10.0.0.2:5000");
        assert!(selection(&[443], &[], None).admits(&to_443));
        assert!(selection(&[443], &[], None).admits(&on_443));
        assert!(!selection(&[5000], &[], None).admits(&to_443));
        assert!(!selection(&[5000], &[], None).admits(&on_443));
    }

    #[test]
    fn every_filter_must_admit_a_socket() {
        let client = socket(role::CLIENT, "10.0.0.1:5000", "10.0.0.2:443");
        assert!(selection(&[80, 443], &["10.0.0.0/8"], Some(cli::Role::Client)).admits(&client));
        assert!(!selection(&[80], &["10.0.0.0/8"], None).admits(&client));
        assert!(!selection(&[443], &["11.0.0.0/8"], None).admits(&client));
        assert!(!selection(&[], &[], Some(cli::Role::Server)).admits(&client));
    }
}
