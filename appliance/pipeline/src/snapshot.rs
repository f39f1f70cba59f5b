//! The immutable, compiled configuration that workers read.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashMap;

use thiserror::Error;

use crate::RateLimit;

/// A port's place in a [`Snapshot`]: the order in which ports were given to its builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortIndex(pub u32);

/// A network's place in a [`Snapshot`]: the order in which networks were given to its builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkIndex(pub u16);

/// 128 random bits for the tables, drawn once by whoever builds snapshots. Keeps a tenant from choosing MACs that
/// collide.
#[derive(Clone, Copy, Debug)]
pub struct HashKey(pub [u64; 2]);

/// A network, as its builder is told.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The MAC that answers for the gateways.
    pub gateway_mac: [u8; 6],
    /// Addresses that are answered by the appliance itself: ARP, ND and ping.
    pub gateways: Vec<IpAddr>,
    /// Subnets as address and prefix length: their broadcast addresses follow from them.
    pub subnets: Vec<(IpAddr, u8)>,
    /// Bytes of the largest IP packet.
    pub mtu: u16,
}

/// A port, as its builder is told. Ports of other hosts are given too, so that their addresses can be answered for.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// The network it is plugged into.
    pub network: NetworkIndex,
    /// Its only MAC.
    pub mac: [u8; 6],
    /// Its only addresses, besides the IPv6 link-local address that follows from the MAC.
    pub addresses: Vec<IpAddr>,
    /// Whether it is on this host.
    pub local: bool,
    /// How much it may send.
    pub rate_limit: Option<RateLimit>,
}

/// Why a configuration does not compile.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// A port names a network that was not added before it.
    #[error("network {} does not exist; {have} were added", .network.0)]
    UnknownNetwork {
        /// The network named.
        network: NetworkIndex,
        /// Networks added so far.
        have: usize,
    },
    /// Two ports, or a port and the gateway, have one MAC.
    #[error("MAC {} is used twice in network {}", Mac(*.mac), .network.0)]
    DuplicateMac {
        /// The network.
        network: NetworkIndex,
        /// The MAC.
        mac: [u8; 6],
    },
}

struct Mac([u8; 6]);

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network, compiled.
#[derive(Debug)]
pub struct Network {
    mtu: u16,
    gateway_mac: [u8; 6],
    flood: Vec<PortIndex>,
}

impl Network {
    /// Bytes of the largest IP packet.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The MAC that answers for the gateways.
    pub fn gateway_mac(&self) -> [u8; 6] {
        self.gateway_mac
    }
}

/// A port, compiled.
#[derive(Debug)]
pub struct Port {
    network: NetworkIndex,
    mac: [u8; 6],
    local: bool,
    rate_limit: Option<RateLimit>,
}

impl Port {
    /// The network it is plugged into.
    #[inline]
    pub fn network(&self) -> NetworkIndex {
        self.network
    }

    /// Its MAC.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Whether it is on this host.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// How much it may send.
    pub fn rate_limit(&self) -> Option<&RateLimit> {
        self.rate_limit.as_ref()
    }
}

/// Who answers for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The MAC to send to.
    pub mac: [u8; 6],
    /// Whether it is a gateway, answered by the appliance.
    pub gateway: bool,
}

/// The immutable, compiled configuration that workers read.
#[derive(Debug)]
pub struct Snapshot {
    revision: u64,
    networks: Vec<Network>,
    ports: Vec<Port>,
    macs: HashMap<(NetworkIndex, u64), PortIndex>,
}

/// Makes a [`Snapshot`] and refuses what contradicts itself.
#[derive(Debug)]
pub struct SnapshotBuilder {
    snapshot: Snapshot,
}

impl Snapshot {
    /// A builder for revision `revision`.
    pub fn builder(revision: u64, _key: HashKey) -> SnapshotBuilder {
        let snapshot = Snapshot { revision, networks: Vec::new(), ports: Vec::new(), macs: HashMap::new() };
        SnapshotBuilder { snapshot }
    }

    /// The revision of the desired state it was compiled from.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A port.
    ///
    /// # Panics
    /// When `port` is not from this snapshot.
    #[inline]
    pub fn port(&self, port: PortIndex) -> &Port {
        &self.ports[port.0 as usize]
    }

    /// All ports, local or not, in the order they were added.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// A network.
    ///
    /// # Panics
    /// When `network` is not from this snapshot.
    pub fn network(&self, network: NetworkIndex) -> &Network {
        &self.networks[usize::from(network.0)]
    }

    /// The local ports of a network: where a broadcast goes, its sender left out.
    pub fn flood_ports(&self, network: NetworkIndex) -> &[PortIndex] {
        &self.network(network).flood
    }

    pub(crate) fn lookup(&self, network: NetworkIndex, mac: u64) -> Option<PortIndex> {
        self.macs.get(&(network, mac)).copied()
    }
}

impl SnapshotBuilder {
    /// Adds a network.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn network(&mut self, config: NetworkConfig) -> Result<NetworkIndex, BuildError> {
        let index = NetworkIndex(self.snapshot.networks.len() as u16);
        let network = Network { mtu: config.mtu, gateway_mac: config.gateway_mac, flood: Vec::new() };
        self.snapshot.networks.push(network);
        Ok(index)
    }

    /// Adds a port to a network that was added before.
    ///
    /// # Errors
    /// What contradicts itself or what was added before.
    pub fn port(&mut self, config: PortConfig) -> Result<PortIndex, BuildError> {
        let have = self.snapshot.networks.len();
        let index = PortIndex(self.snapshot.ports.len() as u32);
        let network = config.network;
        let entry = self
            .snapshot
            .networks
            .get_mut(usize::from(network.0))
            .ok_or(BuildError::UnknownNetwork { network, have })?;
        if self.snapshot.macs.insert((network, mac_key(&config.mac)), index).is_some() {
            return Err(BuildError::DuplicateMac { network, mac: config.mac });
        }
        if config.local {
            entry.flood.push(index);
        }
        self.snapshot.ports.push(Port {
            network,
            mac: config.mac,
            local: config.local,
            rate_limit: config.rate_limit,
        });
        Ok(index)
    }

    /// The snapshot.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn build(self) -> Result<Snapshot, BuildError> {
        Ok(self.snapshot)
    }
}

/// A MAC as a number, first byte most significant.
#[inline]
pub(crate) fn mac_key(mac: &[u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = *mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// The link-local address that follows from a MAC: RFC 4291, appendix A.
pub fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
