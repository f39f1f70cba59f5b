//! The firewall's part of a slice.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mgmt_types::agent::{Peer, SliceGroup, SliceIdentity, SlicePolicy, SlicePort, SliceRule};
use mgmt_types::{FirewallPolicy, Rule};

use crate::reach::Reach;
use crate::state::{PolicyEntry, State};

/// Groups, identities and policies as one host needs them.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) groups: Vec<SliceGroup>,
    pub(super) identities: Vec<SliceIdentity>,
    pub(super) policies: Vec<SlicePolicy>,
}

/// What `host` needs beside `ports`: the policies that apply to one of its own, the groups these name and those that
/// one of the ports has, and the identities of all the ports.
pub(super) fn part(state: &State, host: &str, ports: &[SlicePort]) -> Part {
    let reach = Reach::of(state);
    let local: BTreeSet<&str> =
        ports.iter().filter(|port| port.host == host).map(|port| port.workload.as_str()).collect();
    let mut applying = BTreeSet::new();
    for entry in local.into_iter().filter_map(|name| state.workloads.get(name)) {
        applying.extend(reach.policies(entry, &reach.groups(entry)));
    }
    let policies: Vec<&PolicyEntry> =
        applying.into_iter().filter_map(|place| reach.policies.get(place)).copied().collect();
    let sets: BTreeMap<u32, &BTreeSet<String>> = ports
        .iter()
        .filter_map(|port| Some((port.identity, &**state.identities.get(&port.identity)?)))
        .collect();

    let named = policies.iter().flat_map(|entry| entry.resource.peers()).filter_map(|(_, peer)| peer.group());
    let mut names: BTreeSet<&str> = named.collect();
    names.extend(sets.values().flat_map(|set| set.iter().map(String::as_str)));
    let numbers: HashMap<&str, u32> = names.iter().copied().zip(0..).collect();
    let number = |name: &str| numbers.get(name).copied();

    let groups = names.iter().map(|name| SliceGroup {
        name: (*name).to_owned(),
        cidrs: state
            .groups
            .get(*name)
            .map(|entry| entry.resource.spec.cidrs.iter().flatten().map(|range| range.net()).collect())
            .unwrap_or_default(),
    });
    let identities = sets.iter().map(|(id, set)| SliceIdentity {
        id: *id,
        groups: set.iter().filter_map(|name| number(name)).collect(),
    });
    let policies = policies.iter().map(|entry| policy(entry, &number));
    Part { groups: groups.collect(), identities: identities.collect(), policies: policies.collect() }
}

fn policy(entry: &PolicyEntry, number: &impl Fn(&str) -> Option<u32>) -> SlicePolicy {
    let FirewallPolicy { name, spec, .. } = &entry.resource;
    SlicePolicy {
        name: name.clone(),
        revision: entry.revision,
        tier: spec.tier,
        priority: u32::from(spec.priority),
        mode: spec.mode,
        applies_to: peers(&spec.applies_to, number),
        rules: spec.rules.iter().filter_map(|rule| self::rule(entry, rule, number)).collect(),
    }
}

fn rule(entry: &PolicyEntry, rule: &Rule, number: &impl Fn(&str) -> Option<u32>) -> Option<SliceRule> {
    Some(SliceRule {
        // Every rule of an entry has its number.
        id: *entry.rules.get(&rule.name)?,
        name: rule.name.clone(),
        direction: rule.direction,
        action: rule.action,
        from: peers(rule.from.as_deref().unwrap_or_default(), number),
        to: peers(rule.to.as_deref().unwrap_or_default(), number),
        services: rule.services.iter().flatten().flat_map(|service| service.matches()).collect(),
        log: rule.log,
        keep_established: rule.keep_established,
    })
}

/// Peers by number. Each group has one: references are checked before a state is made.
fn peers(peers: &[mgmt_types::Peer], number: &impl Fn(&str) -> Option<u32>) -> Vec<Peer> {
    peers
        .iter()
        .filter_map(|peer| match peer {
            mgmt_types::Peer::Any => Some(Peer::Any),
            mgmt_types::Peer::Group(name) => number(name).map(Peer::Group),
            mgmt_types::Peer::Range(range) => Some(Peer::Cidr(range.net())),
        })
        .collect()
}
