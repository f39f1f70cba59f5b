//! A switch of the kernel's between namespaces: the network that hosts are joined by.

use std::net::IpAddr;

use anyhow::Result;

use crate::guest::configure_script;
use crate::netns::{Netns, ip};
use crate::scratch::unique;
use crate::shell::Shell;

/// A bridge in a namespace of its own.
#[derive(Debug)]
pub struct Fabric {
    /// Where the bridge is; frames that cross can be captured here.
    pub netns: Netns,
    mtu: u16,
}

/// The bridge.
pub const BRIDGE: &str = "br0";

impl Fabric {
    /// A bridge that carries IP packets of `mtu` bytes.
    ///
    /// # Errors
    /// When it cannot be made: no root, or a kernel without bridges.
    pub fn new(prefix: &str, mtu: u16) -> Result<Self> {
        let netns = Netns::new(prefix)?;
        // Who listens to which multicast group is not worth learning here, and neighbour discovery would wait for it.
        netns.ip(&["link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0"])?;
        netns.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(Self { netns, mtu })
    }

    /// Gives `netns` a device on this network.
    ///
    /// # Errors
    /// When there is a device of that name already.
    pub fn attach(&self, netns: &Netns, device: &str, addresses: &[(IpAddr, u8)]) -> Result<()> {
        let (port, mtu) = (unique("p"), self.mtu.to_string());
        let here = ["link", "add", &port, "mtu", &mtu, "netns", self.netns.id(), "type", "veth"];
        let there = ["peer", "name", device, "mtu", &mtu, "netns", netns.id()];
        ip(&[&here[..], &there].concat())?;
        self.netns.ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
        netns.run(&configure_script(device, addresses)).map(drop)
    }

    /// Lets nothing larger than `mtu` bytes cross, which none of the devices on it says.
    ///
    /// # Errors
    /// When the bridge has no such port.
    pub fn narrow(&self, mtu: u16) -> Result<()> {
        let mtu = mtu.to_string();
        for port in self.netns.run("ls /sys/class/net/br0/brif")?.split_whitespace() {
            self.netns.ip(&["link", "set", port, "mtu", &mtu])?;
        }
        Ok(())
    }
}
