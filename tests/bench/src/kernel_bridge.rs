//! The kernel's own way between two namespaces: veth, bridge, and a firewall that follows connections.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::hugepages::path;
use crate::namespace::{Namespace, join};
use crate::tap::{ENDS, TCP_PORT, UDP_PORT};

/// A bridge in a namespace of its own.
#[derive(Debug)]
pub(crate) struct KernelBridge {
    namespace: Namespace,
    firewall: &'static str,
}

impl KernelBridge {
    /// Puts a bridge with a stateful firewall between `ends`. Where the kernel has connection tracking for bridges,
    /// the rules are in a `bridge` table; elsewhere br_netfilter hands bridged packets to rules in an `inet` table.
    pub(crate) fn start(ends: &[Namespace; 2], work: &Path) -> Result<KernelBridge> {
        let namespace = Namespace::create("bridge")?;
        namespace.run(&["ip", "link", "add", "br0", "type", "bridge"])?;
        namespace.run(&["ip", "link", "set", "dev", "br0", "up"])?;
        for (end, namespace_of_end) in ENDS.iter().zip(ends) {
            join((namespace_of_end, end.device), (&namespace, end.workload))?;
            namespace.run(&["ip", "link", "set", "dev", end.workload, "master", "br0"])?;
        }
        let rules = work.join("rules.nft");
        let load = |family: &str| -> Result<()> {
            fs::write(&rules, ruleset(family))?;
            namespace.run(&["nft", "-f", path(&rules)?]).map(drop)
        };
        let firewall = if load("bridge").is_ok() {
            "nftables table bridge, native bridge conntrack"
        } else {
            namespace
                .set("net.bridge.bridge-nf-call-iptables", "1")
                .context("this kernel has neither connection tracking for bridges nor br_netfilter")?;
            load("inet")?;
            "nftables table inet by br_netfilter (no native bridge conntrack in this kernel)"
        };
        Ok(KernelBridge { namespace, firewall })
    }

    /// What the firewall is made of.
    pub(crate) fn firewall(&self) -> &'static str {
        self.firewall
    }

    /// An error when traffic passed without being tracked.
    pub(crate) fn verify(&self) -> Result<()> {
        let count = self.namespace.run(&["sysctl", "-n", "net.netfilter.nf_conntrack_count"])?;
        ensure!(
            count.trim().parse::<u64>()? > 0,
            "no connection is tracked: the firewall of the bridge is not in use"
        );
        Ok(())
    }
}

fn ruleset(family: &str) -> String {
    let arp = if family == "bridge" { "ether type arp accept" } else { "" };
    format!(
        "table {family} firewall {{
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    ct state invalid drop
    {arp}
    meta l4proto icmp accept
    ct state new tcp dport {TCP_PORT} accept
    ct state new udp dport {UDP_PORT} accept
  }}
}}
"
    )
}
