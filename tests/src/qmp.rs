//! QEMU's machine protocol, as much of it as tests use. See docs/interop/qmp-spec in QEMU.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::process::eventually;

/// A connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects and leaves the negotiation mode.
    ///
    /// # Errors
    /// When QEMU does not listen after a few seconds.
    pub fn connect(path: &Path) -> Result<Self> {
        let mut stream = None;
        eventually(&format!("QEMU listens on {}", path.display()), Duration::from_secs(10), || {
            stream = UnixStream::connect(path).ok();
            Ok(stream.is_some())
        })?;
        let stream = stream.context("no connection")?;
        // Longer than any command takes, QEMU's wait for a vhost-user peer included.
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut qmp = Self { reader: BufReader::new(stream) };
        qmp.read()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returned.
    ///
    /// # Errors
    /// When QEMU refuses it; the message holds QEMU's reason.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.reader.get_mut().write_all(format!("{request}\n").as_bytes())?;
        loop {
            let answer = self.read().with_context(|| format!("answer to {command}"))?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("QEMU has ended");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
