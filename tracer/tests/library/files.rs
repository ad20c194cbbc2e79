//! What files are, and where in them the functions are: files that no compiler here makes, and damaged ones.

use std::{fs, process::Command};

use proptest::{prelude::*, sample::Index};
use tracer::target::library::{Analysis, Damage, FunctionName, Kind, Release, analyse};

use crate::{
    image::{FUNCTION, GoText, Hash, Image},
    processes::system_library,
};

const SSL: &[&str] = &["SSL_do_handshake", "SSL_read", "SSL_write"];
const GO: &[&str] = &["runtime.main", "crypto/tls.(*Conn).Write", "crypto/tls.(*Conn).Read"];

fn kinds(image: Image<'_>) -> Vec<(Kind, Option<String>)> {
    let parts = analyse(&image.build().0).expect("sound").parts;
    parts.into_iter().map(|part| (part.kind, part.version)).collect()
}

#[test]
fn libraries_with_openssls_interface_are_told_apart() {
    let release = |major, minor| Kind::OpenSsl { release: Some(Release { major, minor }) };
    let boring = [SSL, &["SSL_CTX_set_custom_verify"]].concat();
    let base = Image { dynamic: SSL, ..Image::default() };
    let table = [
        (Image { soname: "libssl.so.1.1", ..base }, release(1, 1), None),
        (Image { constants: "\0OpenSSL 1.1.1w  11 Sep 2023\0", ..base }, release(1, 1), Some("1.1.1w")),
        (Image { constants: "\0LibreSSL 3.8.2\0", soname: "libssl.so.56", ..base }, Kind::LibreSsl, Some("3.8.2")),
        (Image { dynamic: &boring, constants: "\0OpenSSL 1.1.1 11 Sep 2018\0", ..base }, Kind::BoringSsl, None),
        (Image { dynamic: &["BIO_write"], ..base }, Kind::Crypto, None),
        (Image { dynamic: &["gnutls_handshake"], ..base }, Kind::GnuTls, None),
        (Image { dynamic: &["getaddrinfo"], ..base }, Kind::Libc, None),
        (Image { full: &["getaddrinfo"], dynamic: &["main"], ..base }, Kind::Libc, None),
        (base, Kind::OpenSsl { release: None }, None),
    ];
    for (image, kind, version) in table {
        assert_eq!(kinds(image), [(kind, version.map(str::to_owned))], "{image:?}");
    }
}

#[test]
fn what_only_uses_a_library_is_none() {
    let wrapper = ["SSL_read", "SSL_write", "SSL_connect"];
    for image in [
        Image { imported: SSL, ..Image::default() },
        Image { imported: &["getaddrinfo"], full: &["getaddrinfo_a"], ..Image::default() },
        Image { imported: SSL, dynamic: &["main"], full: &["main"], ..Image::default() },
        Image { dynamic: &wrapper, imported: &["gnutls_handshake"], ..Image::default() },
        Image { go: Some((&["runtime.main"], GoText::InTable)), ..Image::default() },
    ] {
        assert_eq!(kinds(image), [], "{image:?}");
    }
}

#[test]
fn every_symbol_table_tells_the_functions() {
    let base = Image::default();
    for image in [
        Image { dynamic: SSL, imported: &["free", "malloc"], ..base },
        Image { dynamic: SSL, hash: Hash::SysV, ..base },
        Image { full: SSL, ..base },
        Image { full: SSL, imported: &["free"], ..base },
    ] {
        let (bytes, text) = image.build();
        let parts = analyse(&bytes).expect("sound").parts;
        let found: Vec<_> = parts[0].functions.iter().map(|each| (each.name, each.offset - text, each.size)).collect();
        use FunctionName::*;
        assert_eq!(
            found,
            [(SslRead, FUNCTION, FUNCTION), (SslWrite, 2 * FUNCTION, FUNCTION), (SslDoHandshake, 0, FUNCTION)],
            "{image:?}"
        );
    }
}

#[test]
fn gos_functions_are_told_wherever_the_codes_beginning_is() {
    for place in [GoText::InTable, GoText::InModule] {
        let (bytes, text) = Image { go: Some((GO, place)), ..Image::default() }.build();
        let parts = analyse(&bytes).expect("sound").parts;
        assert_eq!(parts[0].kind, Kind::Go { release: Some(Release { major: 1, minor: 26 }) });
        let found: Vec<_> = parts[0].functions.iter().map(|each| (each.name, each.offset - text, each.size)).collect();
        assert_eq!(
            found,
            [(FunctionName::GoRead, 2 * FUNCTION, FUNCTION), (FunctionName::GoWrite, FUNCTION, FUNCTION)],
            "{place:?}"
        );
    }
}

#[test]
fn where_gos_code_begins_is_never_guessed() {
    let (bytes, _) = Image { go: Some((GO, GoText::Nowhere)), ..Image::default() }.build();
    assert!(matches!(analyse(&bytes), Err(Damage::Malformed(_))));
}

#[test]
fn one_file_may_hold_several_libraries() {
    let image = Image { dynamic: SSL, go: Some((GO, GoText::InTable)), ..Image::default() };
    let is_both = matches!(&kinds(image)[..], [(Kind::OpenSsl { .. }, _), (Kind::Go { .. }, _)]);
    assert!(is_both, "{:?}", kinds(image));
    // A stand-in for the C library's function does not hide what was linked in.
    let image = Image { dynamic: &["getaddrinfo"], full: SSL, ..Image::default() };
    let is_both = matches!(&kinds(image)[..], [(Kind::OpenSsl { .. }, _), (Kind::Libc, _)]);
    assert!(is_both, "{:?}", kinds(image));
}

#[test]
fn files_for_another_machine_are_named_as_such() {
    const MACHINE: usize = 0x12;
    const CLASS: usize = 4;
    for (place, value) in [(MACHINE, 8), (CLASS, 1)] {
        let (mut bytes, _) = Image { dynamic: SSL, ..Image::default() }.build();
        bytes[place] = value;
        assert!(matches!(analyse(&bytes), Err(Damage::Foreign)), "{place}");
    }
}

/// What is written over a file: the size of a number, the number, and where.
fn damage() -> impl Strategy<Value = Vec<(usize, u64, Index)>> {
    let number = prop_oneof![
        any::<u64>(),
        0_u64..256,
        (0_u32..64).prop_map(|bit| 1 << bit),
        (0_u32..64).prop_map(|bit| u64::MAX << bit),
    ];
    prop::collection::vec((1_usize..=8, number, any::<Index>()), 1..12)
}

/// The places of `bytes` that hold most of its structure get most of the damage.
fn damaged(bytes: &[u8], damage: &[(usize, u64, Index)], cut: Option<Index>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (size, number, place) in damage {
        let place = place.index(bytes.len());
        let size = (*size).min(bytes.len() - place);
        bytes[place..place + size].copy_from_slice(&number.to_le_bytes()[..size]);
    }
    let length = cut.map_or(bytes.len(), |cut| cut.index(bytes.len()));
    bytes.truncate(length);
    bytes
}

fn image_of_everything() -> Vec<u8> {
    let constants = "\0OpenSSL 3.0.19 27 Jan 2026\0";
    let go = Some((GO, GoText::InModule));
    let names = ["malloc"];
    Image { soname: "libssl.so.3", dynamic: SSL, imported: &names, full: SSL, constants, go, ..Image::default() }
        .build()
        .0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_damage_makes_it_panic_or_take_long(damage in damage(), cut in prop::option::weighted(0.1, any::<Index>())) {
        let started = std::time::Instant::now();
        let _ = analyse(&damaged(&image_of_everything(), &damage, cut));
        prop_assert!(started.elapsed().as_secs() < 10);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = analyse(&bytes);
        let _ = analyse(&[b"\x7fELF\x02\x01\x01".to_vec(), bytes].concat());
    }
}

#[test]
fn no_damage_to_a_real_library_makes_it_panic_or_take_long() {
    let bytes = fs::read(system_library("libssl.so.3")).expect("readable");
    let sound = analyse(&bytes).expect("sound");
    assert_ne!(sound, Analysis::default());
    // Its headers, and the tables of the dynamic symbols, are at its beginning and at its end.
    let (head, tail) = (40_000, bytes.len() - 20_000);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    let strategy = (damage(), damage(), prop::option::weighted(0.1, any::<Index>()));
    let outcome = runner.run(&strategy, |(first, last, cut)| {
        let parts = [&damaged(&bytes[..head], &first, None), &bytes[head..tail], &damaged(&bytes[tail..], &last, None)];
        let started = std::time::Instant::now();
        let _ = analyse(&damaged(&parts.concat(), &[], cut));
        prop_assert!(started.elapsed().as_secs() < 20);
        Ok(())
    });
    outcome.expect("no damage does harm");
}

/// A file may say that it is larger than any memory.
#[test]
fn a_huge_file_of_nothing_is_given_up() {
    let path = std::env::temp_dir().join(format!("conntracer-library-huge-{}", std::process::id()));
    let (mut bytes, _) = Image { full: SSL, ..Image::default() }.build();
    // The size of the strings of the full table: it is the fourth section.
    let sections = u64::from_le_bytes(*bytes[0x28..].first_chunk().expect("a header")) as usize;
    bytes[sections + 3 * 64 + 32..][..8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    fs::write(&path, bytes).expect("written");
    let grown = Command::new("truncate").args(["-s", "2T"]).arg(&path).status().expect("truncate runs").success();
    let outcome = fs::File::open(&path).map(|file| analyse(&file));
    fs::remove_file(&path).expect("deleted");
    assert!(grown, "the filesystem has files with holes");
    assert!(matches!(outcome.expect("readable"), Err(Damage::Large)));
}
