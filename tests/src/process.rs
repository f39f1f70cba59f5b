//! Child processes that cannot outlive their owner, and waits that cannot outlive their bound.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::shell::Output;

/// How often a condition is looked at while waiting for it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Leaders of the process groups that are alive now, so that [`kill_all`] can end them when values cannot.
static LIVE: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A running child in its own process group; killed when dropped. Its output goes to a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and error appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log).with_context(|| format!("{log:?}"))?;
        let err = out.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}: {:?}", command.get_program()))?;
        live().insert(child.id().cast_signed());
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the process has printed so far.
    pub fn output(&self) -> String {
        read_lossy(&self.log)
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends one signal to the process itself (not to its group).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.is_running(), "{} has already ended:\n{}", self.name, tail(&self.output(), 40));
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("pid 0")?;
        kill_process(pid, signal).with_context(|| format!("signal {signal:?} to {}", self.name))
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// When it still runs after `bound`.
    pub fn wait(&mut self, bound: Duration) -> Result<ExitStatus> {
        let mut status = None;
        eventually(&format!("{} ends", self.name), bound, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        self.forget();
        status.context("no exit status")
    }

    /// Kills the process group now and collects it.
    pub fn kill(&mut self) {
        // A process that was waited for may have given its id back: signal only one that is still ours.
        if self.is_running()
            && let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
        {
            // An error means the group has just ended by itself.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
        self.forget();
    }

    fn forget(&self) {
        live().remove(&self.child.id().cast_signed());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// From now on a signal that would end this program also ends everything it has started.
///
/// # Errors
/// When the signals cannot be caught.
pub fn end_all_on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            kill_all();
            crate::netns::remove_all();
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Kills every process group that is still alive: for ends at which no destructor runs (time limit, signals).
pub fn kill_all() {
    for id in live().iter() {
        if let Some(pid) = Pid::from_raw(*id) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Runs a command to its end, within `bound`, and returns its output and exit code.
///
/// # Errors
/// When it cannot be started or takes longer than `bound` (it is killed then).
pub fn run(command: &mut Command, bound: Duration) -> Result<Output> {
    run_with_input(command, b"", bound)
}

/// [`run`] with bytes for standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &[u8], bound: Duration) -> Result<Output> {
    let what = format!("{command:?}");
    let mut child = command
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {what}"))?;
    let id = child.id().cast_signed();
    live().insert(id);
    let text = collect(child.stdout.take());
    let errors = collect(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // A child that does not read its input is its own affair; its exit code tells.
        let _ = stdin.write_all(input);
    }
    let end = Instant::now() + bound;
    let mut status = child.try_wait()?;
    while status.is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(2));
        status = child.try_wait()?;
    }
    if status.is_none() {
        if let Some(pid) = Pid::from_raw(id) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = child.wait();
    }
    live().remove(&id);
    // A grandchild may hold the pipes open for longer than the child lives; its output is not waited for.
    let take = |receiver: Receiver<Vec<u8>>| {
        String::from_utf8_lossy(&receiver.recv_timeout(Duration::from_secs(2)).unwrap_or_default())
            .into_owned()
    };
    let (text, errors) = (take(text), take(errors));
    let Some(status) = status else {
        bail!("{what} took longer than {bound:?}:\n{}\n{}", tail(&text, 40), tail(&errors, 40))
    };
    Ok(Output { code: status.code().unwrap_or(-1), text, errors })
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// Waits until `condition` holds.
///
/// # Errors
/// When it does not hold within `bound`, or when looking at it fails.
pub fn eventually(what: &str, bound: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + bound;
    loop {
        if condition()? {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("not within {bound:?}: {what}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The last `lines` lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A file as text, empty when it cannot be read.
pub fn read_lossy(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn live() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    LIVE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
