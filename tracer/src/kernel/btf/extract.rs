//! A few types with the ids that they have in the kernel: for a library that needs only these and reads slowly.

use super::encoding::{Encoded, Kind, encode};

/// BTF in which every type that is not `wanted` by its id is a nameless declaration. Of the wanted ones it has kind and name, if they have
/// no list of members, parameters and the like; what they refer to is gone, their ids hold.
pub fn extract(types: &Encoded, wanted: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut strings = vec![0];
    let mut records = vec![[0, head(Kind::Forward), 0]; types.last_id() as usize];
    for id in wanted {
        let Some(record) = types.record(id).filter(|record| record.list.is_empty()) else { continue };
        let Some(place) = (id as usize).checked_sub(1).and_then(|index| records.get_mut(index)) else { continue };
        *place = [strings.len() as u32, head(record.kind), record.size_or_type];
        strings.extend(types.string(record.name).iter().chain(&[0]));
    }
    encode(records.as_flattened(), &strings)
}

/// Of a record without a list.
fn head(kind: Kind) -> u32 {
    u32::from(kind as u8) << 24
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::kernel::btf::names::{Named, Names};

    #[test]
    fn what_is_wanted_has_its_name_and_id_and_nothing_else_has_a_name() {
        for kernel in ["5.10", "6.1", "6.12", "7.2"] {
            let file = format!("{}/tests/fixtures/btf/{kernel}.btf", env!("CARGO_MANIFEST_DIR"));
            let types = Encoded::parse(fs::read(file).expect("a fixture")).expect("BTF");
            let wanted = Names::of(&types).find(&types, Named::Function, b"tcp_connect").expect("a function");
            let extract = Encoded::parse(extract(&types, [0, wanted, u32::MAX])).expect("BTF");
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
