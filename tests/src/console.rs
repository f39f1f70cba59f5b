//! The command channel into a guest: its second serial line, as a unix socket of QEMU.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{eventually, tail};
use crate::shell::Output;

/// What `init` says once it obeys.
const READY: &str = "@@ready";
/// No failures of the channel: its time is up, which the loop notices, or a child of ours has ended.
const RETRY: [ErrorKind; 3] = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted];
/// Time beyond a command's own bound: for an emulated processor to notice and answer.
const GRACE: Duration = Duration::from_secs(5);

/// One guest's command channel.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    seen: Vec<u8>,
    number: u32,
}

impl Console {
    /// Connects to QEMU's socket, which appears shortly after QEMU starts.
    ///
    /// # Errors
    /// When it is not there after a few seconds.
    pub fn connect(path: &Path) -> Result<Self> {
        let mut stream = None;
        eventually(&format!("QEMU listens on {}", path.display()), Duration::from_secs(10), || {
            stream = UnixStream::connect(path).ok();
            Ok(stream.is_some())
        })?;
        Ok(Self { stream: stream.context("no connection")?, seen: Vec::new(), number: 0 })
    }

    /// Waits until the guest's `init` obeys; also after a reboot.
    ///
    /// # Errors
    /// When that takes longer than `bound`.
    pub fn wait_ready(&mut self, bound: Duration) -> Result<()> {
        self.read_until(READY, Instant::now() + bound).map(drop).context("the guest does not come up")
    }

    /// Runs a script in the guest.
    ///
    /// # Errors
    /// When there is no answer within `bound` (the guest kills the script then).
    pub fn run(&mut self, script: &str, bound: Duration) -> Result<Output> {
        self.number += 1;
        let number = self.number;
        let line = format!("{number} {} {}\n", bound.as_secs().max(1), base64(script.as_bytes()));
        self.stream.write_all(line.as_bytes()).context("command channel closed")?;
        let end = Instant::now() + bound + GRACE;
        let text = self
            .read_until(&format!("@@end:{number}:"), end)
            .with_context(|| format!("guest command `{script}`"))?;
        let code = self.read_until("\n", end)?;
        let code = code.trim().parse().with_context(|| format!("exit code {code:?}"))?;
        if code == 137 {
            bail!("`{script}` took longer than {bound:?}:\n{}", tail(&text, 20));
        }
        Ok(Output { code, text: text.replace('\r', ""), errors: String::new() })
    }

    /// Everything up to `mark`, which is taken too.
    fn read_until(&mut self, mark: &str, end: Instant) -> Result<String> {
        loop {
            if let Some(at) = find(&self.seen, mark.as_bytes()) {
                let rest = self.seen.split_off(at + mark.len());
                let mut text = std::mem::replace(&mut self.seen, rest);
                text.truncate(at);
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no {mark:?} in time; last:\n{}", tail(&String::from_utf8_lossy(&self.seen), 20));
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => bail!("the guest's machine has ended"),
                Ok(n) => self.seen.extend_from_slice(&bytes[..n]),
                Err(error) if RETRY.contains(&error.kind()) => {}
                Err(error) => return Err(error).context("command channel"),
            }
        }
    }
}

fn find(text: &[u8], mark: &[u8]) -> Option<usize> {
    text.windows(mark.len()).position(|window| window == mark)
}

/// RFC 4648 base64, for scripts and files that travel as one line.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = ALPHABET[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { letter as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    /// RFC 4648 section 10.
    #[test]
    fn base64_agrees_with_the_vectors_of_its_rfc() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
