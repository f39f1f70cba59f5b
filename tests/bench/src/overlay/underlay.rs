//! The network between two hosts.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::namespace::{Namespace, join};

/// The device of each host on the underlay.
pub(crate) const DEVICE: &str = "u0";

/// The hosts' addresses there.
pub(crate) const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// Two hosts, and a veth pair between them.
#[derive(Debug)]
pub(crate) struct Underlay {
    pub(crate) hosts: [Namespace; 2],
}

/// What a device has received.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Received {
    pub(crate) packets: u64,
    /// Ethernet headers included.
    pub(crate) bytes: u64,
}

impl Underlay {
    /// Joins two new namespaces, for IP packets of `mtu` bytes.
    pub(crate) fn start(mtu: u16) -> Result<Underlay> {
        let hosts = [Namespace::create("ha")?, Namespace::create("hb")?];
        join((&hosts[0], DEVICE), (&hosts[1], DEVICE))?;
        for (host, address) in hosts.iter().zip(ADDRESSES) {
            host.run(&["ip", "link", "set", "dev", DEVICE, "mtu", &mtu.to_string()])?;
            host.run(&["ip", "address", "add", &format!("{address}/24"), "dev", DEVICE])?;
        }
        Ok(Underlay { hosts })
    }

    /// Has every UDP datagram cross by itself, as on a card that cannot cut a large one.
    pub(crate) fn without_segmentation(&self) -> Result<()> {
        self.hosts[0].run(&["ethtool", "-K", DEVICE, "tx-udp-segmentation", "off"]).map(drop)
    }

    /// Has host b drop what arrives for UDP port `port`, once it is counted.
    pub(crate) fn drop_arrivals(&self, port: u16) -> Result<()> {
        let chain = format!("{{ type filter hook ingress device {DEVICE} priority 0; }}");
        let port = port.to_string();
        for rule in [
            &["add", "table", "netdev", "bench"][..],
            &["add", "chain", "netdev", "bench", "arrivals", &chain],
            &["add", "rule", "netdev", "bench", "arrivals", "udp", "dport", &port, "drop"],
        ] {
            self.hosts[1].run(&[&["nft"], rule].concat())?;
        }
        Ok(())
    }

    /// What host b has received so far. A packet that is cut on its way out of the machine counts once, with its headers
    /// once.
    pub(crate) fn received(&self) -> Result<Received> {
        #[derive(Deserialize)]
        struct Link {
            stats64: Both,
        }
        #[derive(Deserialize)]
        struct Both {
            rx: Received,
        }
        let text = self.hosts[1].run(&["ip", "-s", "-j", "link", "show", "dev", DEVICE])?;
        let links: Vec<Link> = serde_json::from_str(&text).with_context(|| text.clone())?;
        Ok(links.first().context("no underlay device")?.stats64.rx)
    }
}
