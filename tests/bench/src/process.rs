//! Child processes that never outlive the bench: ended by their id when dropped, and by the kernel should the bench
//! itself be killed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::interrupt;

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(8);

/// A running child. Its standard error goes to a log file; its standard output is read line by line.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts `argv` in its own process group, so that Ctrl-C reaches the bench alone, which then ends its children
    /// in order. `cpus` pins every thread that does not pin itself.
    pub(crate) fn start<S: AsRef<OsStr>>(
        name: &str,
        work: &Path,
        cpus: Option<&str>,
        environment: &[(&str, &OsStr)],
        argv: &[S],
    ) -> Result<Process> {
        let log = work.join(format!("{name}.log"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Some(cpus) = cpus {
            command.args(["taskset", "-c", cpus]);
        }
        command
            .args(argv)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .process_group(0);
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let stdout = child.stdout.take().context("the child has no standard output")?;
        let (sender, lines) = mpsc::channel();
        let mirror = work.join(format!("{name}.out"));
        std::thread::spawn(move || {
            let mut copy = File::create(mirror).ok();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(copy) = &mut copy {
                    let _ = std::io::Write::write_all(copy, format!("{line}\n").as_bytes());
                }
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Process { name: name.to_owned(), child, lines, log })
    }

    /// The name it was started under.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The process id, also of what `taskset` and `ip netns exec` became.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output; an error when the child ends or `limit` passes first.
    pub(crate) fn line(&mut self, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            interrupt::check()?;
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => bail!("{} ended{}", self.name, self.tail()),
                Err(RecvTimeoutError::Timeout) if Instant::now() > end => {
                    bail!("{} said nothing for {limit:?}{}", self.name, self.tail())
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Reads lines until one contains `text`.
    pub(crate) fn line_with(&mut self, text: &str, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.line(left).with_context(|| format!("waiting for {text:?} of {}", self.name))?;
            if line.contains(text) {
                return Ok(());
            }
        }
    }

    /// All remaining lines, once the child has ended by itself.
    pub(crate) fn rest(&mut self, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        let mut all = String::new();
        loop {
            interrupt::check()?;
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    all.push_str(&line);
                    all.push('\n');
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(all),
                Err(RecvTimeoutError::Timeout) if Instant::now() > end => {
                    bail!("{} has not ended after {limit:?}{}", self.name, self.tail())
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// An error when the child has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}{}", self.name, self.tail());
        }
        Ok(())
    }

    /// SIGTERM, then SIGKILL after a while. Does nothing when the child has ended.
    pub(crate) fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The end of what the child wrote to standard error.
    pub(crate) fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].iter().map(|line| format!("\n    {line}")).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a short command to its end and returns its standard output; an error with its standard error otherwise.
pub(crate) fn output<S: AsRef<OsStr>>(argv: &[S]) -> Result<String> {
    let (program, arguments) = argv.split_first().context("an empty command")?;
    run(Command::new(program).args(arguments))
}

/// Like [`output`], for a command that needs an environment or input of its own.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let also = String::from_utf8_lossy(&out.stdout);
        bail!("{command:?}: {}: {}{}", out.status, said.trim(), also.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
