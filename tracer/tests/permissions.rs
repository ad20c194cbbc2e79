//! `docs/permissions.md` says what the code does.

use std::{fs, path::Path};

use tracer::rights::{FEATURES, Feature, Kept, advice, table};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn row(feature: &Feature) -> String {
    let rights: Vec<_> = feature.rights.iter().map(|right| format!("`{}`", right.name())).collect();
    let kept = match feature.kept {
        Kept::Start => "until the hooks are in place",
        Kept::WhileAsked => {
            "until the hooks are in place; `CAP_BPF` as long as the kernel asks for it at each look into a map"
        }
        Kept::WhileProbing => "as long as probes may be put on",
        Kept::WhileElsewhere => "to the end, if any target is or may come to be in another namespace",
        Kept::Whole => "to the end",
    };
    format!("| {} | {} | {} | {kept} |", feature.name, rights.join(", "), feature.without)
}

#[test]
fn the_table_is_that_of_the_code() {
    let page = page("permissions.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| feature |")).skip(2);
    let rows: Vec<_> = rows.take_while(|line| line.starts_with('|')).collect();
    let expected: Vec<_> = FEATURES.iter().map(row).collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_command_is_the_one_that_the_program_tells() {
    let nothing = tracer::rights::Held::of([]);
    let usual = table::FEATURES.iter().filter(|feature| advice::is_usual(feature));
    let command = advice::setcap(&nothing, usual, "/usr/local/bin/conntracer");
    assert!(page("permissions.md").contains(&command), "{command}");
}
