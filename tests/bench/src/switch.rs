//! The switches under test: each a set of processes, polling on CPU 1, with its control threads on CPU 0.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::guests::Guests;
use crate::hugepages::{Hugepages, path};
use crate::interrupt;
use crate::open_vswitch::{OpenVswitch, Tables};
use crate::palisade::{Palisade, Poll};
use crate::process::{Process, output};

/// CPU of the generator and of every control thread.
pub(crate) const GUEST_CPU: &str = "0";

/// CPU of the one thread that forwards.
pub(crate) const SWITCH_CPU: &str = "1";

/// How long a switch may take to start.
pub(crate) const START: Duration = Duration::from_secs(30);

/// Huge pages for the hungriest peer and the generator, in MiB.
pub(crate) const HUGE_MIB: u64 = 1536;

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anti-spoofing on, delivery by declared addresses, and the firewall that the guests are given.
    Palisade(Guests),
    /// DPDK's testpmd, which moves frames between two ports without looking at them.
    DpdkIo,
    /// Open vSwitch on DPDK.
    OpenVswitch(Tables),
}

/// A running switch with two vhost-user ports. Its processes end when it is dropped.
#[derive(Debug)]
pub(crate) enum Switch {
    Palisade { palisade: Palisade, sockets: [PathBuf; 2], tracks: bool },
    DpdkIo { process: Process, sockets: [PathBuf; 2] },
    OpenVswitch(OpenVswitch),
}

impl Switch {
    /// Starts `kind` in the empty directory `work`.
    pub(crate) fn start(kind: &Kind, work: &Path, pages: &Hugepages) -> Result<Switch> {
        match kind {
            Kind::Palisade(guests) => palisade(work, guests),
            Kind::DpdkIo => testpmd(work, pages),
            Kind::OpenVswitch(tables) => Ok(Switch::OpenVswitch(OpenVswitch::start(work, pages, *tables)?)),
        }
    }

    /// The sockets of guests A and B.
    pub(crate) fn sockets(&self) -> &[PathBuf; 2] {
        match self {
            Switch::Palisade { sockets, .. } | Switch::DpdkIo { sockets, .. } => sockets,
            Switch::OpenVswitch(switch) => switch.sockets(),
        }
    }

    /// Whether the guests listen on the sockets and the switch connects.
    pub(crate) fn guests_listen(&self) -> bool {
        matches!(self, Switch::OpenVswitch(_))
    }

    /// The process ids, first the one that forwards.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.processes().iter().map(Process::id).collect()
    }

    /// Connections that it tracks; `None` where it tracks none.
    pub(crate) fn tracked(&self) -> Result<Option<u64>> {
        match self {
            Switch::Palisade { palisade, tracks: true, .. } => palisade.tracked(),
            Switch::Palisade { .. } | Switch::DpdkIo { .. } => Ok(None),
            Switch::OpenVswitch(switch) => switch.tracked(),
        }
    }

    /// Bytes of memory of the process that forwards, huge pages aside: those hold frames, and memory of the guests.
    pub(crate) fn memory(&self) -> Result<u64> {
        let id = self.ids().first().copied().context("the switch has no process")?;
        let file = format!("/proc/{id}/status");
        let text = fs::read_to_string(&file).context(file.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).with_context(|| file.clone())?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse().context(file)?;
        Ok(1024 * kib)
    }

    /// The last words of all processes, for an error message.
    pub(crate) fn said(&self) -> String {
        self.processes().iter().map(|process| format!("{}:{}\n", process.name(), process.tail())).collect()
    }

    /// An error when one of the processes has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        let processes = match self {
            Switch::Palisade { palisade, .. } => std::slice::from_mut(palisade.process_mut()),
            Switch::DpdkIo { process, .. } => std::slice::from_mut(process),
            Switch::OpenVswitch(switch) => switch.processes_mut(),
        };
        processes.iter_mut().try_for_each(Process::check)
    }

    fn processes(&self) -> &[Process] {
        match self {
            Switch::Palisade { palisade, .. } => std::slice::from_ref(palisade.process()),
            Switch::DpdkIo { process, .. } => std::slice::from_ref(process),
            Switch::OpenVswitch(switch) => switch.processes(),
        }
    }
}

fn palisade(work: &Path, guests: &Guests) -> Result<Switch> {
    let options = guests.options();
    let palisade = Palisade::start(work, Some(GUEST_CPU), 1, SWITCH_CPU, Poll::Always, &options)?;
    palisade.apply(&guests.resources())?;
    let sockets = ["a", "b"].map(|name| palisade.run_directory().join(format!("ports/{name}.eth0.sock")));
    wait_for(&sockets)?;
    Ok(Switch::Palisade { palisade, sockets, tracks: guests.tracked() })
}

fn testpmd(work: &Path, pages: &Hugepages) -> Result<Switch> {
    let sockets = ["a.sock", "b.sock"].map(|name| work.join(name));
    let lcores = format!("0@{GUEST_CPU},1@{SWITCH_CPU}");
    let mut argv: Vec<String> = ["dpdk-testpmd", "--lcores", &lcores, "--main-lcore", "0", "--no-pci"]
        .iter()
        .chain(&["--file-prefix", "bench-testpmd", "--single-file-segments", "--no-telemetry", "-m", "512"])
        .chain(&["--huge-dir", path(pages.directory())?])
        .map(|argument| (*argument).to_owned())
        .collect();
    for (i, socket) in sockets.iter().enumerate() {
        argv.extend(["--vdev".to_owned(), format!("net_vhost{i},iface={},queues=1", path(socket)?)]);
    }
    argv.extend(
        ["--", "--nb-cores=1", "--rxq=1", "--txq=1", "--forward-mode=io", "--disable-link-check"]
            .map(String::from),
    );
    let cpus = format!("{GUEST_CPU},{SWITCH_CPU}");
    let process = Process::start("testpmd", work, Some(&cpus), &dpdk_runtime(work), &argv)
        .context("testpmd comes with the package dpdk-dev")?;
    let mut switch = Switch::DpdkIo { process, sockets };
    interrupt::until("testpmd's sockets", START, || {
        switch.check()?;
        Ok(switch.sockets().iter().all(|socket| socket.exists()).then_some(()))
    })?;
    Ok(switch)
}

/// Keeps DPDK's run-time files inside the bench's directory.
pub(crate) fn dpdk_runtime(work: &Path) -> [(&'static str, &OsStr); 1] {
    [("RUNTIME_DIRECTORY", work.as_os_str())]
}

/// Waits until all `files` exist.
pub(crate) fn wait_for(files: &[PathBuf]) -> Result<()> {
    interrupt::until("the sockets of the switch", START, || {
        Ok(files.iter().all(|file| file.exists()).then_some(()))
    })
}

/// Versions of the peers, for the record.
pub(crate) fn versions() -> Vec<(&'static str, String)> {
    let first_line =
        |text: Result<String>| text.map(|text| text.lines().next().unwrap_or_default().to_owned());
    let dpdk = output(&["pkg-config", "--modversion", "libdpdk"]);
    let ovs = first_line(output(&["ovs-vsctl", "--version"]));
    [("dpdk", dpdk), ("openvswitch", ovs)]
        .into_iter()
        .filter_map(|(name, version)| Some((name, version.ok()?.trim().to_owned())))
        .collect()
}
