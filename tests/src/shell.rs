//! Commands at an end of the network: inside a guest or inside a namespace, with the same words for both.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::process::tail;

/// How long a command may take when nothing else is said.
pub const USUAL: Duration = Duration::from_secs(20);

/// What a command printed and its exit code.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; 128 + signal from a shell, -1 when killed outright.
    pub code: i32,
    /// Standard output.
    pub text: String,
    /// Standard error; empty where a channel carries both as one.
    pub errors: String,
}

impl Output {
    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }
}

/// Somewhere that busybox shell commands can be run.
pub trait Shell {
    /// What to call this end in messages.
    fn name(&self) -> &str;

    /// A directory of this end's own for files.
    fn files(&self) -> &str;

    /// Runs a script and returns its output whatever its exit code.
    ///
    /// # Errors
    /// When the script cannot be run or takes longer than `bound`.
    fn try_run(&self, script: &str, bound: Duration) -> Result<Output>;

    /// Runs a script that has to succeed within `bound` and returns what it printed.
    ///
    /// # Errors
    /// When the exit code is not 0, and as [`Shell::try_run`].
    fn run_within(&self, script: &str, bound: Duration) -> Result<String> {
        let output = self.try_run(script, bound)?;
        ensure!(
            output.success(),
            "{}: `{script}` ended with {}:\n{}{}",
            self.name(),
            output.code,
            tail(&output.text, 40),
            tail(&output.errors, 40)
        );
        Ok(output.text)
    }

    /// [`Shell::run_within`] the usual time.
    ///
    /// # Errors
    /// As [`Shell::run_within`].
    fn run(&self, script: &str) -> Result<String> {
        self.run_within(script, USUAL)
    }

    /// Whether a script succeeds.
    ///
    /// # Errors
    /// As [`Shell::try_run`].
    fn succeeds(&self, script: &str) -> Result<bool> {
        Ok(self.try_run(script, USUAL)?.success())
    }
}
