//! Network namespaces: the other kind of end, and a place for tools that need a real Linux beside the guest.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::process;
use crate::scratch::{Scratch, unique};
use crate::shell::{Output, Shell};

/// Names of the namespaces that are there now, so that [`remove_all`] can remove them when values cannot.
static MADE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A named network namespace with `lo` up; what runs inside is killed, and it is deleted, when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
    files: Scratch,
}

impl Netns {
    /// Makes a namespace with a name of its own.
    ///
    /// # Errors
    /// When `ip netns add` fails: no root, or no iproute2.
    pub fn new(prefix: &str) -> Result<Self> {
        let ns = Self { name: unique(prefix), files: Scratch::new(prefix)? };
        ip(&["netns", "add", &ns.name])?;
        made().insert(ns.name.clone());
        ns.ip(&["link", "set", "lo", "up"])?;
        // Without this the kernel's own duplicate address detection and router solicitations blur the captures.
        ns.run("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")?;
        ns.run("echo 0 > /proc/sys/net/ipv6/conf/default/router_solicitations")?;
        Ok(ns)
    }

    /// The namespace's name, as `ip netns` knows it.
    pub fn id(&self) -> &str {
        &self.name
    }

    /// A command that will run inside the namespace.
    pub fn command(&self, program: &str) -> Command {
        inside(&self.name, program)
    }

    /// Runs `ip` inside the namespace.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        ip(&[&["-n", &self.name], args].concat())
    }
}

impl Shell for Netns {
    fn name(&self) -> &str {
        &self.name
    }

    fn files(&self) -> &str {
        self.files.path().to_str().unwrap_or("/tmp")
    }

    fn try_run(&self, script: &str, bound: Duration) -> Result<Output> {
        process::run(self.command("busybox").args(["sh", "-c", script]), bound)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Whatever still runs inside would keep the namespace's devices alive.
        if let Ok(pids) = ip(&["netns", "pids", &self.name]) {
            for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                if let Some(pid) = rustix::process::Pid::from_raw(pid)
                    && pid != rustix::process::getpid()
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
        let _ = ip(&["netns", "del", &self.name]);
        made().remove(&self.name);
    }
}

/// Removes every namespace that is still there: for ends at which no destructor runs.
pub fn remove_all() {
    for name in made().iter() {
        let _ = ip(&["netns", "del", name]);
    }
}

fn made() -> MutexGuard<'static, BTreeSet<String>> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A command that will run inside the namespace of this name; it becomes the program, with its process id.
pub fn inside(name: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", name]).arg(program);
    command
}

/// Runs `ip` on the host.
///
/// # Errors
/// When it fails; the message holds what it printed.
pub fn ip(args: &[&str]) -> Result<String> {
    let output = process::run(Command::new("ip").args(args), Duration::from_secs(10))?;
    ensure!(output.success(), "ip {}: {}{}", args.join(" "), output.text, output.errors);
    Ok(output.text)
}
