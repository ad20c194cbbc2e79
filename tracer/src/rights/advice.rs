//! How to get a right that is missing, as a person types it.

use std::{env, error::Error, io};

use anyhow::anyhow;
use rustix::thread::SecureComputingMode;

use super::{Feature, Held, Right, table};

/// What to tell the user if tracing is not allowed.
pub fn obstacle(held: &Held, program: &str) -> Option<String> {
    let missing = held.missing_for(&table::TRACING);
    (!missing.is_empty()).then(|| {
        format!(
            "tracing needs {}: run with sudo, or once `{}`; in a container add {} --pid=host \
             (kernels before 5.8 know only CAP_SYS_ADMIN)",
            listed(&missing),
            setcap(held, table::FEATURES.iter().filter(|feature| is_usual(feature)), program),
            container_flags()
        )
    })
}

/// What a feature needs that this process was started without, and how to get it: the end of a message.
pub fn how_to_get(feature: &Feature) -> String {
    how_to_get_beside(feature, Held::at_start())
}

/// The same, in parentheses, after an error that is a refusal; else nothing.
pub fn if_refused(error: &anyhow::Error, feature: &Feature) -> String {
    let is_refusal = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    if error.chain().any(is_refusal) { format!(" ({})", how_to_get(feature)) } else { String::new() }
}

/// An error with the way out, if it is a refusal.
pub fn advised(error: anyhow::Error, feature: &Feature) -> anyhow::Error {
    match if_refused(&error, feature).as_str() {
        "" => error,
        advice => anyhow!("{error:#}{advice}"),
    }
}

fn how_to_get_beside(feature: &Feature, held: &Held) -> String {
    let missing = held.missing_for(feature);
    // The other features take no system call that engines forbid.
    let takes_bpf = [table::TRACING, table::MEMORY, table::PROBES].contains(feature);
    let filter = if takes_bpf && is_filtered() {
        "; a seccomp filter is in force, which may forbid it too: in a container add --security-opt seccomp=unconfined, see \
         docs/containers.md"
    } else {
        ""
    };
    if missing.is_empty() {
        return format!(
            "no right is missing that conntracer knows of: a security module, a user namespace or a mount forbids it{filter}"
        );
    }
    format!(
        "needs {}: run with sudo, or once `{}`; see docs/permissions.md{filter}",
        listed(&missing),
        setcap(held, [feature], &own_path())
    )
}

/// Whether a seccomp filter decides which system calls this process may make. Those of some container engines forbid `bpf` and
/// `perf_event_open` even to who has the capabilities for them.
pub fn is_filtered() -> bool {
    // A filter may forbid this question as well.
    rustix::thread::secure_computing_mode() != Ok(SecureComputingMode::Disabled)
}

/// Path of this program, for messages that name it.
pub fn own_path() -> String {
    env::current_exe().map_or_else(|_| "conntracer".to_owned(), |path| path.display().to_string())
}

/// The command that gives the program what it has by now, what it cannot do without, and what these features take. It replaces
/// what was given before.
pub fn setcap<'f>(held: &Held, features: impl IntoIterator<Item = &'f Feature>, program: &str) -> String {
    let wanted: Vec<Right> = features.into_iter().flat_map(|feature| feature.rights).copied().collect();
    let is_given =
        |right: &&Right| table::TRACING.rights.contains(right) || wanted.contains(right) || held.has_directly(**right);
    let names: Vec<_> = Right::ALL.iter().filter(is_given).map(|right| right.name().to_lowercase()).collect();
    format!("sudo setcap {}=ep {program}", names.join(","))
}

/// What most people want: all that takes neither CAP_SYS_ADMIN nor an old kernel.
pub fn is_usual(feature: &Feature) -> bool {
    [table::TRACING, table::PROCESSES, table::OWNERS].contains(feature)
}

/// The rights of [`is_usual`] features, each once.
pub fn usual() -> Vec<Right> {
    let mut rights: Vec<_> = table::FEATURES
        .iter()
        .filter(|feature| is_usual(feature))
        .flat_map(|feature| feature.rights)
        .copied()
        .collect();
    rights.sort_unstable();
    rights.dedup();
    rights
}

fn container_flags() -> String {
    let flags: Vec<_> =
        usual().iter().map(|right| format!("--cap-add {}", right.name().trim_start_matches("CAP_"))).collect();
    flags.join(" ")
}

fn listed(rights: &[Right]) -> String {
    let names: Vec<_> = rights.iter().map(|right| right.name()).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use caps::Capability;

    use super::*;

    #[test]
    fn what_tracing_lacks_is_named_with_the_way_to_get_it() {
        let message = obstacle(&Held::of([]), "/usr/bin/conntracer").expect("cannot trace");
        for part in [
            "CAP_BPF and CAP_PERFMON",
            "`sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search=ep /usr/bin/conntracer`",
            "--cap-add BPF --cap-add PERFMON --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(Held::of([Capability::CAP_BPF]).missing_for(&table::TRACING), [Right::Perfmon]);
    }

    #[test]
    fn either_the_two_or_admin_is_enough_to_trace() {
        for held in [&[Capability::CAP_BPF, Capability::CAP_PERFMON][..], &[Capability::CAP_SYS_ADMIN]] {
            assert_eq!(obstacle(&Held::of(held.iter().copied()), "conntracer"), None);
        }
    }

    #[test]
    fn only_a_refusal_is_answered_by_advice() {
        let error = |kind| anyhow::Error::from(io::Error::from(kind)).context("cannot do it");
        assert_eq!(if_refused(&error(io::ErrorKind::NotFound), &table::TRACING), "");
        assert!(if_refused(&error(io::ErrorKind::PermissionDenied), &table::TRACING).starts_with(" ("));
    }

    #[test]
    fn the_command_keeps_what_the_program_has() {
        let held = Held::of([Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_SYS_PTRACE]);
        let advice = how_to_get_beside(&table::OWNERS, &held);
        assert!(advice.starts_with("needs CAP_DAC_READ_SEARCH: "), "{advice}");
        assert!(advice.contains("cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search=ep"), "{advice}");
        assert!(how_to_get_beside(&table::PROCESSES, &held).starts_with("no right is missing"));
    }
}
