//! The offsets of real kernels: what the BTF reader finds in the fixtures (see `fixtures/btf/README.md`) against what
//! `bpftool` says of the same kernels.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use tracer::kernel::{btf::Btf, offsets};
use tracer_ebpf::Offsets;
use zerocopy::IntoBytes;

const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btf").join(name)
}

fn btf_of(kernel: &str) -> Btf {
    Btf::from_file(&fixture(&format!("{kernel}.btf"))).expect("the fixture is BTF")
}

fn by_name(table: &Offsets) -> BTreeMap<String, u32> {
    let fields = Offsets::FIELDS.iter().map(|field| field.name);
    let names = fields.chain(Offsets::ENUMERATORS.iter().map(|one| one.name));
    let words = table.as_bytes().chunks_exact(4);
    let words = words.map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")));
    names.map(str::to_owned).zip(words).collect()
}

fn expected(kernel: &str) -> BTreeMap<String, u32> {
    let text = fs::read_to_string(fixture(&format!("{kernel}.offsets"))).expect("readable");
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ').expect("name and value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    text.lines().map(pair).collect()
}

#[test]
fn offsets_of_four_kernels_equal_what_bpftool_says() {
    for kernel in KERNELS {
        let resolved = offsets::resolve(&btf_of(kernel));
        assert_eq!(resolved.missing, [], "on {kernel}");
        assert_eq!(by_name(&resolved.offsets), expected(kernel), "on {kernel}");
    }
}

#[test]
fn prototypes_follow_the_kernel() {
    let count = |kernel| btf_of(kernel).prototype("inet_csk_accept").map(|prototype| prototype.parameters.len());
    assert_eq!(KERNELS.map(count), [Some(4), Some(4), Some(2), Some(2)], "two parameters went after 6.8");
}

#[test]
fn prototypes_carry_names_and_types() {
    let prototype = btf_of("6.1").prototype("inet_csk_accept");
    let prototype = prototype.expect("the function is in the fixture");
    let parameters = prototype.parameters.iter();
    let parameters = parameters.map(|one| (one.type_name.as_str(), one.name.as_str()));
    assert_eq!(
        parameters.collect::<Vec<_>>(),
        [("struct sock *", "sk"), ("int", "flags"), ("int *", "err"), ("bool", "kern")]
    );
    assert_eq!(prototype.returns, "struct sock *");
}

#[test]
fn a_member_that_is_missing_is_named_with_its_path() {
    let btf = btf_of("6.1");
    let message = |of, path| btf.member(of, path).expect_err("missing").to_string();
    assert_eq!(message("sock", "__sk_common.skc_frob"), "sock.__sk_common has no member skc_frob");
    assert_eq!(message("frob", "x"), "this kernel has no struct frob");
    assert_eq!(message("sock", "sk_err.x"), "sock.sk_err has no member x");
    assert_eq!(message("sock", "sk_no_check_tx"), "sock.sk_no_check_tx is a bitfield");
}

/// Asks all there is to ask; answers do not matter, ending does.
fn exercise(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(bytes) else { return };
    offsets::resolve(&btf);
    for function in ["inet_csk_accept", "tcp_connect", "tcp_close", "tcp_done"] {
        btf.prototype(function);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn btf_cut_short_anywhere_is_refused_or_answered(cut in 0usize..60_000) {
        let bytes = fs::read(fixture("5.10.btf")).expect("readable");
        exercise(&bytes[..cut.min(bytes.len())]);
    }

    #[test]
    fn damaged_btf_is_refused_or_answered(damage in prop::collection::vec((0usize..51_000, any::<u8>()), 1..200)) {
        let mut bytes = fs::read(fixture("5.10.btf")).expect("readable");
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        exercise(&bytes);
    }
}
