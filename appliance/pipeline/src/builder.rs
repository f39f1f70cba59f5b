//! From declared networks and ports to a [`Snapshot`], refusing what contradicts itself.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;

use thiserror::Error;
use wire::geneve::MOST_VNI;

use crate::host::{Claim, Host, HostConfig, HostIndex, Location, Moved, Packed};
use crate::router::{self, Domain, Hop, Route, Router, RouterConfig, RouterIndex, is_link_local, mapped};
use crate::snapshot::{Destination, Network, NetworkIndex, Port, PortIndex, Snapshot, Tables};
use crate::snapshot::{Neighbour, address_key, link_local, mac_key, mac_number};
use crate::table::{HashKey, Table};
use crate::{Policy, RateLimit};

/// RFC 791: every host must accept 576 bytes; RFC 8200 asks for 1280, but only where there is IPv6.
const LEAST_MTU: u16 = 576;

/// A network, as its builder is told.
#[derive(Clone, Debug, Default)]
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
    /// Its GENEVE virtual network identifier; none when nothing of it leaves this host.
    pub vni: Option<u32>,
    /// The router it hangs on, which was added before it.
    pub router: Option<RouterIndex>,
    /// Whether the largest segment that TCP announces is made to fit on the way (RFC 4459, section 3.2).
    pub clamp_mss: bool,
}

/// A port, as its builder is told. Ports of other hosts are given too, so that they can be reached, and believed.
#[derive(Clone, Debug, Default)]
pub struct PortConfig {
    /// The network it is plugged into.
    pub network: NetworkIndex,
    /// Its only MAC.
    pub mac: [u8; 6],
    /// Its only addresses, besides the IPv6 link-local address that follows from the MAC.
    pub addresses: Vec<IpAddr>,
    /// Its number in the mesh, as other hosts name it.
    pub id: u32,
    /// Where it lives; on a host that was added before it.
    pub location: Location,
    /// Where it lived until just now.
    pub moved: Option<Moved>,
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
    /// A port names a host that was not added before it.
    #[error("host {} does not exist; {have} were added", .host.0)]
    UnknownHost {
        /// The host named.
        host: HostIndex,
        /// Hosts added so far.
        have: usize,
    },
    /// A network names a router that was not added before it.
    #[error("router {} does not exist; {have} were added", .router.0)]
    UnknownRouter {
        /// The router named.
        router: RouterIndex,
        /// Routers added so far.
        have: usize,
    },
    /// More hosts than an index can number.
    #[error("more than {most} hosts")]
    TooManyHosts {
        /// The limit.
        most: usize,
    },
    /// More routers than an index can number.
    #[error("more than {most} routers")]
    TooManyRouters {
        /// The limit.
        most: usize,
    },
    /// Two hosts have one address on the underlay.
    #[error("underlay address {address} is that of two hosts")]
    DuplicateHostAddress {
        /// The address.
        address: IpAddr,
    },
    /// Two networks have one VNI, or one has more than 24 bits.
    #[error("VNI {vni} is used twice, or larger than {MOST_VNI}")]
    Vni {
        /// The VNI.
        vni: u32,
    },
    /// A port of another host is on a network without a VNI.
    #[error("network {} has a port on another host, and no VNI", .network.0)]
    NoVni {
        /// The network.
        network: NetworkIndex,
    },
    /// Two networks of one router have addresses in common.
    #[error("subnet {address}/{prefix} overlaps another of router {}", .router.0)]
    OverlappingSubnets {
        /// The router.
        router: RouterIndex,
        /// The second subnet's address.
        address: IpAddr,
        /// The second subnet's prefix length.
        prefix: u8,
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
    vnis: BTreeMap<u64, NetworkIndex>,
    hosts: Vec<Host>,
    host_addresses: BTreeMap<(u16, u128), HostIndex>,
    /// By router: its networks' subnets, then its static routes with the addresses they go through.
    routers: Vec<(Vec<Route>, RouterConfig)>,
    claims: BTreeMap<u64, ()>,
    last_identity: u32,
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
            vnis: BTreeMap::new(),
            hosts: Vec::new(),
            host_addresses: BTreeMap::new(),
            routers: Vec::new(),
            claims: BTreeMap::new(),
            last_identity: 0,
            policy,
        }
    }

    /// Adds a host that frames are exchanged with.
    ///
    /// # Errors
    /// What contradicts itself; the builder is then good for nothing more.
    pub fn host(&mut self, config: HostConfig) -> Result<HostIndex, BuildError> {
        let index = u16::try_from(self.hosts.len()).ok().filter(|index| usize::from(*index) < Packed::MOST);
        let index = HostIndex(index.ok_or(BuildError::TooManyHosts { most: Packed::MOST })?);
        for address in &config.addresses {
            if self.host_addresses.insert((0, mapped(*address)), index).is_some_and(|other| other != index) {
                return Err(BuildError::DuplicateHostAddress { address: *address });
            }
        }
        for identity in &config.identities {
            self.claims.insert(Claim::Identity(*identity).key(index), ());
        }
        self.hosts.push(Host::new(&config));
        Ok(index)
    }

    /// Adds a router. Its networks come after it.
    ///
    /// # Errors
    /// What contradicts itself; the builder is then good for nothing more.
    pub fn router(&mut self, config: RouterConfig) -> Result<RouterIndex, BuildError> {
        let most = router::MOST;
        let index = u16::try_from(self.routers.len()).ok().filter(|index| usize::from(*index) < most);
        let index = RouterIndex(index.ok_or(BuildError::TooManyRouters { most })?);
        config.routes.iter().try_for_each(|route| check_prefix(route.to))?;
        self.routers.push((Vec::new(), config));
        Ok(index)
    }

    /// Adds a network.
    ///
    /// # Errors
    /// What contradicts itself; the builder is then good for nothing more.
    pub fn network(&mut self, config: NetworkConfig) -> Result<NetworkIndex, BuildError> {
        let most = router::MOST;
        let index = u16::try_from(self.networks.len()).ok().filter(|index| usize::from(*index) < most);
        let index = NetworkIndex(index.ok_or(BuildError::TooManyNetworks { most })?);
        if config.mtu < LEAST_MTU {
            return Err(BuildError::Mtu { mtu: config.mtu, least: LEAST_MTU });
        }
        if let Some(vni) = config.vni
            && (vni > MOST_VNI || self.vnis.insert(u64::from(vni), index).is_some())
        {
            return Err(BuildError::Vni { vni });
        }
        config.subnets.iter().try_for_each(|subnet| check_prefix(*subnet))?;
        if let Some(router) = config.router {
            self.join(router, index, &config.subnets)?;
        }
        self.networks.push(compiled(index, &config));
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

    /// Makes a network's subnets the router's routes.
    fn join(
        &mut self,
        router: RouterIndex,
        network: NetworkIndex,
        subnets: &[(IpAddr, u8)],
    ) -> Result<(), BuildError> {
        let have = self.routers.len();
        let entry = self.routers.get_mut(usize::from(router.0));
        let (routes, _) = entry.ok_or(BuildError::UnknownRouter { router, have })?;
        for (address, prefix) in subnets.iter().copied() {
            let route = Route::new((address, prefix), Hop::On(network));
            if routes.iter().any(|other| other.hop != route.hop && other.overlaps(&route)) {
                return Err(BuildError::OverlappingSubnets { router, address, prefix });
            }
            routes.push(route);
        }
        Ok(())
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
        let host = match config.location {
            Location::Here => {
                entry.flood.push(index);
                None
            }
            Location::Host(host) => {
                let have = self.hosts.len();
                let known = self.hosts.get(usize::from(host.0));
                if entry.vni.is_none() {
                    return Err(BuildError::NoVni { network });
                }
                if !entry.flood_hosts.contains(&host) {
                    entry.flood_hosts.push(host);
                }
                Some(known.ok_or(BuildError::UnknownHost { host, have })?)
            }
            Location::Unknown => None,
        };
        for location in [Some(config.location), config.moved.map(|moved| moved.from)].into_iter().flatten() {
            if let Location::Host(host) = location {
                self.claims.insert(Claim::Network(network).key(host), ());
                self.claims.insert(Claim::Identity(config.identity).key(host), ());
            }
        }
        self.last_identity = self.last_identity.max(config.identity);
        let policy = Arc::clone(&self.policy);
        let identity = |address| {
            let unknown = BuildError::UnknownIdentity { identity: config.identity, address };
            policy.endpoint(config.identity, address).ok_or(unknown)
        };
        let port = Port::new(&config, entry, host, identity(config.addresses.first().copied())?);
        let destination = Destination { port: index, reachable: config.location != Location::Unknown };
        self.claim_mac(network, config.mac, Some(destination))?;
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
    /// Two ports of one router's networks have one address.
    pub fn build(mut self) -> Result<Snapshot, BuildError> {
        let shared = self.shared_neighbours()?;
        self.share_claims();
        let routers: Vec<Router> = self.routers.iter().map(|router| self.routes(router)).collect();
        let destinations: Vec<_> =
            self.destinations.into_iter().filter_map(|(mac, port)| Some((mac, port?))).collect();
        let mut neighbours: Vec<_> = self.neighbours.into_iter().collect();
        neighbours.extend(shared);
        let (vnis, hosts): (Vec<_>, Vec<_>) =
            (self.vnis.into_iter().collect(), self.host_addresses.into_iter().collect());
        let claims: Vec<_> = self.claims.into_iter().collect();
        Ok(Snapshot {
            revision: self.revision,
            networks: self.networks.into(),
            ports: self.ports.into(),
            hosts: self.hosts.into(),
            routers: routers.into(),
            tables: Tables {
                destinations: Table::new(self.key, &destinations),
                neighbours: Table::new(self.key, &neighbours),
                networks: Table::new(self.key, &vnis),
                hosts: Table::new(self.key, &hosts),
                claims: Table::new(self.key, &claims),
                last_identity: self.last_identity,
            },
            policy: self.policy,
        })
    }

    /// Who is known in all networks of a router: an address is unique there, unless it is of one link alone.
    fn shared_neighbours(&self) -> Result<BTreeMap<(u16, u128), Neighbour>, BuildError> {
        let mut shared = BTreeMap::new();
        for ((network, bits), neighbour) in &self.neighbours {
            let address = unmapped(*bits);
            let router = self.networks.get(usize::from(*network)).and_then(Network::router);
            if let Some(router) = router.filter(|_| !is_link_local(address))
                && shared.insert((Domain::Router(router).number(), *bits), *neighbour).is_some()
            {
                return Err(BuildError::DuplicateAddress { network: NetworkIndex(*network), address });
            }
        }
        Ok(shared)
    }

    /// A host routes to all networks of a router of which it has one: it may speak for each.
    fn share_claims(&mut self) {
        let mut members: BTreeMap<RouterIndex, Vec<NetworkIndex>> = BTreeMap::new();
        for (number, network) in (0..).zip(&self.networks) {
            if let Some(router) = network.router() {
                members.entry(router).or_default().push(NetworkIndex(number));
            }
        }
        for host in (0..self.hosts.len() as u16).map(HostIndex) {
            for networks in members.values() {
                let has =
                    |network: &NetworkIndex| self.claims.contains_key(&Claim::Network(*network).key(host));
                if networks.iter().any(has) {
                    let keys = networks.iter().map(|network| (Claim::Network(*network).key(host), ()));
                    self.claims.extend(keys);
                }
            }
        }
    }

    fn routes(&self, (connected, config): &(Vec<Route>, RouterConfig)) -> Router {
        let mut routes = connected.clone();
        for route in &config.routes {
            let on = |own: &&Route| own.overlaps(&Route::new(host_route(route.via), own.hop));
            let network = connected.iter().find(on).map(|own| own.hop);
            let via = match network {
                Some(Hop::On(network)) => self.neighbours.get(&address_key(network, route.via)),
                Some(Hop::Via(_)) | None => None,
            };
            routes.push(Route::new(route.to, Hop::Via(via.and_then(|neighbour| neighbour.port))));
        }
        Router::new(routes)
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

/// A network without its ports.
fn compiled(index: NetworkIndex, config: &NetworkConfig) -> Network {
    let mut broadcasts = Vec::new();
    for (address, prefix) in &config.subnets {
        // RFC 3021: a /31 has no broadcast address, nor has a /32.
        if let IpAddr::V4(address) = address
            && *prefix <= 30
        {
            broadcasts.push(address.to_bits() | (u32::MAX >> prefix));
        }
    }
    let v4 = |address: &IpAddr| if let IpAddr::V4(address) = address { Some(*address) } else { None };
    let v6 = |address: &IpAddr| if let IpAddr::V6(address) = address { Some(*address) } else { None };
    Network {
        mtu: config.mtu,
        clamp_mss: config.clamp_mss,
        gateway_mac: config.gateway_mac,
        gateway_v4: config.gateways.iter().find_map(v4),
        gateway_v6: config.gateways.iter().find_map(v6).unwrap_or_else(|| link_local(config.gateway_mac)),
        vni: config.vni,
        router: config.router,
        domain: config.router.map_or(Domain::Network(index), Domain::Router),
        broadcasts,
        flood: Vec::new(),
        flood_hosts: Vec::new(),
    }
}

/// An address as a prefix of its own.
fn host_route(address: IpAddr) -> (IpAddr, u8) {
    (address, if address.is_ipv4() { 32 } else { 128 })
}

/// The address behind a number that may be a mapped one.
fn unmapped(bits: u128) -> IpAddr {
    let address = Ipv6Addr::from_bits(bits);
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

fn check_prefix((address, prefix): (IpAddr, u8)) -> Result<(), BuildError> {
    let most = if address.is_ipv4() { 32 } else { 128 };
    if prefix > most { Err(BuildError::Prefix { address, prefix, most }) } else { Ok(()) }
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
