//! Which networks hold an address.
//!
//! Networks are nested or apart, never half overlapping. So the address space of a family falls into intervals, each
//! in the same networks everywhere, and there are at most twice as many as networks. An address is looked up by
//! binary search. Intervals in the same groups have the same *class*; class 0 is in none.

use core::net::IpAddr;
use std::collections::BTreeMap;

use super::PolicyError;

/// Networks of all groups and rules.
const MOST_NETWORKS: usize = 1 << 20;
/// Memberships of all classes: 64 MiB.
const MOST_MEMBERSHIPS: usize = 1 << 24;

/// The address space, cut where a network begins or ends.
#[derive(Debug)]
pub(super) struct Addresses {
    v4: Intervals<u32>,
    v6: Intervals<u128>,
    /// Sorted members of each class, one after the other.
    members: Box<[u32]>,
    /// Where each class begins in `members`, and where the last ends.
    first: Box<[u32]>,
}

#[derive(Debug)]
struct Intervals<T> {
    /// Sorted; the first is 0.
    starts: Box<[T]>,
    classes: Box<[u32]>,
}

/// A network and the number of what it makes one a member of: a group, or a peer of rules that is no group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Network {
    first: u128,
    /// Inverted, so that of two networks that begin together the wider sorts first.
    last_inverted: u128,
    member: u32,
}

impl Addresses {
    /// From networks, each as address, prefix length and what it makes one a member of.
    pub(super) fn new(networks: impl Iterator<Item = (IpAddr, u8, u32)>) -> Result<Self, PolicyError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (address, prefix, member) in networks {
            let (bits, width, family) = match address {
                IpAddr::V4(address) => (u128::from(address.to_bits()), 32, &mut v4),
                IpAddr::V6(address) => (address.to_bits(), 128, &mut v6),
            };
            check_prefix(address, prefix)?;
            let host = u128::MAX.checked_shr(128 - width + u32::from(prefix)).unwrap_or(0);
            family.push(Network { first: bits & !host, last_inverted: !(bits | host), member });
        }
        let have = v4.len() + v6.len();
        if have > MOST_NETWORKS {
            return Err(PolicyError::TooMany { what: "networks", have, most: MOST_NETWORKS });
        }
        let mut classes = Classes::new();
        let v4 = Intervals::new(v4, &mut classes)?.narrow();
        let v6 = Intervals::new(v6, &mut classes)?;
        Ok(Self { v4, v6, members: classes.members.into(), first: classes.first.into() })
    }

    /// The class of an address.
    #[inline]
    pub(super) fn class(&self, address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(address) => self.v4.class(address.to_bits()),
            IpAddr::V6(address) => self.v6.class(address.to_bits()),
        }
    }

    /// How many classes there are.
    pub(super) fn classes(&self) -> u32 {
        self.first.len() as u32 - 1
    }

    /// What addresses of a class are members of, sorted.
    pub(super) fn members(&self, class: u32) -> &[u32] {
        let class = class as usize;
        let range = self.first[class] as usize..self.first[class + 1] as usize;
        &self.members[range]
    }

    /// Bytes.
    pub(super) fn size(&self) -> usize {
        self.v4.starts.len() * 8 + self.v6.starts.len() * 20 + (self.members.len() + self.first.len()) * 4
    }
}

/// A network's address without the bits behind its prefix.
pub(super) fn masked(address: IpAddr, prefix: u8) -> Result<IpAddr, PolicyError> {
    check_prefix(address, prefix)?;
    let prefix = u32::from(prefix);
    Ok(match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & !u32::MAX.checked_shr(prefix).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::MAX.checked_shr(prefix).unwrap_or(0)).into()),
    })
}

fn check_prefix(address: IpAddr, prefix: u8) -> Result<(), PolicyError> {
    let most = if address.is_ipv4() { 32 } else { 128 };
    if prefix > most { Err(PolicyError::Prefix { address, prefix, most }) } else { Ok(()) }
}

impl<T: Copy + Ord> Intervals<T> {
    #[inline]
    fn class(&self, address: T) -> u32 {
        let after = self.starts.partition_point(|start| *start <= address);
        self.classes.get(after.wrapping_sub(1)).copied().unwrap_or(0)
    }
}

impl Intervals<u128> {
    fn new(mut networks: Vec<Network>, classes: &mut Classes) -> Result<Self, PolicyError> {
        networks.sort_unstable();
        let mut cuts = Cuts(vec![(0, 0)]);
        // The networks that hold the place at hand, widest first: their last addresses and classes.
        let mut around: Vec<(u128, u32)> = Vec::new();
        for alike in networks.chunk_by(|a, b| (a.first, a.last_inverted) == (b.first, b.last_inverted)) {
            let Some(Network { first, last_inverted, .. }) = alike.first().copied() else { continue };
            cuts.leave(&mut around, Some(first));
            let outer = around.last().map_or(0, |(_, class)| *class);
            let class = classes.inside(outer, alike.iter().map(|network| network.member))?;
            cuts.push(first, class);
            around.push((!last_inverted, class));
        }
        cuts.leave(&mut around, None);
        let mut cuts = cuts.0;
        cuts.dedup_by_key(|(_, class)| *class);
        let (starts, classes): (Vec<u128>, Vec<u32>) = cuts.into_iter().unzip();
        Ok(Self { starts: starts.into(), classes: classes.into() })
    }

    /// For IPv4. An interval that begins behind its last address is cut off.
    fn narrow(self) -> Intervals<u32> {
        let starts: Box<[u32]> = self.starts.iter().map_while(|start| u32::try_from(*start).ok()).collect();
        let classes = self.classes[..starts.len()].into();
        Intervals { starts, classes }
    }
}

/// Where intervals begin, and their classes.
struct Cuts(Vec<(u128, u32)>);

impl Cuts {
    fn push(&mut self, start: u128, class: u32) {
        match self.0.last_mut() {
            Some(last) if last.0 == start => last.1 = class,
            _ => self.0.push((start, class)),
        }
    }

    /// Leaves the networks that end before `next`.
    fn leave(&mut self, around: &mut Vec<(u128, u32)>, next: Option<u128>) {
        while let Some((last, _)) = around.last().copied()
            && next.is_none_or(|next| last < next)
        {
            around.pop();
            if let Some(start) = last.checked_add(1) {
                self.push(start, around.last().map_or(0, |(_, class)| *class));
            }
        }
    }
}

/// The distinct sets of members that addresses have.
struct Classes {
    known: BTreeMap<Vec<u32>, u32>,
    members: Vec<u32>,
    first: Vec<u32>,
}

impl Classes {
    fn new() -> Self {
        Self { known: BTreeMap::from([(Vec::new(), 0)]), members: Vec::new(), first: vec![0, 0] }
    }

    /// The class of those that have all that `outer` has and `more`.
    fn inside(&mut self, outer: u32, more: impl Iterator<Item = u32>) -> Result<u32, PolicyError> {
        let outer = self.first[outer as usize] as usize..self.first[outer as usize + 1] as usize;
        let mut all: Vec<u32> = self.members[outer].iter().copied().chain(more).collect();
        all.sort_unstable();
        all.dedup();
        if let Some(class) = self.known.get(&all) {
            return Ok(*class);
        }
        if self.members.len() + all.len() > MOST_MEMBERSHIPS {
            return Err(PolicyError::TooLarge { what: "memberships of networks", most: MOST_MEMBERSHIPS });
        }
        let class = self.known.len() as u32;
        self.members.extend(&all);
        self.first.push(self.members.len() as u32);
        self.known.insert(all, class);
        Ok(class)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(addresses: &Addresses, address: &str) -> Vec<u32> {
        addresses.members(addresses.class(address.parse().unwrap())).to_vec()
    }

    fn of(networks: &[(&str, u8, u32)]) -> Addresses {
        let networks = networks
            .iter()
            .map(|(address, prefix, member)| (address.parse::<IpAddr>().unwrap(), *prefix, *member));
        Addresses::new(networks).unwrap()
    }

    #[test]
    fn an_address_is_in_every_network_around_it_and_families_are_apart() {
        let addresses = of(&[
            ("0.0.0.0", 0, 9),
            ("10.0.0.0", 8, 1),
            ("10.1.0.77", 16, 2),
            ("10.1.255.255", 32, 3),
            ("255.255.255.255", 32, 4),
            ("fd00::", 8, 5),
            ("10.0.0.0", 8, 6),
        ]);
        assert_eq!(members(&addresses, "9.255.255.255"), [9]);
        assert_eq!(members(&addresses, "10.0.0.0"), [1, 6, 9]);
        assert_eq!(members(&addresses, "10.1.0.0"), [1, 2, 6, 9]);
        assert_eq!(members(&addresses, "10.1.255.255"), [1, 2, 3, 6, 9]);
        assert_eq!(members(&addresses, "10.2.0.0"), [1, 6, 9]);
        assert_eq!(members(&addresses, "11.0.0.0"), [9]);
        assert_eq!(members(&addresses, "255.255.255.255"), [4, 9]);
        assert_eq!(members(&addresses, "fd12::1"), [5]);
        assert_eq!(members(&addresses, "fe00::"), [0u32; 0]);
        assert_eq!(members(&addresses, "::ffff:10.1.0.0"), [0u32; 0]);
    }

    #[test]
    fn many_networks_of_one_group_are_one_class() {
        let networks = (0..10_000u32).map(|i| (IpAddr::V4((i * 512).into()), 24, 0));
        assert_eq!(Addresses::new(networks).unwrap().classes(), 2);
    }

    proptest! {
        #[test]
        fn it_agrees_with_asking_every_network(
            networks in proptest::collection::vec((any::<u32>(), 0u8..=32, 0u32..6), 0..30),
            v6 in any::<bool>(),
            probes in proptest::collection::vec(any::<u32>(), 20),
        ) {
            // The same in either family, IPv6 in the lowest bits and with prefixes to match.
            let address = |bits: u32| -> IpAddr {
                if v6 { IpAddr::V6(u128::from(bits).into()) } else { IpAddr::V4(bits.into()) }
            };
            let longer = if v6 { 96 } else { 0 };
            let given = networks.iter().map(|(bits, prefix, member)| (address(*bits), prefix + longer, *member));
            let addresses = Addresses::new(given).unwrap();
            let edges = networks.iter().flat_map(|(bits, ..)| [*bits, bits.wrapping_sub(1), bits.wrapping_add(1)]);
            for probe in probes.into_iter().chain(edges).chain([0, u32::MAX]) {
                let holds = |bits: u32, prefix: u8| (bits ^ probe).leading_zeros() >= u32::from(prefix);
                let mut want: Vec<u32> =
                    networks.iter().filter(|(bits, prefix, _)| holds(*bits, *prefix)).map(|n| n.2).collect();
                want.sort_unstable();
                want.dedup();
                prop_assert_eq!(addresses.members(addresses.class(address(probe))), want);
            }
        }
    }
}
