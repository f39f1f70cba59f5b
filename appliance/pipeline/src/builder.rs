//! From declared networks and ports to a [`Snapshot`], refusing what contradicts itself.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;

use thiserror::Error;

use crate::snapshot::{Destination, Network, NetworkIndex, Port, PortIndex, Snapshot};
use crate::snapshot::{Neighbour, address_key, link_local, mac_key, mac_number};
use crate::table::{HashKey, Table};
use crate::{Policy, RateLimit};

/// RFC 791: every host must accept 576 bytes; RFC 8200 asks for 1280, but only where there is IPv6.
const LEAST_MTU: u16 = 576;

/// A network, as its builder is told.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The MAC that answers for the gateways.
    pub gateway_mac: [u8; 6],
    /// Addresses that are answered by the appliance itself: ARP, ND and ping. The link-local address of `gateway_mac`
    /// is one more.
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
    /// The identity of its workload in the policy; 0 for one that is in no group.
    pub identity: u32,
    /// Whether the firewall's rules are asked here.
    pub firewall: bool,
    /// Its place in the flow table's count of flows per port, stable over snapshots.
    pub slot: u32,
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
    /// More networks than an index can number.
    #[error("more than {most} networks")]
    TooManyNetworks {
        /// The limit.
        most: usize,
    },
    /// Two ports, or a port and the gateway, have one MAC.
    #[error("MAC {} is used twice in network {}", Mac(*.mac), .network.0)]
    DuplicateMac {
        /// The network.
        network: NetworkIndex,
        /// The MAC.
        mac: [u8; 6],
    },
    /// A MAC of zeros or of a group.
    #[error("MAC {} is not one of a single interface", Mac(*.mac))]
    NotUnicastMac {
        /// The MAC.
        mac: [u8; 6],
    },
    /// Two ports, or a port and a gateway, have one address; link-local addresses that follow from MACs included.
    #[error("address {address} is used twice in network {}", .network.0)]
    DuplicateAddress {
        /// The network.
        network: NetworkIndex,
        /// The address.
        address: IpAddr,
    },
    /// An address that no interface can have: unspecified, loopback, multicast, broadcast, IPv4-mapped.
    #[error("address {address} is not one of a single interface")]
    NotUnicastAddress {
        /// The address.
        address: IpAddr,
    },
    /// A prefix longer than the address.
    #[error("subnet {address}/{prefix}: a prefix is at most {most} bits")]
    Prefix {
        /// The subnet's address.
        address: IpAddr,
        /// The prefix length.
        prefix: u8,
        /// The longest possible.
        most: u8,
    },
    /// A port has an identity, or an identity at an address, that the policy was not told of.
    #[error("identity {identity} {} is not in the policy", .address.map_or_else(String::new, |address| format!("at {address}")))]
    UnknownIdentity {
        /// The identity.
        identity: u32,
        /// The address.
        address: Option<IpAddr>,
    },
    /// An MTU below what IP needs.
    #[error("MTU {mtu}; at least {least} bytes are needed")]
    Mtu {
        /// The MTU.
        mtu: u16,
        /// The least possible.
        least: u16,
    },
}

/// Makes a [`Snapshot`] and refuses what contradicts itself.
#[derive(Debug)]
pub struct SnapshotBuilder {
    revision: u64,
    key: HashKey,
    networks: Vec<Network>,
    ports: Vec<Port>,
    destinations: BTreeMap<u64, Option<Destination>>,
    neighbours: BTreeMap<(u16, u128), Neighbour>,
    policy: Arc<Policy>,
}

impl SnapshotBuilder {
    pub(crate) fn new(revision: u64, key: HashKey, policy: Arc<Policy>) -> Self {
        Self {
            revision,
            key,
            networks: Vec::new(),
            ports: Vec::new(),
            destinations: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            policy,
        }
    }

    /// Adds a network.
    ///
    /// # Errors
    /// What contradicts itself; the builder is then good for nothing more.
    pub fn network(&mut self, config: NetworkConfig) -> Result<NetworkIndex, BuildError> {
        let most = usize::from(u16::MAX);
        let index = u16::try_from(self.networks.len()).map_err(|_| BuildError::TooManyNetworks { most })?;
        let index = NetworkIndex(index);
        if config.mtu < LEAST_MTU {
            return Err(BuildError::Mtu { mtu: config.mtu, least: LEAST_MTU });
        }
        let mut broadcasts = Vec::new();
        for (address, prefix) in config.subnets {
            let most = if address.is_ipv4() { 32 } else { 128 };
            if prefix > most {
                return Err(BuildError::Prefix { address, prefix, most });
            }
            // RFC 3021: a /31 has no broadcast address, nor has a /32.
            if let IpAddr::V4(address) = address
                && prefix <= 30
            {
                broadcasts.push(address.to_bits() | (u32::MAX >> prefix));
            }
        }
        self.networks.push(Network::new(config.mtu, config.gateway_mac, broadcasts));
        self.claim_mac(index, config.gateway_mac, None)?;
        let neighbour = |policy: &Policy, address| Neighbour {
            mac: config.gateway_mac,
            gateway: true,
            port: None,
            endpoint: policy.external(address),
        };
        for address in config.gateways {
            check_address(address)?;
            self.claim_address(index, address, neighbour(&self.policy, address))?;
        }
        let link_local = IpAddr::V6(link_local(config.gateway_mac));
        self.claim_link_local(index, link_local, neighbour(&self.policy, link_local))?;
        Ok(index)
    }

    /// Adds a port to a network that was added before.
    ///
    /// # Errors
    /// What contradicts itself or what was added before; the builder is then good for nothing more.
    pub fn port(&mut self, config: PortConfig) -> Result<PortIndex, BuildError> {
        let have = self.networks.len();
        let index = PortIndex(self.ports.len() as u32);
        let network = config.network;
        let entry = self
            .networks
            .get_mut(usize::from(network.0))
            .ok_or(BuildError::UnknownNetwork { network, have })?;
        if config.local {
            entry.add_flood(index);
        }
        let policy = Arc::clone(&self.policy);
        let identity = |address| {
            let unknown = BuildError::UnknownIdentity { identity: config.identity, address };
            policy.endpoint(config.identity, address).ok_or(unknown)
        };
        let port = Port::new(&config, entry, identity(config.addresses.first().copied())?);
        self.claim_mac(network, config.mac, Some(Destination { port: index, local: config.local }))?;
        let neighbour = |address| {
            let endpoint = identity(Some(address))?;
            Ok(Neighbour { mac: config.mac, gateway: false, port: Some(index), endpoint })
        };
        let neighbours: Vec<(IpAddr, Neighbour)> = config
            .addresses
            .iter()
            .map(|address| Ok((*address, neighbour(*address)?)))
            .collect::<Result<_, BuildError>>()?;
        let own = IpAddr::V6(link_local(config.mac));
        let own_neighbour = neighbour(own)?;
        for (address, neighbour) in neighbours {
            check_address(address)?;
            self.claim_address(network, address, neighbour)?;
        }
        self.claim_link_local(network, own, own_neighbour)?;
        self.ports.push(port);
        Ok(index)
    }

    /// The snapshot.
    ///
    /// # Errors
    /// None today: everything is checked as it is added.
    pub fn build(self) -> Result<Snapshot, BuildError> {
        let destinations: Vec<_> =
            self.destinations.into_iter().filter_map(|(mac, port)| Some((mac, port?))).collect();
        let neighbours: Vec<_> = self.neighbours.into_iter().collect();
        Ok(Snapshot::new(
            self.revision,
            self.networks,
            self.ports,
            Table::new(self.key, &destinations),
            Table::new(self.key, &neighbours),
            self.policy,
        ))
    }

    /// A gateway's MAC is claimed without a destination: nothing is delivered there.
    fn claim_mac(
        &mut self,
        network: NetworkIndex,
        mac: [u8; 6],
        destination: Option<Destination>,
    ) -> Result<(), BuildError> {
        if wire::ethernet::is_group(mac) || mac == [0; 6] {
            return Err(BuildError::NotUnicastMac { mac });
        }
        match self.destinations.entry(mac_key(network, mac_number(mac))) {
            Entry::Occupied(_) => Err(BuildError::DuplicateMac { network, mac }),
            Entry::Vacant(free) => {
                free.insert(destination);
                Ok(())
            }
        }
    }

    fn claim_address(
        &mut self,
        network: NetworkIndex,
        address: IpAddr,
        neighbour: Neighbour,
    ) -> Result<(), BuildError> {
        match self.neighbours.entry(address_key(network, address)) {
            Entry::Occupied(_) => Err(BuildError::DuplicateAddress { network, address }),
            Entry::Vacant(free) => {
                free.insert(neighbour);
                Ok(())
            }
        }
    }

    /// The link-local address that follows from the MAC, unless its owner has declared it as well.
    fn claim_link_local(
        &mut self,
        network: NetworkIndex,
        address: IpAddr,
        neighbour: Neighbour,
    ) -> Result<(), BuildError> {
        match self.neighbours.get(&address_key(network, address)) {
            Some(owner) if *owner == neighbour => Ok(()),
            _ => self.claim_address(network, address, neighbour),
        }
    }
}

struct Mac([u8; 6]);

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

fn check_address(address: IpAddr) -> Result<(), BuildError> {
    let one_interface = match address {
        // 0/8 is "this network", 240/4 reserved with the broadcast address at its end (RFC 6890).
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first != 0 && first != Ipv4Addr::LOCALHOST.octets()[0] && first < 224
        }
        IpAddr::V6(v6) => {
            v6 != Ipv6Addr::UNSPECIFIED
                && v6 != Ipv6Addr::LOCALHOST
                && !v6.is_multicast()
                && v6.to_ipv4_mapped().is_none()
        }
    };
    if one_interface { Ok(()) } else { Err(BuildError::NotUnicastAddress { address }) }
}
