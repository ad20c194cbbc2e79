//! Giving up what is no longer needed once the hooks are in place: what reads strangers' bytes from then on should not be able to do
//! more than it has to.

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};
use rustix::thread::set_no_new_privs;

use super::{
    FEATURES, Feature, Held, Kept, Right,
    table::{PROBES, TRACING},
};

/// What a trace may still have to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later {
    /// The kernel asks for rights at each look into a map.
    pub maps_are_guarded: bool,
    /// Put hooks back that were taken off because they cost too much.
    pub hooks: bool,
    /// The kernel lets only CAP_SYS_ADMIN do that with one of them.
    pub hooks_take_admin: bool,
    /// Put probes on libraries.
    pub libraries: bool,
    /// The kernel lets only CAP_SYS_ADMIN do that.
    pub probes_take_admin: bool,
    /// List the sockets of other network namespaces.
    pub namespaces: bool,
}

impl Later {
    fn takes(self, kept: Kept) -> bool {
        match kept {
            Kept::Start => false,
            Kept::WhileAsked => self.maps_are_guarded || self.hooks,
            Kept::WhileProbing => self.libraries,
            Kept::WhileElsewhere => self.namespaces,
            Kept::Whole => true,
        }
    }

    /// The rights that this takes, as far as they are held.
    fn keeps(self, held: &Held) -> CapsHashSet {
        let features = FEATURES.iter().filter(|feature| self.takes(feature.kept));
        let is_needed = |feature: &Feature, right: Right| match right {
            Right::Perfmon => *feature != TRACING || self.hooks,
            Right::SysAdmin => *feature != PROBES || self.probes_take_admin,
            _ => true,
        };
        let rights =
            features.flat_map(|feature| feature.rights.iter().filter(move |right| is_needed(feature, **right)));
        let of_hooks = self.hooks_take_admin.then_some(&Right::SysAdmin);
        rights.chain(of_hooks).filter_map(|right| held.by(*right)).collect()
    }
}

/// Gives up all rights but those for what may come, in every set that the calling thread can pass on or regain them from, for good. Each
/// thread has sets of its own.
///
/// # Errors
/// If the kernel refuses.
pub fn give_up(later: Later) -> Result<()> {
    keep_only(&later.keeps(&Held::now()))
}

/// Gives up every right of the calling thread, for good.
///
/// # Errors
/// If the kernel refuses.
pub fn give_up_all() -> Result<()> {
    keep_only(&CapsHashSet::new())
}

fn keep_only(keep: &CapsHashSet) -> Result<()> {
    set_no_new_privs(true).context("cannot give up the right to gain rights")?;
    // To leave that set takes a right of its own, so it comes first. Without it nothing comes of the set any more: programs that
    // would be started gain nothing.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        let kept = caps::read(None, set)?.intersection(keep).copied().collect();
        caps::set(None, set, &kept)?;
    }
    Ok(())
}

/// Whether something works without a right, tried with it out of effect for a moment. What decides is what the kernel does, not its
/// version.
///
/// # Errors
/// If the kernel refuses to put it in effect again.
pub fn works_without(right: Right, attempt: impl FnOnce() -> bool) -> Result<bool> {
    let effective = caps::read(None, CapSet::Effective)?;
    let gives = |held: &Capability| right.held_by(&[*held].into()).is_some();
    let without: CapsHashSet = effective.iter().filter(|held| !gives(held)).copied().collect();
    caps::set(None, CapSet::Effective, &without)?;
    let works = attempt();
    caps::set(None, CapSet::Effective, &effective)?;
    Ok(works)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Later = Later {
        maps_are_guarded: false,
        hooks: false,
        hooks_take_admin: false,
        libraries: false,
        probes_take_admin: false,
        namespaces: false,
    };

    fn kept(later: Later, held: &[Capability]) -> Vec<String> {
        let mut names: Vec<_> =
            later.keeps(&Held::of(held.iter().copied())).iter().map(|capability| capability.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_may_still_be_needed_is_kept() {
        let all: Vec<_> = caps::all().into_iter().collect();
        assert_eq!(kept(NOTHING, &all), ["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"]);
        let guarded = Later { maps_are_guarded: true, ..NOTHING };
        assert_eq!(kept(guarded, &all), ["CAP_BPF", "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"]);
        let elsewhere = Later { namespaces: true, ..NOTHING };
        assert_eq!(kept(elsewhere, &all), ["CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]);
    }

    #[test]
    fn hooks_that_may_be_put_back_keep_what_loading_took() {
        let held = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN];
        assert_eq!(kept(Later { hooks: true, ..NOTHING }, &held), ["CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn probes_to_come_keep_admin_only_where_the_kernel_asks_for_it() {
        use Capability::{CAP_BPF, CAP_CHECKPOINT_RESTORE, CAP_PERFMON, CAP_SYS_ADMIN};
        // Without the third the last would open deleted libraries, and be kept for that.
        let held = [CAP_BPF, CAP_PERFMON, CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN];
        let libraries = Later { libraries: true, ..NOTHING };
        assert_eq!(kept(libraries, &held), ["CAP_CHECKPOINT_RESTORE", "CAP_PERFMON"]);
        let with_admin = Later { probes_take_admin: true, ..libraries };
        assert_eq!(kept(with_admin, &held), ["CAP_CHECKPOINT_RESTORE", "CAP_PERFMON", "CAP_SYS_ADMIN"]);
    }

    #[test]
    fn a_right_that_only_admin_gives_is_kept_by_it() {
        let guarded = Later { maps_are_guarded: true, ..NOTHING };
        assert_eq!(kept(guarded, &[Capability::CAP_SYS_ADMIN]), ["CAP_SYS_ADMIN"]);
        assert_eq!(kept(NOTHING, &[Capability::CAP_SYS_ADMIN]), [""; 0]);
    }
}
