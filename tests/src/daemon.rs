//! A process of the binary under test that can be ended in every way and started again in the same place.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rustix::process::Signal;

use crate::netns::{Netns, inside};
use crate::palisade::binary;
use crate::process::{Process, tail};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(20);

/// One running `palisade up`, `palisade manager` or `palisade agent`.
#[derive(Debug)]
pub struct Daemon {
    words: Vec<String>,
    place: Option<String>,
    dir: PathBuf,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    starts: u32,
}

impl Daemon {
    /// Starts `palisade` with `words` (the command and its options), in a namespace if one is given, with its log in
    /// `dir`, and waits until it says `ready`.
    ///
    /// # Errors
    /// When the binary is not built or does not become ready; the message holds its output.
    pub fn start(dir: &Path, place: Option<&Netns>, words: Vec<String>) -> Result<Self> {
        let place = place.map(|netns| netns.id().to_owned());
        let process = spawn(dir, place.as_deref(), &words, 1)?;
        let running = Mutex::new(Running { process, starts: 1 });
        let daemon = Self { words, place, dir: dir.to_owned(), running };
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.running().process.id()
    }

    /// Ends the process as a crash would.
    pub fn kill9(&self) {
        self.running().process.kill();
    }

    /// Asks for a graceful stop and waits for it.
    ///
    /// # Errors
    /// When it does not end within 10 s or not with exit code 0.
    pub fn stop(&self) -> Result<()> {
        let status = {
            let process = &mut self.running().process;
            process.signal(Signal::TERM)?;
            process.wait(Duration::from_secs(10))?
        };
        ensure!(status.success(), "graceful stop ended with {status}:\n{}", tail(&self.log(), 40));
        Ok(())
    }

    /// Starts a new process in the place of one that was killed or stopped; returns when it was started.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_again(&self) -> Result<Instant> {
        let mut running = self.running();
        ensure!(!running.process.is_running(), "the previous process still runs");
        running.starts += 1;
        let started = Instant::now();
        running.process = spawn(&self.dir, self.place.as_deref(), &self.words, running.starts)?;
        Ok(started)
    }

    /// Waits for the line `ready`.
    ///
    /// # Errors
    /// When the process ends first or takes longer than 20 s.
    pub fn wait_ready(&self) -> Result<()> {
        let end = Instant::now() + START;
        while !self.log().lines().any(|line| line.trim() == "ready") {
            if !self.running().process.is_running() {
                bail!("palisade ended before it was ready:\n{}", tail(&self.log(), 40));
            }
            if Instant::now() > end {
                bail!("palisade is not ready after {START:?}:\n{}", tail(&self.log(), 40));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What the running process has printed.
    pub fn log(&self) -> String {
        self.running().process.output()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(dir: &Path, place: Option<&str>, words: &[String], start: u32) -> Result<Process> {
    let binary = binary()?;
    let mut command = place.map_or_else(|| Command::new(&binary), |place| inside(place, &binary));
    command.args(words).env("NO_COLOR", "1");
    let name = format!("palisade {}", words.first().map_or("", String::as_str));
    Process::spawn(&name, &mut command, &dir.join(format!("palisade-{start}.log")))
}
