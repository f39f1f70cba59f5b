//! Steps: commands with a name, a time and a tally.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::tally::Tally;

/// What came of one step.
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) took: Duration,
    pub(crate) tally: Tally,
}

/// All steps so far.
#[derive(Default)]
pub(crate) struct Steps(pub(crate) Vec<Step>);

impl Steps {
    /// Runs a step. An error inside it is its failure, printed, and not the end of the others.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<Tally>) {
        println!("\n=== {name}");
        let begin = Instant::now();
        let tally = step().unwrap_or_else(|error| {
            println!("{error:#}");
            Tally::one(false)
        });
        let took = begin.elapsed();
        let outcome = if tally.failed == 0 { "ok" } else { "FAILED" };
        println!("=== {name}: {outcome} in {}", seconds(took));
        self.0.push(Step { name: name.to_owned(), took, tally });
    }

    /// Prints the table.
    pub(crate) fn table(&self) {
        println!("\n{:<44} {:>8} {:>8} {:>8} {:>9}", "step", "passed", "failed", "skipped", "time");
        println!("{}", "-".repeat(81));
        for Step { name, took, tally } in &self.0 {
            let failed = if tally.failed > 0 { format!("✗ {}", tally.failed) } else { "0".to_owned() };
            let (passed, skipped) = (tally.passed, tally.skipped.len());
            println!("{name:<44} {passed:>8} {failed:>8} {skipped:>8} {:>9}", seconds(*took));
        }
        println!("{}", "-".repeat(81));
    }

    /// The sum of all tallies.
    pub(crate) fn total(&self) -> Tally {
        let mut total = Tally::default();
        for step in &self.0 {
            total.add(&step.tally);
        }
        total
    }
}

/// Runs a command, shows its output as it comes, and returns it with whether the command succeeded.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn tee(command: &mut Command) -> Result<(String, bool)> {
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("start {:?}", command.get_program()))?;
    // The command object still holds the pipe's write ends; without this the reader would never see its end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut output = String::new();
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        std::io::stdout().write_all(&line)?;
        output.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok((output, child.wait()?.success()))
}

/// A command that is one check.
///
/// # Errors
/// As [`tee`].
pub(crate) fn check(command: &mut Command) -> Result<Tally> {
    Ok(Tally::one(tee(command)?.1))
}

/// A command that runs tests.
///
/// # Errors
/// As [`tee`].
pub(crate) fn tests(command: &mut Command) -> Result<Tally> {
    let (output, success) = tee(command)?;
    Ok(Tally::read(&output, success))
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}
