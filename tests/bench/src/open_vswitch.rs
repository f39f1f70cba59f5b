//! Open vSwitch with its user-space data path on DPDK, private to one sample.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::hugepages::{Hugepages, path};
use crate::interrupt;
use crate::process::Process;
use crate::switch::{GUEST_CPU, START, SWITCH_CPU};
use crate::vswitchd::{Vswitchd, WITH_DPDK};

/// A learning switch.
pub(crate) const NORMAL: Tables = Tables { flows: "priority=1,actions=NORMAL\n", ..Tables::PLAIN };

/// One rule per port: everything to the other.
pub(crate) const P2P: Tables =
    Tables { flows: "in_port=1,actions=output:2\nin_port=2,actions=output:1\n", ..Tables::PLAIN };

/// A stateful firewall: what belongs to a connection passes, and whoever begins one is admitted.
const FIREWALL: Tables = Tables {
    flows: "table=0,priority=10,ip,actions=ct(table=1)\n\
            table=0,priority=1,actions=NORMAL\n\
            table=1,priority=10,in_port=1,ct_state=+trk+new,ip,actions=ct(commit),output:2\n\
            table=1,priority=10,in_port=1,ct_state=+trk+est,ip,actions=output:2\n\
            table=1,priority=10,in_port=2,ct_state=+trk+new,ip,actions=ct(commit),output:1\n\
            table=1,priority=10,in_port=2,ct_state=+trk+est,ip,actions=output:1\n",
    ..Tables::PLAIN
};

/// What it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tables {
    flows: &'static str,
    /// `other_config` of the daemon.
    settings: &'static [&'static str],
    /// Connections that it may track.
    connections: Option<u32>,
}

impl Tables {
    const PLAIN: Tables = Tables { flows: "", settings: &[], connections: None };

    /// [`FIREWALL`] with room for `connections`.
    pub(crate) fn firewall(caches: Caches, connections: u32) -> Tables {
        let settings: &[&str] = match caches {
            Caches::Exact => &[],
            Caches::None => &["emc-insert-inv-prob=0"],
            Caches::Signature => &["emc-insert-inv-prob=0", "smc-enable=true"],
        };
        Tables { settings, connections: Some(connections), ..FIREWALL }
    }
}

/// What it looks into before its table of masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caches {
    /// The exact match cache of 8192 places, as it is set out of the box.
    Exact,
    /// Nothing: with many more flows than places, looking is time lost.
    None,
    /// The signature match cache of a million places, which Open vSwitch calls experimental.
    Signature,
}

/// A running one.
#[derive(Debug)]
pub(crate) struct OpenVswitch {
    daemon: Vswitchd,
    sockets: [PathBuf; 2],
    tracks: bool,
}

impl OpenVswitch {
    /// Starts it in `work` with two vhost-user ports that connect to `a.sock` and `b.sock` there.
    pub(crate) fn start(work: &Path, pages: &Hugepages, tables: Tables) -> Result<OpenVswitch> {
        // In a network namespace of its own: the bridge's TAP device vanishes with the process.
        let daemon = with_dpdk(work, pages, &["unshare", "--net", "--"], tables.settings)?;
        let sockets = ["a.sock", "b.sock"].map(|name| work.join(name));
        let bridge = ["set", "bridge", "br0", "datapath_type=netdev", "fail-mode=secure"];
        daemon.vsctl(&[&["add-br", "br0", "--"], &bridge[..]].concat())?;
        for (i, socket) in sockets.iter().enumerate() {
            add_guest(&daemon, "br0", &format!("vhost{i}"), socket, i + 1)?;
        }
        daemon.add_flows("br0", tables.flows)?;
        if let Some(connections) = tables.connections {
            daemon.appctl(&["dpctl/ct-set-maxconns", &connections.to_string()])?;
        }
        Ok(OpenVswitch { daemon, sockets, tracks: tables.connections.is_some() })
    }

    /// The sockets of guests A and B, on which the guests listen.
    pub(crate) fn sockets(&self) -> &[PathBuf; 2] {
        &self.sockets
    }

    /// The data path daemon, then its database.
    pub(crate) fn processes(&self) -> &[Process] {
        self.daemon.processes()
    }

    /// The same, to look after them.
    pub(crate) fn processes_mut(&mut self) -> &mut [Process] {
        self.daemon.processes_mut()
    }

    /// Connections that it tracks; `None` when it was not told to.
    pub(crate) fn tracked(&self) -> Result<Option<u64>> {
        if !self.tracks {
            return Ok(None);
        }
        let said = self.daemon.appctl(&["dpctl/ct-get-nconns"])?;
        said.trim().parse().map(Some).with_context(|| format!("dpctl/ct-get-nconns said {said:?}"))
    }
}

/// Starts a daemon with DPDK, one polling thread on the switch's CPU, behind words that say where.
pub(crate) fn with_dpdk(
    work: &Path,
    pages: &Hugepages,
    inside: &[&str],
    further: &[&str],
) -> Result<Vswitchd> {
    let mut settings = vec![
        "dpdk-init=true".to_owned(),
        format!("dpdk-lcore-mask=0x{:x}", 1 << GUEST_CPU.parse::<u32>()?),
        format!("pmd-cpu-mask=0x{:x}", 1 << SWITCH_CPU.parse::<u32>()?),
        "dpdk-socket-mem=\"1024\"".to_owned(),
        format!("dpdk-hugepage-dir=\"{}\"", path(pages.directory())?),
        "dpdk-extra=\"--no-pci --no-telemetry --file-prefix=bench-ovs\"".to_owned(),
    ];
    settings.extend(further.iter().map(|setting| (*setting).to_owned()));
    let daemon = Vswitchd::start(work, GUEST_CPU, &[inside, &[WITH_DPDK]].concat(), &settings)?;
    interrupt::until("DPDK within Open vSwitch", START, || {
        let initialised = daemon.vsctl(&["get", "Open_vSwitch", ".", "dpdk_initialized"])?;
        Ok((initialised.trim() == "true").then_some(()))
    })?;
    Ok(daemon)
}

/// Adds a vhost-user port that connects to `socket`, with an OpenFlow number.
pub(crate) fn add_guest(
    daemon: &Vswitchd,
    bridge: &str,
    name: &str,
    socket: &Path,
    number: usize,
) -> Result<()> {
    let server = format!("options:vhost-server-path={}", path(socket)?);
    let number = format!("ofport_request={number}");
    let interface = ["set", "Interface", name, "type=dpdkvhostuserclient", &server, &number];
    daemon.vsctl(&[&["add-port", bridge, name, "--"], &interface[..]].concat()).map(drop)
}
