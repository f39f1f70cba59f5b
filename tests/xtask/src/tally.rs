//! Counting: what test programs report, read from what they print.

use std::collections::BTreeMap;

/// How many tests did what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Ran and succeeded.
    pub(crate) passed: usize,
    /// Ran and failed.
    pub(crate) failed: usize,
    /// Did not run: name and reason.
    pub(crate) skipped: Vec<(String, String)>,
}

impl Tally {
    /// A step that is one check by itself.
    pub(crate) fn one(passed: bool) -> Self {
        Self { passed: usize::from(passed), failed: usize::from(!passed), skipped: Vec::new() }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped.iter().cloned());
    }

    /// Moves tests that reported themselves as skipped, although their program counts them as passed.
    pub(crate) fn move_skipped(&mut self, notes: &str) {
        for note in notes.lines() {
            let (name, reason) = note.split_once('\t').unwrap_or((note, ""));
            self.passed = self.passed.saturating_sub(1);
            self.skipped.push((name.to_owned(), reason.to_owned()));
        }
    }

    /// Reads what libtest (or libtest-mimic) and nextest print.
    ///
    /// A run whose exit code says failure, but that names no failed test, counts as one failure: it crashed, or did not
    /// compile.
    pub(crate) fn read(output: &str, success: bool) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            let line = plain(line);
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("test result: ") {
                let counts = numbers(rest.split_once(". ").map_or(rest, |(_, counts)| counts), ';');
                tally.passed += counts.get("passed").copied().unwrap_or(0);
                tally.failed += counts.get("failed").copied().unwrap_or(0);
            } else if let Some((name, _)) =
                line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored"))
            {
                tally.skipped.push((name.trim().to_owned(), "ignored".to_owned()));
            } else if let Some((_, counts)) = line
                .strip_prefix("Summary ")
                .and_then(|rest| rest.split_once(':').filter(|(head, _)| head.contains("tests run")))
            {
                // "Summary [   0.012s] 3 tests run: 2 passed (1 slow), 1 failed, 1 skipped"
                let counts = numbers(counts, ',');
                tally.passed += counts.get("passed").copied().unwrap_or(0);
                tally.failed += counts.get("failed").copied().unwrap_or(0);
                tally.failed += counts.get("timed").copied().unwrap_or(0);
            }
        }
        if !success && tally.failed == 0 {
            tally.failed = 1;
        }
        tally
    }
}

/// "2 passed; 1 failed" as a map.
fn numbers(text: &str, separator: char) -> BTreeMap<&str, usize> {
    text.split(separator)
        .filter_map(|part| {
            let mut words = part.split_whitespace();
            let number = words.next()?.parse().ok()?;
            Some((words.next()?, number))
        })
        .collect()
}

/// The line without colours (ECMA-48 control sequences).
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        text.push_str(before);
        rest = after.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_test_programs_add_up() {
        let output = "running 3 tests\ntest a::b ... ok\ntest c ... ignored, slow\n\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let tally = Tally::read(output, false);
        assert_eq!((tally.passed, tally.failed), (7, 1));
        assert_eq!(tally.skipped, [("c".to_owned(), "ignored".to_owned())]);
    }

    #[test]
    fn the_summary_of_nextest_is_read_with_its_colours() {
        let output = "\x1b[32;1m     Summary\x1b[0m [   1.2s] \x1b[1m3\x1b[0m tests run: \x1b[1m2\x1b[0m \
            \x1b[32;1mpassed\x1b[0m (1 slow), \x1b[1m1\x1b[0m \x1b[31;1mfailed\x1b[0m, 0 skipped";
        let tally = Tally::read(output, false);
        assert_eq!((tally.passed, tally.failed), (2, 1));
    }

    #[test]
    fn a_crash_without_a_result_is_a_failure() {
        assert_eq!(Tally::read("error: could not compile", false).failed, 1);
    }

    #[test]
    fn a_test_that_reports_itself_skipped_is_not_counted_as_passed() {
        let mut tally = Tally { passed: 3, ..Tally::default() };
        tally.move_skipped("jumbo frames\tno memory\n");
        assert_eq!((tally.passed, tally.skipped.len()), (2, 1));
    }
}
