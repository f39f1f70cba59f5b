//! Which groups and which policies a workload has, addresses included.
//!
//! Made in one pass over groups and policies, so that a look at every workload costs no more than that.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;
use mgmt_types::Peer;

use crate::compile;
use crate::state::{PolicyEntry, State, WorkloadEntry};

/// See the module.
pub(crate) struct Reach<'a> {
    state: &'a State,
    /// The policies it looks at, in the order of judgement; what follows speaks of them by their place here.
    pub(crate) policies: Vec<&'a PolicyEntry>,
    everybody: Vec<usize>,
    by_group: HashMap<&'a str, Vec<usize>>,
    by_range: Ranges<usize>,
    /// Groups by the addresses they hold.
    groups: Ranges<&'a str>,
}

impl<'a> Reach<'a> {
    /// Of every policy.
    pub(crate) fn of(state: &'a State) -> Self {
        Self::of_some(state, |_| true)
    }

    /// Of the policies that `wanted` chooses.
    pub(crate) fn of_some(state: &'a State, wanted: impl Fn(&PolicyEntry) -> bool) -> Self {
        let mut policies: Vec<&PolicyEntry> =
            state.policies.values().map(|entry| &**entry).filter(|entry| wanted(entry)).collect();
        policies.sort_by_key(|entry| {
            let spec = &entry.resource.spec;
            (spec.tier, spec.priority, entry.resource.name.as_str())
        });
        let mut reach = Self {
            state,
            policies,
            everybody: Vec::new(),
            by_group: HashMap::new(),
            by_range: Ranges::default(),
            groups: Ranges::default(),
        };
        for (place, entry) in reach.policies.iter().enumerate() {
            for peer in &entry.resource.spec.applies_to {
                match peer {
                    Peer::Any => reach.everybody.push(place),
                    Peer::Group(name) => reach.by_group.entry(name).or_default().push(place),
                    Peer::Range(range) => reach.by_range.insert(range.net(), place),
                }
            }
        }
        for (name, entry) in &state.groups {
            for range in entry.resource.spec.cidrs.iter().flatten() {
                reach.groups.insert(range.net(), name);
            }
        }
        reach
    }

    /// The groups of a workload: those of its identity, and those that hold an address of one of its ports.
    pub(crate) fn groups(&self, entry: &WorkloadEntry) -> BTreeSet<&'a str> {
        let mut groups: BTreeSet<&str> = self.state.groups_of(entry).collect();
        if !self.groups.is_empty() {
            for address in addresses(self.state, entry) {
                groups.extend(self.groups.holding(address));
            }
        }
        groups
    }

    /// The policies that apply to a port of the workload, which has these `groups`, by their place.
    pub(crate) fn policies(&self, entry: &WorkloadEntry, groups: &BTreeSet<&str>) -> BTreeSet<usize> {
        if entry.resource.spec.ports.is_empty() {
            return BTreeSet::new();
        }
        let mut places: BTreeSet<usize> = self.everybody.iter().copied().collect();
        places.extend(groups.iter().filter_map(|name| self.by_group.get(name)).flatten());
        if !self.by_range.is_empty() {
            for address in addresses(self.state, entry) {
                places.extend(self.by_range.holding(address));
            }
        }
        places
    }
}

fn addresses<'a>(state: &'a State, entry: &'a WorkloadEntry) -> impl Iterator<Item = IpAddr> + use<'a> {
    compile::ports(state, entry).flat_map(|port| port.addresses)
}

/// Values by ranges of addresses. A look-up asks once for each length of prefix that occurs.
struct Ranges<T> {
    values: HashMap<IpNet, Vec<T>>,
    /// The lengths that occur, of IPv4 and of IPv6.
    lengths: [BTreeSet<u8>; 2],
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { values: HashMap::new(), lengths: [BTreeSet::new(), BTreeSet::new()] }
    }
}

impl<T: Copy + Eq + Hash> Ranges<T> {
    fn insert(&mut self, net: IpNet, value: T) {
        let [v4, v6] = &mut self.lengths;
        match net {
            IpNet::V4(_) => v4.insert(net.prefix_len()),
            IpNet::V6(_) => v6.insert(net.prefix_len()),
        };
        self.values.entry(net).or_default().push(value);
    }

    fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn holding(&self, address: IpAddr) -> impl Iterator<Item = T> {
        let [v4, v6] = &self.lengths;
        let lengths = if address.is_ipv4() { v4 } else { v6 };
        lengths
            .iter()
            .filter_map(move |length| IpNet::new(address, *length).ok())
            .filter_map(|net| self.values.get(&net.trunc()))
            .flatten()
            .copied()
    }
}
