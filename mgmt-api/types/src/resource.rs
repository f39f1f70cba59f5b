//! Any resource, by kind.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{FirewallPolicy, Group, Host, Labels, Mistake, Network, Router, Workload};

/// One resource of any kind, told apart by its member `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind")]
pub enum Resource {
    /// A logical layer-2 segment.
    Network(Network),
    /// A distributed router between networks.
    Router(Router),
    /// Something that has ports.
    Workload(Workload),
    /// A machine that runs the appliance.
    Host(Host),
    /// A set of workloads and addresses.
    Group(Group),
    /// Rules about who may open which connections.
    FirewallPolicy(FirewallPolicy),
}

/// Resources of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceList {
    /// The newest revision when this was read; watch from here.
    pub revision: u64,
    /// The resources, by name.
    pub items: Vec<Resource>,
}

/// The kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Kind {
    /// [`Host`]
    Host,
    /// [`Network`]
    Network,
    /// [`Router`]
    Router,
    /// [`Workload`]
    Workload,
    /// [`Group`]
    Group,
    /// [`FirewallPolicy`]
    FirewallPolicy,
}

impl Kind {
    /// Every kind, in the order that references need: what is referred to comes first.
    pub const ALL: [Self; 6] =
        [Self::Host, Self::Network, Self::Router, Self::Workload, Self::Group, Self::FirewallPolicy];

    /// As written in a resource's `kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "Host",
            Self::Network => "Network",
            Self::Router => "Router",
            Self::Workload => "Workload",
            Self::Group => "Group",
            Self::FirewallPolicy => "FirewallPolicy",
        }
    }

    /// As written in a URL: lower case, plural.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Host => "hosts",
            Self::Network => "networks",
            Self::Router => "routers",
            Self::Workload => "workloads",
            Self::Group => "groups",
            Self::FirewallPolicy => "firewallpolicies",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// No kind of resource has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no kind {got:?}; there are networks, routers, workloads, hosts, groups and firewallpolicies"
)]
pub struct UnknownKind {
    /// The text as it came, cut to 40 characters.
    pub got: String,
}

impl FromStr for Kind {
    type Err = UnknownKind;

    /// Reads `Network`, `network`, `networks`, `net` and their likes, as people type them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "network" | "networks" | "net" => Ok(Self::Network),
            "router" | "routers" | "rt" => Ok(Self::Router),
            "workload" | "workloads" | "wl" => Ok(Self::Workload),
            "host" | "hosts" => Ok(Self::Host),
            "group" | "groups" | "grp" => Ok(Self::Group),
            "firewallpolicy" | "firewallpolicies" | "policy" | "policies" | "fwp" => Ok(Self::FirewallPolicy),
            _ => Err(UnknownKind { got: text.chars().take(40).collect() }),
        }
    }
}

impl Resource {
    /// Which kind it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Network(_) => Kind::Network,
            Self::Router(_) => Kind::Router,
            Self::Workload(_) => Kind::Workload,
            Self::Host(_) => Kind::Host,
            Self::Group(_) => Kind::Group,
            Self::FirewallPolicy(_) => Kind::FirewallPolicy,
        }
    }

    /// Its name, unique within its kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Network(network) => &network.name,
            Self::Router(router) => &router.name,
            Self::Workload(workload) => &workload.name,
            Self::Host(host) => &host.name,
            Self::Group(group) => &group.name,
            Self::FirewallPolicy(policy) => &policy.name,
        }
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        match self {
            Self::Network(network) => &network.labels,
            Self::Router(router) => &router.labels,
            Self::Workload(workload) => &workload.labels,
            Self::Host(host) => &host.labels,
            Self::Group(group) => &group.labels,
            Self::FirewallPolicy(policy) => &policy.labels,
        }
    }

    /// The revision that last changed it, when the manager wrote it.
    pub const fn revision(&self) -> Option<u64> {
        match self {
            Self::Network(network) => network.revision,
            Self::Router(router) => router.revision,
            Self::Workload(workload) => workload.revision,
            Self::Host(host) => host.revision,
            Self::Group(group) => group.revision,
            Self::FirewallPolicy(policy) => policy.revision,
        }
    }

    /// Kind and name, written `Workload/web-1`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.kind(), self.name())
    }

    /// What is wrong within this resource alone; empty when nothing is.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = match self {
            Self::Network(network) => network.mistakes(),
            Self::Router(router) => router.mistakes(),
            Self::Workload(workload) => workload.mistakes(),
            Self::Host(host) => host.mistakes(),
            Self::Group(group) => group.mistakes(),
            Self::FirewallPolicy(policy) => policy.mistakes(),
        };
        for mistake in &mut found {
            mistake.resource = Some(self.id());
        }
        found
    }

    /// Only what is wanted: without status and revision.
    #[must_use]
    pub fn desired(mut self) -> Self {
        match &mut self {
            Self::Network(network) => (network.status, network.revision) = (None, None),
            Self::Router(router) => (router.status, router.revision) = (None, None),
            Self::Workload(workload) => (workload.status, workload.revision) = (None, None),
            Self::Host(host) => (host.status, host.revision) = (None, None),
            Self::Group(group) => (group.status, group.revision) = (None, None),
            Self::FirewallPolicy(policy) => (policy.status, policy.revision) = (None, None),
        }
        self
    }

    /// Says which revision last changed it.
    #[must_use]
    pub fn at_revision(mut self, revision: u64) -> Self {
        let slot = match &mut self {
            Self::Network(network) => &mut network.revision,
            Self::Router(router) => &mut router.revision,
            Self::Workload(workload) => &mut workload.revision,
            Self::Host(host) => &mut host.revision,
            Self::Group(group) => &mut group.revision,
            Self::FirewallPolicy(policy) => &mut policy.revision,
        };
        *slot = Some(revision);
        self
    }
}
