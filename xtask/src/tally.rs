//! Counting passed and failed tests from what libtest prints, and timing them.

use std::{
    collections::BTreeMap,
    fmt,
    ops::AddAssign,
    time::{Duration, Instant},
};

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: u32,
    /// Failed, or never came to an end.
    pub failed: u32,
}

impl Tally {
    /// One passed check.
    pub const PASSED: Self = Self { passed: 1, failed: 0 };
    /// One failed check.
    pub const FAILED: Self = Self { passed: 0, failed: 1 };

    /// The counts in libtest's closing line, if that is what the line is.
    pub fn from_closing_line(line: &str) -> Option<Self> {
        let mut counts = line.trim().strip_prefix("test result: ")?.split([';', '.']).map(str::trim);
        let mut count = |what: &str| counts.find_map(|part| part.strip_suffix(what)?.trim().parse().ok());
        Some(Self { passed: count("passed")?, failed: count("failed")? })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Reads the output of test binaries that run one after the other.
#[derive(Default)]
pub struct Reader {
    tally: Tally,
    closing_lines: usize,
    last: Option<Instant>,
    times: Vec<(String, Duration)>,
}

impl Reader {
    /// Takes one line, as it comes.
    pub fn line(&mut self, line: &str) {
        if let Some(tally) = Tally::from_closing_line(line) {
            self.tally += tally;
            self.closing_lines += 1;
        } else if let Some(name) = ended_test(line) {
            self.times.extend(self.last.map(|last| (name.to_owned(), last.elapsed())));
        } else if !line.starts_with("running ") {
            return;
        }
        self.last = Some(Instant::now());
    }

    /// The tests that took longest, the longest first. Right where tests run one at a time: each is taken to begin as the one
    /// before it ends.
    pub fn slowest(&self, count: usize) -> Vec<(String, Duration)> {
        longest_first(self.times.clone(), count)
    }

    /// What the tests of a module took together, the longest first.
    pub fn slowest_modules(&self, count: usize) -> Vec<(String, Duration)> {
        let mut modules = BTreeMap::<&str, Duration>::new();
        for (name, time) in &self.times {
            *modules.entry(name.split_once("::").map_or(name, |(module, _)| module)).or_default() += *time;
        }
        longest_first(modules.into_iter().map(|(module, time)| (module.to_owned(), time)).collect(), count)
    }

    /// The verdict. A binary that died before its closing line is a failure, and so is an exit code that nothing
    /// in the output explains.
    pub fn finish(self, binaries: Option<usize>, success: bool) -> Tally {
        let mut tally = self.tally;
        let unfinished = binaries.map_or(0, |binaries| binaries.saturating_sub(self.closing_lines));
        tally.failed += u32::try_from(unfinished).unwrap_or(u32::MAX);
        if !success && tally.failed == 0 {
            tally.failed = 1;
        }
        tally
    }
}

fn longest_first(mut times: Vec<(String, Duration)>, count: usize) -> Vec<(String, Duration)> {
    times.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    times.truncate(count);
    times
}

/// The test whose end a line of libtest tells.
fn ended_test(line: &str) -> Option<&str> {
    let (name, outcome) = line.trim().strip_prefix("test ")?.split_once(" ... ")?;
    matches!(outcome, "ok" | "FAILED").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "test result: ok. 31 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.25s";
    const BAD: &str =
        "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";

    fn read(lines: &[&str]) -> Reader {
        let mut reader = Reader::default();
        for line in lines {
            reader.line(line);
        }
        reader
    }

    #[test]
    fn closing_lines_are_told_from_others() {
        assert_eq!(Tally::from_closing_line(OK), Some(Tally { passed: 31, failed: 0 }));
        assert_eq!(Tally::from_closing_line(BAD), Some(Tally { passed: 3, failed: 2 }));
        for other in ["test a_test ... ok", "31 passed; 0 failed", "test result: ok.", ""] {
            assert_eq!(Tally::from_closing_line(other), None, "{other}");
        }
    }

    #[test]
    fn the_slowest_tests_come_first() {
        let mut reader = Reader::default();
        reader.line("running 2 tests");
        reader.line("test quick ... ok");
        std::thread::sleep(Duration::from_millis(2));
        reader.line("talk of a test ... that is none");
        reader.line("test slow ... FAILED");
        let names = |count| reader.slowest(count).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(9), ["slow", "quick"]);
        assert_eq!(names(1), ["slow"]);
    }

    #[test]
    fn tests_of_a_module_add_up() {
        let mut reader = Reader::default();
        reader.line("running 3 tests");
        // One takes longer than each of two, and less than both together.
        for (line, took) in [("test one::a ... ok", 30), ("test two::b::c ... ok", 20), ("test two::d ... ok", 20)] {
            std::thread::sleep(Duration::from_millis(took));
            reader.line(line);
        }
        let modules: Vec<_> = reader.slowest_modules(9).into_iter().map(|(name, _)| name).collect();
        assert_eq!(modules, ["two", "one"]);
    }

    #[test]
    fn several_binaries_add_up() {
        assert_eq!(read(&[OK, BAD]).finish(Some(2), false), Tally { passed: 34, failed: 2 });
    }

    #[test]
    fn a_binary_without_a_closing_line_failed() {
        assert_eq!(read(&[OK, "test b ... "]).finish(Some(2), false), Tally { passed: 31, failed: 1 });
        assert_eq!(read(&[]).finish(Some(1), true), Tally::FAILED);
    }

    #[test]
    fn an_unexplained_exit_code_is_a_failure() {
        assert_eq!(read(&[OK]).finish(None, false), Tally { passed: 31, failed: 1 });
        assert_eq!(read(&[]).finish(None, false), Tally::FAILED);
    }
}
