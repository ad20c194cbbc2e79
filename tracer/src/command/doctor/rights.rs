//! What this process may do, and how to get the rest.

use super::report::{Lacking, Rights};
use crate::rights::{FEATURES, Feature, Held, Right, advice};

/// Held and missing.
pub fn look() -> Rights {
    let held = Held::at_start();
    let lacks = |feature: &&Feature| !held.missing_for(feature).is_empty();
    let lacking: Vec<&Feature> = FEATURES.iter().filter(lacks).collect();
    let mut names: Vec<_> = Right::ALL.iter().filter_map(|right| held.by(*right)).map(|one| one.to_string()).collect();
    // One may give several.
    names.sort_unstable();
    names.dedup();
    Rights {
        held: names,
        command: (!lacking.is_empty()).then(|| advice::setcap(held, lacking.iter().copied(), &advice::own_path())),
        lacking: lacking.into_iter().map(|feature| lack(held, feature)).collect(),
    }
}

/// What to tell the user if these rights are not enough to trace.
pub fn obstacle() -> Option<String> {
    advice::obstacle(Held::at_start(), &advice::own_path())
}

fn lack(held: &Held, feature: &'static Feature) -> Lacking {
    let missing = held.missing_for(feature).into_iter().map(Right::name).collect();
    Lacking { feature: feature.name, missing, without: feature.without }
}
