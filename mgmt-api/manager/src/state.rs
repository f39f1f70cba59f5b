//! Desired state at one revision, in memory.
//!
//! Immutable once built: readers hold an `Arc` of it while writers build the next. Each entry is shared between
//! revisions until it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::places::Places;
use mgmt_types::agent::Underlay;
use mgmt_types::{FirewallPolicy, Group, Host, Kind, Network, Resource, Router, Subject, Workload};
use serde::{Deserialize, Serialize};

/// Everything that is declared, and what the manager allotted to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) revision: u64,
    pub(crate) networks: BTreeMap<String, Arc<NetworkEntry>>,
    pub(crate) routers: BTreeMap<String, Arc<RouterEntry>>,
    pub(crate) workloads: BTreeMap<String, Arc<WorkloadEntry>>,
    pub(crate) hosts: BTreeMap<String, Arc<HostEntry>>,
    pub(crate) groups: BTreeMap<String, Arc<GroupEntry>>,
    pub(crate) policies: BTreeMap<String, Arc<PolicyEntry>>,
    /// Every distinct set of groups that some workload has, by number; the empty set is 0 and not listed.
    pub(crate) identities: BTreeMap<u32, GroupSet>,
    pub(crate) counters: Counters,
    /// Follows from the entries; [`State::put`] and [`State::remove`] keep it so.
    pub(crate) places: Places,
}

/// Names of groups.
pub(crate) type GroupSet = Arc<BTreeSet<String>>;

/// Numbers not yet given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Where the search for a free VNI begins.
    pub(crate) next_vni: u32,
    /// The next port number; port numbers are never used again.
    pub(crate) next_port: u32,
    /// The next number of a rule; never used again.
    pub(crate) next_rule: u32,
    /// The next number of a set of groups; never used again.
    pub(crate) next_identity: u32,
}

/// VNIs below are left to operators who number their networks by hand.
pub(crate) const FIRST_VNI: u32 = 4096;

impl Default for Counters {
    fn default() -> Self {
        Self { next_vni: FIRST_VNI, next_port: 1, next_rule: 1, next_identity: 1 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkEntry {
    pub(crate) resource: Network,
    pub(crate) revision: u64,
    /// In use: the one given, or the one allotted.
    pub(crate) vni: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouterEntry {
    pub(crate) resource: Router,
    pub(crate) revision: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkloadEntry {
    pub(crate) resource: Workload,
    pub(crate) revision: u64,
    /// Port numbers by port name.
    pub(crate) ports: BTreeMap<String, u32>,
    /// The set of groups it has: a key of [`State::identities`], or 0.
    #[serde(default)]
    pub(crate) identity: u32,
    /// The host it ran on until a short while ago, which still passes on what others send there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) moved_from: Option<String>,
}

impl WorkloadEntry {
    /// What expressions of groups look at.
    pub(crate) fn subject(&self) -> Subject<'_> {
        let Workload { name, labels, spec, .. } = &self.resource;
        Subject { name, kind: spec.kind, labels }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostEntry {
    pub(crate) resource: Host,
    pub(crate) revision: u64,
    /// The newest revision that changed what the host has to do.
    pub(crate) wanted: u64,
    /// What its agent last said about where others reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) announced: Option<Underlay>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupEntry {
    pub(crate) resource: Group,
    pub(crate) revision: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PolicyEntry {
    pub(crate) resource: FirewallPolicy,
    pub(crate) revision: u64,
    /// Rule numbers by rule name.
    pub(crate) rules: BTreeMap<String, u32>,
}

/// One entry of any kind, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    Network(Arc<NetworkEntry>),
    Router(Arc<RouterEntry>),
    Workload(Arc<WorkloadEntry>),
    Host(Arc<HostEntry>),
    Group(Arc<GroupEntry>),
    FirewallPolicy(Arc<PolicyEntry>),
}

impl Entry {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Network(_) => Kind::Network,
            Self::Router(_) => Kind::Router,
            Self::Workload(_) => Kind::Workload,
            Self::Host(_) => Kind::Host,
            Self::Group(_) => Kind::Group,
            Self::FirewallPolicy(_) => Kind::FirewallPolicy,
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Network(entry) => &entry.resource.name,
            Self::Router(entry) => &entry.resource.name,
            Self::Workload(entry) => &entry.resource.name,
            Self::Host(entry) => &entry.resource.name,
            Self::Group(entry) => &entry.resource.name,
            Self::FirewallPolicy(entry) => &entry.resource.name,
        }
    }

    /// As declared, with the revision that last changed it.
    pub(crate) fn resource(&self) -> Resource {
        match self {
            Self::Network(entry) => Resource::Network(entry.resource.clone()).at_revision(entry.revision),
            Self::Router(entry) => Resource::Router(entry.resource.clone()).at_revision(entry.revision),
            Self::Workload(entry) => Resource::Workload(entry.resource.clone()).at_revision(entry.revision),
            Self::Host(entry) => Resource::Host(entry.resource.clone()).at_revision(entry.revision),
            Self::Group(entry) => Resource::Group(entry.resource.clone()).at_revision(entry.revision),
            Self::FirewallPolicy(entry) => {
                Resource::FirewallPolicy(entry.resource.clone()).at_revision(entry.revision)
            }
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        match self {
            Self::Network(entry) => entry.revision,
            Self::Router(entry) => entry.revision,
            Self::Workload(entry) => entry.revision,
            Self::Host(entry) => entry.revision,
            Self::Group(entry) => entry.revision,
            Self::FirewallPolicy(entry) => entry.revision,
        }
    }
}

impl State {
    pub(crate) fn get(&self, kind: Kind, name: &str) -> Option<Entry> {
        match kind {
            Kind::Network => self.networks.get(name).cloned().map(Entry::Network),
            Kind::Router => self.routers.get(name).cloned().map(Entry::Router),
            Kind::Workload => self.workloads.get(name).cloned().map(Entry::Workload),
            Kind::Host => self.hosts.get(name).cloned().map(Entry::Host),
            Kind::Group => self.groups.get(name).cloned().map(Entry::Group),
            Kind::FirewallPolicy => self.policies.get(name).cloned().map(Entry::FirewallPolicy),
        }
    }

    /// All entries of a kind, by name.
    pub(crate) fn list(&self, kind: Kind) -> Vec<Entry> {
        match kind {
            Kind::Network => self.networks.values().cloned().map(Entry::Network).collect(),
            Kind::Router => self.routers.values().cloned().map(Entry::Router).collect(),
            Kind::Workload => self.workloads.values().cloned().map(Entry::Workload).collect(),
            Kind::Host => self.hosts.values().cloned().map(Entry::Host).collect(),
            Kind::Group => self.groups.values().cloned().map(Entry::Group).collect(),
            Kind::FirewallPolicy => self.policies.values().cloned().map(Entry::FirewallPolicy).collect(),
        }
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Network => self.networks.len(),
            Kind::Router => self.routers.len(),
            Kind::Workload => self.workloads.len(),
            Kind::Host => self.hosts.len(),
            Kind::Group => self.groups.len(),
            Kind::FirewallPolicy => self.policies.len(),
        }
    }

    /// True when there is such a host and it runs an agent.
    pub(crate) fn runs_agent(&self, host: &str) -> bool {
        self.hosts.get(host).is_some_and(|entry| entry.resource.spec.kind.is_agent())
    }

    /// Networks that are one routing domain with this one, itself among them: all of its router, by name.
    pub(crate) fn domain(&self, network: &str) -> BTreeSet<&str> {
        let Some((name, entry)) = self.networks.get_key_value(network) else { return BTreeSet::new() };
        let router = entry.resource.spec.router.as_deref();
        let siblings = router.into_iter().flat_map(|router| self.places.of_router(router));
        siblings.chain([name.as_str()]).collect()
    }

    pub(crate) fn put(&mut self, entry: Entry) {
        let name = entry.name().to_owned();
        match entry {
            Entry::Network(entry) => {
                let before = self.networks.insert(name, Arc::clone(&entry));
                self.places.put_network(before.as_deref(), Some(&entry));
            }
            Entry::Router(entry) => drop(self.routers.insert(name, entry)),
            Entry::Workload(entry) => {
                let before = self.workloads.insert(name, Arc::clone(&entry));
                self.places.put_workload(before.as_deref(), Some(&entry));
            }
            Entry::Host(entry) => drop(self.hosts.insert(name, entry)),
            Entry::Group(entry) => drop(self.groups.insert(name, entry)),
            Entry::FirewallPolicy(entry) => drop(self.policies.insert(name, entry)),
        }
    }

    /// The groups a workload has by its labels, name or kind, or because it is listed.
    pub(crate) fn groups_of(&self, entry: &WorkloadEntry) -> impl Iterator<Item = &str> {
        self.identities.get(&entry.identity).into_iter().flat_map(|set| set.iter().map(String::as_str))
    }

    pub(crate) fn remove(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Network => self.places.put_network(self.networks.remove(name).as_deref(), None),
            Kind::Router => drop(self.routers.remove(name)),
            Kind::Workload => self.places.put_workload(self.workloads.remove(name).as_deref(), None),
            Kind::Host => drop(self.hosts.remove(name)),
            Kind::Group => drop(self.groups.remove(name)),
            Kind::FirewallPolicy => drop(self.policies.remove(name)),
        }
    }
}
