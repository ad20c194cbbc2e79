//! What is found, as people read it, and as `docs/incidents.md` shows it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where `cargo xtask incidents` wants the blocks of the page to be written.
const WANTED: &str = "CONNTRACER_PAGE";

/// What the tracer says of these findings: rule and process name.
pub(super) fn passages(text: &str, wanted: &[(&str, &str)]) -> String {
    let of = |(rule, comm): &(&str, &str)| {
        let heading = format!("  {rule}  {comm} -> ");
        let passage =
            text.split("\n\n").find(|passage| passage.lines().next().is_some_and(|line| line.contains(&heading)));
        passage.unwrap_or_else(|| panic!("{rule} of {comm} is not in {text}")).trim_end().to_owned()
    };
    wanted.iter().map(of).collect::<Vec<_>>().join("\n\n") + "\n"
}

/// Fails unless the page shows a block as it is now, give or take its figures.
#[track_caller]
pub(super) fn assert_shown(block: &str, now: &str) {
    if let Some(folder) = std::env::var_os(WANTED) {
        let file = PathBuf::from(folder).join(format!("{block}.txt"));
        return fs::write(&file, now).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/incidents.md");
    let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let shown = block_of(&page, block).unwrap_or_else(|| panic!("docs/incidents.md has no block {block}"));
    assert_eq!(without_figures(shown), without_figures(now), "stale: write it anew by `cargo xtask incidents`\n{now}");
}

/// The fenced block that follows a mark.
fn block_of<'p>(page: &'p str, block: &str) -> Option<&'p str> {
    let (_, rest) = page.split_once(&format!("<!-- block: {block} -->\n```text\n"))?;
    rest.split_once("```").map(|(shown, _)| shown)
}

/// The words without what differs from run to run: figures and their units, the grades that follow from them, examples, line breaks.
fn without_figures(text: &str) -> String {
    const DIFFERENT: [&str; 11] = ["HIGH", "MEDIUM", "LOW", "high)", "medium)", "low)", "ms", "s", "min", "h", "us"];
    let mut is_example = false;
    let kept = text.lines().filter(|line| {
        // What a line's label is about goes on in the lines that are moved in further.
        let label = line.trim_start();
        let goes_on = line.len() - label.len() > INDENT;
        is_example = if goes_on { is_example } else { LEFT_OUT.iter().any(|left_out| label.starts_with(left_out)) };
        !is_example
    });
    let words = kept.flat_map(str::split_whitespace).map(|word| word.trim_end_matches([',', '.', ':', ';', ')']));
    let words = words.map(|word| word.trim_start_matches('('));
    let words = words
        .filter(|word| !word.is_empty() && !DIFFERENT.contains(word) && !word.contains(|c: char| c.is_ascii_digit()));
    words.collect::<Vec<_>>().join(" ")
}

/// How far the lines of a finding are moved in.
const INDENT: usize = 8;

/// Lines that there may be more or fewer of.
const LEFT_OUT: [&str; 2] = ["e.g. ", "but: "];

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "HIGH    no-reuse  api -> a.test:1  cost 1.72 s, 1.72 s a minute  (confidence high)
        one exchange a connection: 20 connections
        e.g. 09:45:14.869 setup took 323 ms, 338 ms after
             the last use
        not so with: more

LOW     other  b -> a.test:1  (confidence low)
        words

2 findings; looked at 20 connections
";

    #[test]
    fn passages_are_those_that_were_asked_for() {
        let passages = passages(TEXT, &[("other", "b")]);
        assert_eq!(passages, "LOW     other  b -> a.test:1  (confidence low)\n        words\n");
    }

    #[test]
    fn words_are_compared_and_figures_are_not() {
        let other =
            TEXT.replace("1.72 s", "940 ms").replace("HIGH ", "MEDIUM").replace("20", "7").replace("last", "first");
        assert_eq!(without_figures(TEXT), without_figures(&other));
        assert_ne!(without_figures(TEXT), without_figures(&TEXT.replace("not so with", "so with")));
    }

    #[test]
    fn a_block_follows_its_mark() {
        let page = "words\n<!-- block: one -->\n```text\nshown\n```\nmore";
        assert_eq!(block_of(page, "one"), Some("shown\n"));
        assert_eq!(block_of(page, "two"), None);
    }
}
