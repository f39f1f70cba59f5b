//! Network namespaces, removed with everything in them when dropped.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::Result;

use crate::process::{Process, output};

/// A named network namespace that the bench has made.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace of which nobody else has the name, with loopback up and without IPv6, whose router
    /// solicitations would join the measured traffic.
    pub(crate) fn create(role: &str) -> Result<Namespace> {
        let namespace = Namespace { name: format!("bench-{}-{role}", std::process::id()) };
        output(&["ip", "netns", "add", &namespace.name])?;
        namespace.run(&["ip", "link", "set", "dev", "lo", "up"])?;
        for device in ["all", "default"] {
            namespace.set(&format!("net.ipv6.conf.{device}.disable_ipv6"), "1")?;
        }
        Ok(namespace)
    }

    /// Its name under `ip netns`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs a short command inside and returns its standard output.
    pub(crate) fn run(&self, argv: &[&str]) -> Result<String> {
        output(&[&["ip", "netns", "exec", &self.name], argv].concat())
    }

    /// Sets a sysctl inside.
    pub(crate) fn set(&self, key: &str, value: &str) -> Result<()> {
        self.run(&["sysctl", "-qw", &format!("{key}={value}")]).map(drop)
    }

    /// Starts a process inside, on `cpu`.
    pub(crate) fn start<S: AsRef<OsStr>>(
        &self,
        name: &str,
        work: &Path,
        cpu: &str,
        argv: &[S],
    ) -> Result<Process> {
        let mut inside: Vec<&OsStr> = ["ip", "netns", "exec", &self.name].map(OsStr::new).into();
        inside.extend(argv.iter().map(AsRef::as_ref));
        Process::start(name, work, Some(cpu), &[], &inside)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = output(&["ip", "netns", "del", &self.name]);
    }
}

/// Joins two namespaces by a veth pair, both ends up.
pub(crate) fn join(a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<()> {
    let (name_a, name_b) = (a.0.name(), b.0.name());
    output(&[
        "ip", "link", "add", a.1, "netns", name_a, "type", "veth", "peer", "name", b.1, "netns", name_b,
    ])?;
    for (namespace, device) in [a, b] {
        namespace.run(&["ip", "link", "set", "dev", device, "up"])?;
    }
    Ok(())
}
