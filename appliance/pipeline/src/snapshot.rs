//! The immutable, compiled configuration that workers read.

use core::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use wire::ethernet;

use crate::RateLimit;
use crate::builder::{PortConfig, SnapshotBuilder};
use crate::policy::{Endpoint, Policy};
use crate::table::{HashKey, Table};

/// Addresses of a family that lie in the port itself; a port may have more.
const INLINE_V4: usize = 4;
/// The link-local address and two more.
const INLINE_V6: usize = 3;

/// A port's place in a [`Snapshot`]: the order in which ports were given to its builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortIndex(pub u32);

/// A network's place in a [`Snapshot`]: the order in which networks were given to its builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkIndex(pub u16);

/// The immutable, compiled configuration that workers read.
#[derive(Debug)]
pub struct Snapshot {
    revision: u64,
    networks: Box<[Network]>,
    ports: Box<[Port]>,
    destinations: Table<u64, Destination>,
    neighbours: Table<(u16, u128), Neighbour>,
    policy: Arc<Policy>,
}

/// A network, compiled.
#[derive(Debug)]
pub struct Network {
    mtu: u16,
    gateway_mac: [u8; 6],
    broadcasts: Vec<u32>,
    flood: Vec<PortIndex>,
}

/// A port, compiled. What every frame needs comes first and fills one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Port {
    mac: u64,
    gateway_mac: u64,
    /// Unused places hold 0.0.0.0, which is nobody's address.
    ipv4: [u32; INLINE_V4],
    /// Bytes of the largest Ethernet frame.
    most: u32,
    network: NetworkIndex,
    local: bool,
    limited: bool,
    judged: bool,
    slot: u32,
    endpoint: Endpoint,
    /// Unused places hold the link-local address once more.
    ipv6: [u128; INLINE_V6],
    /// What found no place above, sorted.
    more_ipv4: Box<[u32]>,
    more_ipv6: Box<[u128]>,
    rate_limit: RateLimit,
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
    pub(crate) local: bool,
}

impl Snapshot {
    /// A builder for revision `revision`, under these rules.
    pub fn builder(revision: u64, key: HashKey, policy: Arc<Policy>) -> SnapshotBuilder {
        SnapshotBuilder::new(revision, key, policy)
    }

    pub(crate) fn new(
        revision: u64,
        networks: Vec<Network>,
        ports: Vec<Port>,
        destinations: Table<u64, Destination>,
        neighbours: Table<(u16, u128), Neighbour>,
        policy: Arc<Policy>,
    ) -> Self {
        let (networks, ports) = (networks.into_boxed_slice(), ports.into_boxed_slice());
        Self { revision, networks, ports, destinations, neighbours, policy }
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
        self.neighbours.get(address_key(network, address))
    }

    /// Who has a MAC in a network; a gateway's MAC is nobody's.
    #[inline]
    pub(crate) fn destination(&self, network: NetworkIndex, mac: u64) -> Option<Destination> {
        self.destinations.get(mac_key(network, mac))
    }
}

impl Network {
    pub(crate) fn new(mtu: u16, gateway_mac: [u8; 6], broadcasts: Vec<u32>) -> Self {
        Self { mtu, gateway_mac, broadcasts, flood: Vec::new() }
    }

    pub(crate) fn add_flood(&mut self, port: PortIndex) {
        self.flood.push(port);
    }

    /// Bytes of the largest IP packet.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The MAC that answers for the gateways.
    pub fn gateway_mac(&self) -> [u8; 6] {
        self.gateway_mac
    }

    /// Whether an IPv4 address is the broadcast address of one of the subnets.
    pub(crate) fn is_broadcast(&self, address: u32) -> bool {
        self.broadcasts.contains(&address)
    }
}

impl Port {
    pub(crate) fn new(config: &PortConfig, network: &Network, endpoint: Endpoint) -> Self {
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
        Self {
            mac: mac_number(config.mac),
            gateway_mac: mac_number(network.gateway_mac),
            ipv4,
            most: u32::from(network.mtu) + ethernet::HEADER_LEN as u32,
            network: config.network,
            local: config.local,
            limited: rate_limit.packets_per_second > 0 || rate_limit.bits_per_second > 0,
            judged: config.firewall && config.local,
            slot: config.slot,
            endpoint,
            ipv6,
            more_ipv4,
            more_ipv6,
            rate_limit,
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
        self.local
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
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    (network.0, address.to_bits())
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
        assert!(core::mem::offset_of!(Port, endpoint) < 64);
        assert_eq!(size_of::<Option<(u64, Destination)>>(), 16, "four destinations in a cache line");
    }

    #[test]
    fn link_local_addresses_follow_from_the_mac() {
        // RFC 2464, section 4, with its example 34:56:78:9a:bc:de.
        let want: Ipv6Addr = "fe80::3656:78ff:fe9a:bcde".parse().unwrap();
        assert_eq!(link_local([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]), want);
    }
}
