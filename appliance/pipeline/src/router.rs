//! Routers: which way a packet goes that was sent to a gateway.

use core::net::IpAddr;

use crate::snapshot::{NetworkIndex, PortIndex};

/// A router's place in a [`crate::Snapshot`]: the order in which routers were given to its builder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouterIndex(pub u16);

/// A router, as its builder is told. Its networks name it ([`crate::NetworkConfig::router`]), and their subnets are its
/// routes without being said.
#[derive(Clone, Debug, Default)]
pub struct RouterConfig {
    /// Static routes.
    pub routes: Vec<RouteConfig>,
}

/// A static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Where to: address and prefix length; bits behind the prefix do not matter.
    pub to: (IpAddr, u8),
    /// The address of a port on one of the router's networks that takes it from there. While no port has it, there is no
    /// way.
    pub via: IpAddr,
}

/// What addresses are unique in, and flows are told apart by: a router with all its networks, or a network without one.
/// Link-local addresses are of their network alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Domain {
    /// A network.
    Network(NetworkIndex),
    /// A router's networks.
    Router(RouterIndex),
}

/// Bit of a domain's number that says router.
const ROUTER: u16 = 1 << 15;
/// The most networks, and the most routers, that domains can number.
pub(crate) const MOST: usize = ROUTER as usize;

impl Domain {
    #[inline(always)]
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::Network(NetworkIndex(network)) => network,
            Self::Router(RouterIndex(router)) => router | ROUTER,
        }
    }

    pub(crate) fn of_number(number: u16) -> Self {
        match number & ROUTER {
            0 => Self::Network(NetworkIndex(number)),
            _ => Self::Router(RouterIndex(number & !ROUTER)),
        }
    }
}

/// A router, compiled.
#[derive(Debug, Default)]
pub(crate) struct Router {
    /// The longest prefix first.
    routes: Box<[Route]>,
}

/// A way to some addresses; IPv4 as IPv4-mapped IPv6 (RFC 4291, section 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    bits: u128,
    mask: u128,
    v6: bool,
    pub(crate) hop: Hop,
}

/// What a route says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// On a network of the router: whoever has the address there.
    On(NetworkIndex),
    /// Through a port; none while no port has the address that the route names.
    Via(Option<PortIndex>),
}

impl Route {
    pub(crate) fn new((address, prefix): (IpAddr, u8), hop: Hop) -> Self {
        let prefix = u32::from(prefix) + if address.is_ipv4() { 96 } else { 0 };
        let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
        Self { bits: mapped(address) & mask, mask, v6: address.is_ipv6(), hop }
    }

    /// Whether the two have an address in common.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let mask = self.mask & other.mask;
        self.v6 == other.v6 && self.bits & mask == other.bits & mask
    }
}

impl Router {
    pub(crate) fn new(mut routes: Vec<Route>) -> Self {
        // Of equal prefixes the first that was added counts: a network's own subnet.
        routes.sort_by_key(|route| core::cmp::Reverse(route.mask));
        Self { routes: routes.into() }
    }

    /// The longest prefix's word on an address. Walks the routes: asked when a flow begins, not for each packet.
    pub(crate) fn find(&self, address: IpAddr) -> Option<Hop> {
        let (bits, v6) = (mapped(address), address.is_ipv6());
        self.routes
            .iter()
            .find(|route| bits & route.mask == route.bits && v6 == route.v6)
            .map(|route| route.hop)
    }
}

/// An address as a number, IPv4 mapped.
pub(crate) fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Whether an address is of one link alone: fe80::/10 (RFC 4291), 169.254.0.0/16 (RFC 3927).
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix() -> impl Strategy<Value = (IpAddr, u8)> {
        let few = prop_oneof![Just(0x0a00_0000u32), Just(0x0a01_0000), any::<u32>()];
        prop_oneof![
            (few, 0..=32u8).prop_map(|(bits, len)| (IpAddr::V4(bits.into()), len)),
            (any::<u128>(), 0..=128u8).prop_map(|(bits, len)| (IpAddr::V6(bits.into()), len)),
        ]
    }

    /// Bit by bit.
    fn holds((net, len): (IpAddr, u8), address: IpAddr) -> bool {
        let bits = |address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let (net_bits, own) = (bits(net), bits(address));
        let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
        net.is_ipv4() == address.is_ipv4()
            && (0..usize::from(len)).all(|at| bit(&net_bits, at) == bit(&own, at))
    }

    proptest! {
        #[test]
        fn the_longest_prefix_counts(nets in proptest::collection::vec(prefix(), 0..20), address in prefix()) {
            let route = |(place, net): (usize, &(IpAddr, u8))| Route::new(*net, Hop::On(NetworkIndex(place as u16)));
            let router = Router::new(nets.iter().enumerate().map(route).collect());
            let longest = nets.iter().filter(|net| holds(**net, address.0)).map(|net| net.1).max();
            let found = router.find(address.0).map(|hop| match hop {
                Hop::On(NetworkIndex(place)) => nets[usize::from(place)].1,
                Hop::Via(_) => unreachable!("only networks were added"),
            });
            prop_assert_eq!(found, longest);
        }
    }

    #[test]
    fn a_domain_and_its_number_are_one() {
        for domain in [
            Domain::Network(NetworkIndex(0)),
            Domain::Network(NetworkIndex(0x7fff)),
            Domain::Router(RouterIndex(3)),
        ] {
            assert_eq!(Domain::of_number(domain.number()), domain);
        }
    }
}
