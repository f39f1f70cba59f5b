//! What a flow is known by, packed so that both directions have one key and comparing is a few words.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::header;
use crate::router::Domain;
use crate::{HEAD, HashKey};

/// Bit of the first word that every key has: a word of zero is no key.
const VALID: u64 = 1 << 63;
/// Bit of the first word that says IPv6.
const V6: u64 = 1 << 62;
/// Bit of the first word that tells flows apart whose ends have the same numbers.
const APART: u64 = 1 << 56;
const DOMAIN_SHIFT: u32 = 40;
const PROTOCOL_SHIFT: u32 = 32;

/// Words of a [`Key`].
pub(crate) const WORDS: usize = 5;

/// Protocol, addresses, ports and domain of a flow, the lower of the two ends first.
///
/// Word 0: valid, IPv6, 16 bits of domain, 8 of protocol, 16 of the low end's port, 16 of the high end's. Then the
/// addresses, low end first: one word for IPv4, four for IPv6. Unused words are not looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Key(pub(crate) [u64; WORDS]);

/// Which of a key's ends sent a packet. The number is the place in per-direction arrays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Side {
    /// The end that is named first.
    #[default]
    Low = 0,
    /// The other.
    High = 1,
}

impl Side {
    #[inline]
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    #[inline]
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }

    #[inline]
    pub(crate) fn high_if(high: bool) -> Self {
        if high { Self::High } else { Self::Low }
    }
}

/// An unpacked flow key, from the one who began to the one who was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// What the addresses are unique in, in the snapshot under which the flow was judged last.
    pub domain: Domain,
    /// IP protocol number.
    pub protocol: u8,
    /// The initiator's address and port; the identifier for ICMP echo; 0 where a protocol has no ports.
    pub source: (IpAddr, u16),
    /// The responder's address and port, likewise.
    pub destination: (IpAddr, u16),
}

impl Key {
    /// The key of a packet whose addresses lie in `head`, and which of its ends sent it. `ports` are source and
    /// destination port, most significant first.
    #[inline(always)]
    pub(crate) fn of(head: &[u8; HEAD], domain: u16, v6: bool, protocol: u8, ports: u32) -> (Self, Side) {
        if v6 {
            let ends = (header::ipv6_source(head), header::ipv6_destination(head));
            return Self::v6(domain, protocol, ends, ports);
        }
        Self::v4(domain, protocol, header::ipv4_source(head), header::ipv4_destination(head), ports)
    }

    #[inline(always)]
    fn v4(domain: u16, protocol: u8, source: u32, destination: u32, ports: u32) -> (Self, Side) {
        let from = u64::from(source) << 16 | u64::from(ports >> 16);
        let to = u64::from(destination) << 16 | u64::from(ports & 0xffff);
        let (low, high) = (from.min(to), from.max(to));
        let meta = VALID
            | u64::from(domain) << DOMAIN_SHIFT
            | u64::from(protocol) << PROTOCOL_SHIFT
            | (low & 0xffff) << 16
            | (high & 0xffff);
        let addresses = (low >> 16) << 32 | high >> 16;
        (Self([meta, addresses, 0, 0, 0]), Side::high_if(from > to))
    }

    fn v6(domain: u16, protocol: u8, (source, destination): (u128, u128), ports: u32) -> (Self, Side) {
        let from = (source, ports >> 16);
        let to = (destination, ports & 0xffff);
        let (low, high) = (from.min(to), from.max(to));
        let meta = VALID
            | V6
            | u64::from(domain) << DOMAIN_SHIFT
            | u64::from(protocol) << PROTOCOL_SHIFT
            | u64::from(low.1) << 16
            | u64::from(high.1);
        let words = [meta, (low.0 >> 64) as u64, low.0 as u64, (high.0 >> 64) as u64, high.0 as u64];
        (Self(words), Side::high_if(from > to))
    }

    /// The key between two ends, and which of them `source` is.
    pub(crate) fn between(
        domain: u16,
        protocol: u8,
        source: IpAddr,
        destination: IpAddr,
        ports: u32,
    ) -> Option<(Self, Side)> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Some(Self::v4(domain, protocol, source.to_bits(), destination.to_bits(), ports))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Some(Self::v6(domain, protocol, (source.to_bits(), destination.to_bits()), ports))
            }
            _ => None,
        }
    }

    /// The key of a flow of another kind between the same ends.
    pub(crate) fn apart(mut self) -> Self {
        self.0[0] |= APART;
        self
    }

    #[inline(always)]
    pub(crate) fn is_v6(&self) -> bool {
        self.0[0] & V6 != 0
    }

    #[inline]
    pub(crate) fn protocol(&self) -> u8 {
        (self.0[0] >> PROTOCOL_SHIFT) as u8
    }

    /// The port of one end; the identifier for ICMP echo; 0 where a protocol has no ports.
    #[inline]
    pub(crate) fn port(&self, side: Side) -> u16 {
        match side {
            Side::Low => (self.0[0] >> 16) as u16,
            Side::High => self.0[0] as u16,
        }
    }

    /// A number that spreads keys evenly for who knows `secret`, and unpredictably for who does not. Multiply and fold,
    /// as in [`crate::table`].
    #[inline(always)]
    pub(crate) fn hash(&self, HashKey([a, b]): HashKey) -> u64 {
        let [w0, w1, w2, w3, w4] = self.0;
        let first = fold(w0 ^ a, w1 ^ b);
        if !self.is_v6() {
            return fold(first ^ b, a | 1);
        }
        fold(fold(first ^ w2, w3 ^ a) ^ b, w4 ^ a.rotate_left(32))
    }

    /// The flow's ends, `initiator` first.
    pub(crate) fn unpack(&self, initiator: Side) -> FlowKey {
        let [meta, w1, w2, w3, w4] = self.0;
        let wide =
            |high: u64, low: u64| IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)));
        let addresses = if self.is_v6() {
            [wide(w1, w2), wide(w3, w4)]
        } else {
            [IpAddr::V4(Ipv4Addr::from_bits((w1 >> 32) as u32)), IpAddr::V4(Ipv4Addr::from_bits(w1 as u32))]
        };
        let end = |side: Side| (addresses[side.index()], self.port(side));
        FlowKey {
            domain: Domain::of_number((meta >> DOMAIN_SHIFT) as u16),
            protocol: self.protocol(),
            source: end(initiator),
            destination: end(initiator.other()),
        }
    }
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
            any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
        ]
    }

    proptest! {
        #[test]
        fn both_directions_have_one_key_and_unpack_to_the_ends(
            domain: u16, protocol: u8, source in address(), destination in address(), from: u16, to: u16,
        ) {
            let ports = u32::from(from) << 16 | u32::from(to);
            let back = u32::from(to) << 16 | u32::from(from);
            let there = Key::between(domain, protocol, source, destination, ports);
            prop_assert_eq!(there.is_some(), source.is_ipv4() == destination.is_ipv4());
            let (Some((there, side)), Some((again, other))) =
                (there, Key::between(domain, protocol, destination, source, back)) else { return Ok(()) };
            prop_assert_eq!(there.0, again.0);
            prop_assert!(side != other || (source, from) == (destination, to));
            let domain = Domain::of_number(domain);
            let whole = FlowKey { domain, protocol, source: (source, from), destination: (destination, to) };
            prop_assert_eq!(there.unpack(side), whole);
        }
    }

    #[test]
    fn neighbouring_flows_spread_over_the_table() {
        let secret = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
        let mut buckets = vec![0u32; 4096];
        for port in 0..16384u32 {
            let (key, _) = Key::v4(0, 17, 0x0a00_0001, 0x0a00_0002, port << 16 | 80);
            buckets[(key.hash(secret) >> 52) as usize] += 1;
        }
        // Four on average; a Poisson distribution has more than 16 once in a million.
        assert!(buckets.iter().all(|&n| n <= 17), "{:?}", buckets.iter().max());
    }
}
