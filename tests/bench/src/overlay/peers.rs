//! The peers of a mesh: the kernel's VXLAN, and Open vSwitch with GENEVE.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::namespace::{Namespace, join};
use crate::overlay::CPUS;
use crate::overlay::underlay::{ADDRESSES, DEVICE, Underlay};
use crate::process::Process;
use crate::tap::ENDS;
use crate::vswitchd::{self, Vswitchd};

/// The virtual network of all parties.
pub(crate) const VNI: &str = "4660";

/// The kernel's overlay.
#[derive(Debug)]
pub(crate) struct Vxlan;

impl Vxlan {
    /// Gives each workload a VXLAN device whose outer packets are its host's: no bridge, no veth between them, the
    /// kernel's best case. The device sets the MTU itself.
    pub(crate) fn start(underlay: &Underlay, workloads: &[Namespace; 2]) -> Result<()> {
        for (i, (host, workload)) in underlay.hosts.iter().zip(workloads).enumerate() {
            let (device, local, remote) = (ENDS[i].device, ADDRESSES[i], ADDRESSES[1 - i]);
            host.run(&[
                "ip", "link", "add", device, "type", "vxlan", "id", VNI, "local", local, "remote", remote,
                "dstport", "4789", "dev", DEVICE,
            ])?;
            host.run(&["ip", "link", "set", "dev", device, "netns", workload.name()])?;
        }
        Ok(())
    }
}

/// Open vSwitch without DPDK on one host: packets are read and written by AF_PACKET sockets.
#[derive(Debug)]
pub(crate) struct OpenVswitch(Vswitchd);

impl OpenVswitch {
    /// One on each host, with a veth pair to each workload.
    pub(crate) fn pair(
        underlay: &Underlay,
        workloads: &[Namespace; 2],
        work: &Path,
    ) -> Result<[OpenVswitch; 2]> {
        Ok([Self::start(0, underlay, workloads, work)?, Self::start(1, underlay, workloads, work)?])
    }

    fn start(i: usize, underlay: &Underlay, workloads: &[Namespace; 2], work: &Path) -> Result<OpenVswitch> {
        let (host, end) = (&underlay.hosts[i], &ENDS[i]);
        let work = work.join(end.workload);
        fs::create_dir(&work)?;
        join((&workloads[i], end.device), (host, "w0"))?;
        // GENEVE without options over IPv4: inner Ethernet, outer IPv4, UDP and GENEVE headers (RFC 8926 section 3) are 50
        // bytes.
        let inner = (mtu(host)? - 50).to_string();
        workloads[i].run(&["ip", "link", "set", "dev", end.device, "mtu", &inner])?;
        host.run(&["ip", "link", "set", "dev", "w0", "mtu", &inner])?;
        // Its data path neither finishes checksums nor cuts large frames behind a tunnel.
        workloads[i].run(&["ethtool", "-K", end.device, "tx", "off"])?;
        host.run(&["ethtool", "-K", DEVICE, "tx", "off"])?;
        let inside = ["ip", "netns", "exec", host.name(), vswitchd::PLAIN];
        let daemon = Vswitchd::start(&work, CPUS[i], &inside, &[])?;
        tunnel(&daemon, host, i)?;
        daemon.vsctl(&["add-port", "int", "w0", "--", "set", "Interface", "w0", "ofport_request=1"])?;
        daemon.add_flows("int", "in_port=1,actions=output:10\nin_port=10,actions=output:1\n")?;
        Ok(OpenVswitch(daemon))
    }

    /// The process id of its data path.
    pub(crate) fn id(&self) -> Result<u32> {
        Ok(self.0.processes().first().context("Open vSwitch has no process")?.id())
    }

    /// An error when one of its processes has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.0.processes_mut().iter_mut().try_for_each(Process::check)
    }
}

/// Two bridges on host `i`: `phy` has the underlay's device and its address, `int` the tunnel to the other host as
/// OpenFlow port 10.
pub(crate) fn tunnel(daemon: &Vswitchd, host: &Namespace, i: usize) -> Result<()> {
    let datapath = "datapath_type=netdev";
    daemon.vsctl(&["add-br", "phy", "--", "set", "bridge", "phy", datapath])?;
    daemon.vsctl(&["add-port", "phy", DEVICE])?;
    host.run(&["ip", "address", "flush", "dev", DEVICE])?;
    host.run(&["ip", "address", "add", &format!("{}/24", ADDRESSES[i]), "dev", "phy"])?;
    host.run(&["ip", "link", "set", "dev", "phy", "mtu", &mtu(host)?.to_string(), "up"])?;
    daemon.vsctl(&["add-br", "int", "--", "set", "bridge", "int", datapath, "fail-mode=secure"])?;
    let (remote, key) = (format!("options:remote_ip={}", ADDRESSES[1 - i]), format!("options:key={VNI}"));
    let interface = ["set", "Interface", "g0", "type=geneve", &remote, &key, "ofport_request=10"];
    daemon.vsctl(&[&["add-port", "int", "g0", "--"], &interface[..]].concat()).map(drop)
}

/// Bytes of the largest IP packet on the underlay.
fn mtu(host: &Namespace) -> Result<u16> {
    let text = host.run(&["cat", &format!("/sys/class/net/{DEVICE}/mtu")])?;
    text.trim().parse().with_context(|| format!("MTU {text:?}"))
}
