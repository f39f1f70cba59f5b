//! Precedence over whatever else the machine does, for everything that a bench starts.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{getpriority_process, setpriority_process};

/// The scheduler's group of this session: where groups are in use, `nice` counts only inside of them.
const GROUP: &str = "/proc/self/autogroup";

/// The highest precedence of ordinary scheduling.
const HIGHEST: i32 = -20;

/// Ends with the value, for this process and its session.
#[derive(Debug)]
pub(crate) struct Urgency {
    nice: i32,
    group: Option<String>,
}

impl Urgency {
    /// Raises this process, its coming children and its session.
    pub(crate) fn take() -> Result<Urgency> {
        let nice = getpriority_process(None)?;
        // The line is `/autogroup-11 nice 0`.
        let group =
            fs::read_to_string(GROUP).ok().and_then(|line| Some(line.trim().rsplit_once(' ')?.1.to_owned()));
        let urgency = Urgency { nice, group };
        setpriority_process(None, HIGHEST).context("take precedence (root needed)")?;
        if urgency.group.is_some() {
            fs::write(GROUP, HIGHEST.to_string()).context(GROUP)?;
        }
        Ok(urgency)
    }
}

impl Drop for Urgency {
    fn drop(&mut self) {
        let _ = setpriority_process(None, self.nice);
        if let Some(before) = &self.group {
            let _ = fs::write(GROUP, before);
        }
    }
}
