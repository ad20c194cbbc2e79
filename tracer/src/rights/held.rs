//! What this process may do.

use std::sync::LazyLock;

use caps::{CapSet, Capability, CapsHashSet};

use super::{Feature, Right};

/// The rights that this process can make use of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held(CapsHashSet);

static AT_START: LazyLock<Held> = LazyLock::new(|| {
    put_in_effect();
    Held::now()
});

/// A program's file may give rights without putting them in effect, so that it starts too where fewer are to be had.
fn put_in_effect() {
    // What does not come into effect is told as missing.
    let _ = caps::read(None, CapSet::Permitted).and_then(|permitted| caps::set(None, CapSet::Effective, &permitted));
}

impl Held {
    /// Those of the calling thread. None if the kernel does not tell.
    pub fn now() -> Self {
        Self(caps::read(None, CapSet::Effective).unwrap_or_default())
    }

    /// Those that the process had when this was first asked: what was given to it, whatever it has given up since.
    pub fn at_start() -> &'static Self {
        &AT_START
    }

    /// These.
    pub fn of(capabilities: impl IntoIterator<Item = Capability>) -> Self {
        Self(capabilities.into_iter().collect())
    }

    /// The capability that gives this right; `None` if it is missing.
    pub fn by(&self, right: Right) -> Option<Capability> {
        right.held_by(&self.0)
    }

    /// Whether its own capability is held, rather than one that includes it.
    pub fn has_directly(&self, right: Right) -> bool {
        self.0.contains(&right.capability())
    }

    /// Which of a feature's rights are missing.
    pub fn missing_for(&self, feature: &Feature) -> Vec<Right> {
        feature.rights.iter().filter(|right| self.by(**right).is_none()).copied().collect()
    }
}
