//! The immutable, compiled configuration that workers read.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use wire::ethernet;
use wire::geneve::Builder;

use crate::RateLimit;
use crate::builder::{PortConfig, SnapshotBuilder};
use crate::host::{Claim, Encapsulation, Host, HostIndex, Location, Moved, Packed};
use crate::policy::{Endpoint, Policy};
use crate::router::{Domain, Hop, Router, RouterIndex, is_link_local, mapped};
use crate::table::{HashKey, Table};

/// Addresses of a family that lie in the port itself; a port may have more.
const INLINE_V4: usize = 4;
/// The link-local address and two more.
const INLINE_V6: usize = 3;

/// A port's place in a [`Snapshot`]: the order in which ports were given to its builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortIndex(pub u32);

/// A network's place in a [`Snapshot`]: the order in which networks were given to its builder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkIndex(pub u16);

/// The immutable, compiled configuration that workers read.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) networks: Box<[Network]>,
    pub(crate) ports: Box<[Port]>,
    pub(crate) hosts: Box<[Host]>,
    pub(crate) routers: Box<[Router]>,
    pub(crate) tables: Tables,
    pub(crate) policy: Arc<Policy>,
}

/// What is looked up for packets.
#[derive(Debug)]
pub(crate) struct Tables {
    /// By network and MAC.
    pub(crate) destinations: Table<u64, Destination>,
    /// By network and address.
    pub(crate) neighbours: Table<(u16, u128), Neighbour>,
    /// By VNI.
    pub(crate) networks: Table<u64, NetworkIndex>,
    /// By underlay address, behind a 0.
    pub(crate) hosts: Table<(u16, u128), HostIndex>,
    /// What hosts may speak for, by [`Claim::key`].
    pub(crate) claims: Table<u64, ()>,
    /// The largest identity of a port.
    pub(crate) last_identity: u32,
}

/// A network, compiled.
#[derive(Debug)]
pub struct Network {
    pub(crate) mtu: u16,
    pub(crate) clamp_mss: bool,
    pub(crate) gateway_mac: [u8; 6],
    /// What gateways send errors from.
    pub(crate) gateway_v4: Option<Ipv4Addr>,
    pub(crate) gateway_v6: Ipv6Addr,
    pub(crate) vni: Option<u32>,
    pub(crate) router: Option<RouterIndex>,
    pub(crate) domain: Domain,
    pub(crate) broadcasts: Vec<u32>,
    pub(crate) flood: Vec<PortIndex>,
    pub(crate) flood_hosts: Vec<HostIndex>,
}

/// A port, compiled. What every frame needs comes first and fills one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Port {
    mac: u64,
    gateway_mac: u64,
    /// Unused places hold 0.0.0.0, which is nobody's address.
    ipv4: [u32; INLINE_V4],
    /// Bytes of the largest Ethernet frame that it may send.
    most: u32,
    /// Bytes of the largest Ethernet frame that reaches it.
    reach: u32,
    slot: u32,
    endpoint: Endpoint,
    network: NetworkIndex,
    /// The number of its [`Domain`].
    domain: u16,
    location: Packed,
    limited: bool,
    judged: bool,
    routed: bool,
    clamps: bool,
    /// Unused places hold the link-local address once more.
    ipv6: [u128; INLINE_V6],
    /// What found no place above, sorted.
    more_ipv4: Box<[u32]>,
    more_ipv6: Box<[u128]>,
    rate_limit: RateLimit,
    id: u32,
    identity: u32,
    moved: Option<Moved>,
}

/// Who answers for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The MAC to send to.
    pub mac: [u8; 6],
    /// Whether it is a gateway, answered by the appliance.
    pub gateway: bool,
    /// The port that has the address; none for a gateway.
    pub port: Option<PortIndex>,
    /// Who the firewall takes it for.
    pub endpoint: Endpoint,
}

/// Who has a MAC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination {
    pub(crate) port: PortIndex,
    /// Whether it is known where.
    pub(crate) reachable: bool,
}

/// Where a router sends a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is for a gateway.
    Gateway,
    /// To this port.
    Port(PortIndex),
    /// Nowhere.
    Nobody,
}

impl Snapshot {
    /// A builder for revision `revision`, under these rules.
    pub fn builder(revision: u64, key: HashKey, policy: Arc<Policy>) -> SnapshotBuilder {
        SnapshotBuilder::new(revision, key, policy)
    }

    /// The firewall's rules.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// What a flow remembers of the revision under which it was judged.
    #[inline(always)]
    pub(crate) fn epoch(&self) -> u32 {
        self.revision as u32
    }

    /// A port, if there is one with this number.
    #[inline(always)]
    pub(crate) fn port_if_any(&self, port: PortIndex) -> Option<&Port> {
        self.ports.get(port.0 as usize)
    }

    /// Who the firewall takes an address of a network for.
    pub fn endpoint_at(&self, network: NetworkIndex, address: IpAddr) -> Endpoint {
        match self.neighbour(network, address) {
            Some(neighbour) => neighbour.endpoint,
            None => self.policy.external(address),
        }
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

    /// Who answers for an address in a network.
    pub fn neighbour(&self, network: NetworkIndex, address: IpAddr) -> Option<Neighbour> {
        self.tables.neighbours.get(address_key(network, address))
    }

    /// All hosts, in the order they were added.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A host.
    ///
    /// # Panics
    /// When `host` is not from this snapshot.
    #[inline]
    pub fn host(&self, host: HostIndex) -> &Host {
        &self.hosts[usize::from(host.0)]
    }

    /// The host that has an address on the underlay.
    #[inline]
    pub fn host_at(&self, address: IpAddr) -> Option<HostIndex> {
        self.tables.hosts.get((0, mapped(address)))
    }

    /// The network with a VNI.
    #[inline]
    pub fn network_of_vni(&self, vni: u32) -> Option<NetworkIndex> {
        self.tables.networks.get(u64::from(vni))
    }

    /// The other hosts that have a port on a network: each gets a copy of what is for all.
    pub fn flood_hosts(&self, network: NetworkIndex) -> &[HostIndex] {
        &self.network(network).flood_hosts
    }

    /// How a frame of `from` (none: of the gateway) travels to the host of `to`. `None` when `to` is on no other host.
    ///
    /// # Panics
    /// When a port is not from this snapshot.
    #[inline]
    pub fn encapsulation(&self, from: Option<PortIndex>, to: PortIndex) -> Option<Encapsulation> {
        let port = self.port(to);
        let host = port.host()?;
        Some(Encapsulation { host, header: self.header(from, host, port.network, Some(port.id))? })
    }

    /// The same for a frame for many, to one of [`Snapshot::flood_hosts`] of the network of `from`.
    ///
    /// # Panics
    /// When the port or the host is not from this snapshot.
    pub fn flood_encapsulation(&self, from: PortIndex, host: HostIndex) -> Option<Encapsulation> {
        Some(Encapsulation { host, header: self.header(Some(from), host, self.port(from).network, None)? })
    }

    fn header(
        &self,
        from: Option<PortIndex>,
        host: HostIndex,
        network: NetworkIndex,
        port: Option<u32>,
    ) -> Option<Builder> {
        let vni = self.network(network).vni?;
        if !self.host(host).has_options() {
            return Some(Builder { vni, ..Builder::default() });
        }
        let identity = Some(from.map_or(0, |from| self.port(from).identity));
        Some(Builder { vni, identity, port, ..Builder::default() })
    }

    /// Whether a host may speak for this.
    #[inline]
    pub(crate) fn claims(&self, host: HostIndex, claim: Claim) -> bool {
        self.tables.claims.get(claim.key(host)).is_some()
    }

    /// Whether an identity was given later than this snapshot was made.
    pub(crate) fn is_newer(&self, identity: u32) -> bool {
        identity > self.tables.last_identity
    }

    /// The port that has an address in a domain, link-local ones left out where there is a router.
    #[inline]
    pub(crate) fn holder(&self, domain: Domain, address: IpAddr) -> Option<PortIndex> {
        self.tables.neighbours.get((domain.number(), mapped(address)))?.port
    }

    /// The network of a domain that an address is on.
    pub fn network_of(&self, domain: Domain, address: IpAddr) -> Option<NetworkIndex> {
        match domain {
            Domain::Network(network) => Some(network),
            Domain::Router(router) => match self.routers.get(usize::from(router.0))?.find(address)? {
                Hop::On(network) => Some(network),
                Hop::Via(port) => Some(self.port_if_any(port?)?.network),
            },
        }
    }

    /// Where a router sends what is for an address.
    pub(crate) fn next(&self, router: RouterIndex, address: IpAddr) -> Next {
        if is_link_local(address) {
            return Next::Nobody;
        }
        let hop = self.routers.get(usize::from(router.0)).and_then(|router| router.find(address));
        match hop {
            Some(Hop::On(network)) => match self.neighbour(network, address) {
                Some(Neighbour { gateway: true, .. }) => Next::Gateway,
                Some(Neighbour { port: Some(port), .. }) => Next::Port(port),
                _ => Next::Nobody,
            },
            Some(Hop::Via(Some(port))) => Next::Port(port),
            Some(Hop::Via(None)) | None => Next::Nobody,
        }
    }

    /// Who has a MAC in a network; a gateway's MAC is nobody's.
    #[inline]
    pub(crate) fn destination(&self, network: NetworkIndex, mac: u64) -> Option<Destination> {
        self.tables.destinations.get(mac_key(network, mac))
    }
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

    /// Its VNI, if it may leave this host.
    pub fn vni(&self) -> Option<u32> {
        self.vni
    }

    /// The router it hangs on.
    #[inline]
    pub fn router(&self) -> Option<RouterIndex> {
        self.router
    }

    /// What its addresses are unique in.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// The address that its gateway sends errors from: to senders of IPv4 there may be none.
    pub(crate) fn gateway(&self, v6: bool) -> Option<IpAddr> {
        if v6 { Some(IpAddr::V6(self.gateway_v6)) } else { self.gateway_v4.map(IpAddr::V4) }
    }

    /// The gateway's MAC, as a number.
    #[inline]
    pub(crate) fn gateway_mac_number(&self) -> u64 {
        mac_number(self.gateway_mac)
    }

    /// Whether an IPv4 address is the broadcast address of one of the subnets.
    pub(crate) fn is_broadcast(&self, address: u32) -> bool {
        self.broadcasts.contains(&address)
    }
}

impl Port {
    pub(crate) fn new(
        config: &PortConfig,
        network: &Network,
        host: Option<&Host>,
        endpoint: Endpoint,
    ) -> Self {
        let own = u128::from(link_local(config.mac));
        let (mut v4, mut v6) = (Vec::new(), vec![own]);
        for address in &config.addresses {
            match address {
                IpAddr::V4(address) => v4.push(address.to_bits()),
                IpAddr::V6(address) => v6.push(address.to_bits()),
            }
        }
        let (ipv4, more_ipv4) = split(v4, 0);
        let (ipv6, more_ipv6) = split(v6, own);
        let rate_limit = config.rate_limit.unwrap_or_default();
        let most = u32::from(network.mtu) + ethernet::HEADER_LEN as u32;
        let location = Packed::new(config.location);
        Self {
            mac: mac_number(config.mac),
            gateway_mac: mac_number(network.gateway_mac),
            ipv4,
            most,
            reach: host.map_or(most, |host| most.min(host.largest_frame())),
            slot: config.slot,
            endpoint,
            network: config.network,
            domain: network.domain.number(),
            location,
            limited: rate_limit.packets_per_second > 0 || rate_limit.bits_per_second > 0,
            judged: config.firewall && location.is_here(),
            routed: network.router.is_some(),
            clamps: network.clamp_mss,
            ipv6,
            more_ipv4,
            more_ipv6,
            rate_limit,
            id: config.id,
            identity: config.identity,
            moved: config.moved,
        }
    }

    /// The network it is plugged into.
    #[inline]
    pub fn network(&self) -> NetworkIndex {
        self.network
    }

    /// Its MAC.
    pub fn mac(&self) -> [u8; 6] {
        let [_, _, mac @ ..] = self.mac.to_be_bytes();
        mac
    }

    /// Whether it is on this host.
    #[inline]
    pub fn is_local(&self) -> bool {
        self.location.is_here()
    }

    /// The other host that it is on, if that is known.
    #[inline]
    pub fn host(&self) -> Option<HostIndex> {
        self.location.host()
    }

    /// Whether it is on no host that is known.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.location.is_unknown()
    }

    /// Its number in the mesh, as other hosts name it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The identity of its workload.
    #[inline]
    pub fn identity(&self) -> u32 {
        self.identity
    }

    /// Where it lived until just now.
    pub(crate) fn moved_from(&self, now: crate::Instant) -> Option<Location> {
        self.moved.filter(|moved| now < moved.until).map(|moved| moved.from)
    }

    /// The number of the domain that its flows are told apart in.
    #[inline(always)]
    pub(crate) fn domain(&self) -> u16 {
        self.domain
    }

    /// Whether its network hangs on a router.
    #[inline(always)]
    pub(crate) fn is_routed(&self) -> bool {
        self.routed
    }

    /// Whether what it says of the largest segment is made to fit.
    #[inline(always)]
    pub(crate) fn clamps_mss(&self) -> bool {
        self.clamps
    }

    /// Bytes of the largest Ethernet frame that reaches it: of its network, or of the way to its host.
    #[inline(always)]
    pub(crate) fn reach(&self) -> u32 {
        self.reach
    }

    /// Whether the firewall's rules are asked here: on this host, and not excluded.
    #[inline]
    pub fn is_judged(&self) -> bool {
        self.judged
    }

    /// Its place in the flow table's count of flows per port.
    #[inline]
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Who the firewall takes it for where it is not about one of its addresses, but about what it gets for others: its
    /// workload at its first address.
    #[inline]
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// How much it may send, if that is limited.
    #[inline]
    pub fn rate_limit(&self) -> Option<&RateLimit> {
        self.limited.then_some(&self.rate_limit)
    }

    /// Its MAC, as a number.
    #[inline]
    pub(crate) fn mac_number(&self) -> u64 {
        self.mac
    }

    /// Its network's gateway MAC, as a number.
    #[inline]
    pub(crate) fn gateway_mac_number(&self) -> u64 {
        self.gateway_mac
    }

    /// Bytes of the largest Ethernet frame on its network.
    #[inline]
    pub(crate) fn largest_frame(&self) -> u32 {
        self.most
    }

    /// Whether an IPv4 address is its own. 0.0.0.0 never is.
    #[inline]
    pub(crate) fn has_ipv4(&self, address: u32) -> bool {
        // Compared all at once, without a branch for each.
        let inline = self.ipv4.iter().fold(false, |hit, own| hit | (*own == address));
        (inline && address != 0) || self.more_ipv4.binary_search(&address).is_ok()
    }

    /// Whether an IPv6 address is its own.
    #[inline]
    pub(crate) fn has_ipv6(&self, address: u128) -> bool {
        let inline = self.ipv6.iter().fold(false, |hit, own| hit | (*own == address));
        inline || self.more_ipv6.binary_search(&address).is_ok()
    }
}

/// A MAC as a number, first byte most significant.
#[inline]
pub(crate) fn mac_number([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// What destinations are looked up by: 16 bits of network above 48 of MAC.
#[inline]
pub(crate) fn mac_key(network: NetworkIndex, mac: u64) -> u64 {
    u64::from(network.0) << 48 | mac
}

/// What neighbours are looked up by; IPv4 as IPv4-mapped IPv6 (RFC 4291, section 2.5.5.2).
pub(crate) fn address_key(network: NetworkIndex, address: IpAddr) -> (u16, u128) {
    (network.0, mapped(address))
}

/// The link-local address that follows from a MAC: RFC 4291, appendix A.
pub fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The first addresses, unused places filled up, and the others sorted.
fn split<T: Copy + Ord, const N: usize>(mut all: Vec<T>, filler: T) -> ([T; N], Box<[T]>) {
    let mut more = all.split_off(N.min(all.len()));
    more.sort_unstable();
    let inline = core::array::from_fn(|i| all.get(i).copied().unwrap_or(filler));
    (inline, more.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_frame_needs_is_one_cache_line() {
        assert_eq!(core::mem::offset_of!(Port, mac), 0);
        assert!(core::mem::offset_of!(Port, clamps) < 64);
        assert_eq!(size_of::<Option<(u64, Destination)>>(), 16, "four destinations in a cache line");
    }

    #[test]
    fn link_local_addresses_follow_from_the_mac() {
        // RFC 2464, section 4, with its example 34:56:78:9a:bc:de.
        let want: Ipv6Addr = "fe80::3656:78ff:fe9a:bcde".parse().unwrap();
        assert_eq!(link_local([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]), want);
    }
}
