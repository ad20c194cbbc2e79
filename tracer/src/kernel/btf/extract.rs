//! A few types by their names, with the ids that they have in the kernel: for a library that needs only these and reads slowly.

use std::collections::HashSet;

use super::encoding::{Encoded, Kind, encode};

/// Records without a list, so that what is kept of one is its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Named {
    /// A function.
    Function,
    /// A `typedef`.
    Typedef,
}

impl Named {
    fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Function => Some(Self::Function),
            Kind::Typedef => Some(Self::Typedef),
            _ => None,
        }
    }
}

/// BTF in which every type that is not `wanted` is a nameless declaration. What the wanted ones refer to is gone, their ids hold.
pub fn extract(types: &Encoded, wanted: &HashSet<(Named, String)>) -> Vec<u8> {
    let wanted: HashSet<_> = wanted.iter().map(|(kind, name)| (*kind, name.as_bytes())).collect();
    let mut strings = vec![0];
    let mut records = Vec::with_capacity(types.last_id() as usize);
    for record in (1..=types.last_id()).filter_map(|id| types.record(id)) {
        let name = types.string(record.name);
        let is_wanted = Named::of(record.kind).is_some_and(|kind| wanted.contains(&(kind, name)));
        records.push(if is_wanted {
            let place = strings.len() as u32;
            strings.extend(name.iter().chain(&[0]));
            [place, u32::from(record.kind as u8) << 24, record.size_or_type]
        } else {
            [0, u32::from(Kind::Forward as u8) << 24, 0]
        });
    }
    encode(records.as_flattened(), &strings)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_wanted_has_its_name_and_id_and_nothing_else_has_a_name() {
        for kernel in ["5.10", "6.1", "6.12", "7.2"] {
            let file = format!("{}/tests/fixtures/btf/{kernel}.btf", env!("CARGO_MANIFEST_DIR"));
            let types = Encoded::parse(&fs::read(file).expect("a fixture")).expect("BTF");
            let wanted = [(Named::Function, "tcp_connect"), (Named::Function, "no_such_function")];
            let wanted = wanted.map(|(kind, name)| (kind, name.to_owned())).into();
            let extract = Encoded::parse(&extract(&types, &wanted)).expect("BTF");
            assert_eq!(extract.last_id(), types.last_id());
            let mut found = 0;
            for id in 1..=types.last_id() {
                let [before, after] =
                    [&types, &extract].map(|of| of.record(id).map(|record| (record.kind, of.string(record.name))));
                if before == Some((Kind::Function, b"tcp_connect")) {
                    assert_eq!(after, before);
                    found += 1;
                } else {
                    assert_eq!(after, Some((Kind::Forward, &b""[..])));
                }
            }
            assert_eq!(found, 1, "{kernel}");
        }
    }
}
