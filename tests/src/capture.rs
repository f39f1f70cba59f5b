//! Captures: proof of what did, and did not, reach an end.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::process::eventually;
use crate::shell::Shell;

/// tcpdump running at an end, for frames that match a filter.
#[derive(Debug)]
pub struct Capture {
    text: String,
    pid: String,
}

impl Capture {
    /// Starts to capture frames that arrive at `device` and match `filter` (pcap-filter(7)).
    ///
    /// # Errors
    /// When tcpdump does not start, for instance because it refuses the filter.
    pub fn start(end: &dyn Shell, device: &str, filter: &str) -> Result<Self> {
        let text = format!("{}/capture.{device}", end.files());
        let program = "/usr/bin/tcpdump -Z root --immediate-mode -l -n -e -Q in";
        let script =
            format!("rm -f {text}; {program} -i {device} '{filter}' > {text} 2> {text}.err & echo $!");
        let pid = end.run(&script)?.trim().to_owned();
        let listens =
            eventually(&format!("tcpdump listens in {}", end.name()), Duration::from_secs(10), || {
                end.succeeds(&format!("grep -q 'listening on' {text}.err"))
            });
        if listens.is_err() {
            bail!("tcpdump in {}: {}", end.name(), end.run(&format!("cat {text}.err"))?);
        }
        Ok(Self { text, pid })
    }

    /// Frames so far, one line each.
    ///
    /// # Errors
    /// When the end does not answer.
    pub fn frames(&self, end: &dyn Shell) -> Result<Vec<String>> {
        // Only lines that begin with a time are frames; others continue the frame before.
        let text = end.run(&format!("grep '^[0-9]' {} || true", self.text))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Waits until a frame whose line contains `text` has arrived.
    ///
    /// # Errors
    /// When none has within `bound`.
    pub fn wait_for(&self, end: &dyn Shell, text: &str, bound: Duration) -> Result<()> {
        eventually(&format!("{} receives a frame with {text:?}", end.name()), bound, || {
            Ok(self.frames(end)?.iter().any(|frame| frame.contains(text)))
        })
    }

    /// Ends the capture and returns its frames.
    ///
    /// # Errors
    /// When the end does not answer.
    pub fn stop(self, end: &dyn Shell) -> Result<Vec<String>> {
        end.run(&format!("kill {} || true", self.pid))?;
        self.frames(end)
    }
}
