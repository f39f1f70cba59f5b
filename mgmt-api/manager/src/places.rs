//! Who is where: which workloads a host and a network have, and which networks a router.
//!
//! Follows from the entries of a state, and is kept beside them so that a look at one host or one network costs no more
//! than what is there. Sets are shared between revisions until they change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::state::{NetworkEntry, WorkloadEntry};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places {
    on_host: Names,
    left: Names,
    on_network: Names,
    of_router: Names,
}

/// Names by a name; none of the sets is empty.
type Names = BTreeMap<String, Arc<BTreeSet<String>>>;

impl Places {
    /// Workloads that run on the host, by name.
    pub(crate) fn on_host(&self, host: &str) -> impl Iterator<Item = &str> + use<'_> {
        each(&self.on_host, host)
    }

    /// Workloads that ran on the host until a short while ago, by name.
    pub(crate) fn left(&self, host: &str) -> impl Iterator<Item = &str> + use<'_> {
        each(&self.left, host)
    }

    /// Workloads that ran elsewhere until a short while ago, in no order.
    pub(crate) fn moved(&self) -> impl Iterator<Item = &str> + use<'_> {
        self.left.values().flat_map(|set| set.iter().map(String::as_str))
    }

    /// Workloads that have a port on the network, by name.
    pub(crate) fn on_network(&self, network: &str) -> impl Iterator<Item = &str> + use<'_> {
        each(&self.on_network, network)
    }

    /// Networks that hang on the router, by name.
    pub(crate) fn of_router(&self, router: &str) -> impl Iterator<Item = &str> + use<'_> {
        each(&self.of_router, router)
    }

    /// A workload came, changed or went.
    pub(crate) fn put_workload(&mut self, before: Option<&WorkloadEntry>, after: Option<&WorkloadEntry>) {
        let host = |entry: &WorkloadEntry| Some(entry.resource.spec.host.clone());
        let networks = |entry: &WorkloadEntry| -> BTreeSet<String> {
            entry.resource.spec.ports.iter().map(|port| port.network.clone()).collect()
        };
        let Some(name) = before.or(after).map(|entry| entry.resource.name.as_str()) else { return };
        put(&mut self.on_host, name, before.and_then(host), after.and_then(host));
        let from = |entry: &WorkloadEntry| entry.moved_from.clone();
        put(&mut self.left, name, before.and_then(from), after.and_then(from));
        put(
            &mut self.on_network,
            name,
            before.map(networks).unwrap_or_default(),
            after.map(networks).unwrap_or_default(),
        );
    }

    /// A network came, changed or went.
    pub(crate) fn put_network(&mut self, before: Option<&NetworkEntry>, after: Option<&NetworkEntry>) {
        let router = |entry: &NetworkEntry| entry.resource.spec.router.clone();
        let Some(name) = before.or(after).map(|entry| entry.resource.name.as_str()) else { return };
        put(&mut self.of_router, name, before.and_then(router), after.and_then(router));
    }
}

fn each<'a>(names: &'a Names, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    names.get(key).into_iter().flat_map(|set| set.iter().map(String::as_str))
}

/// Takes `name` from where it was `before` to where it is `after`.
fn put(
    names: &mut Names,
    name: &str,
    before: impl IntoIterator<Item = String>,
    after: impl IntoIterator<Item = String>,
) {
    let (before, after): (BTreeSet<String>, BTreeSet<String>) =
        (before.into_iter().collect(), after.into_iter().collect());
    for place in before.difference(&after) {
        if let Some(set) = names.get_mut(place) {
            Arc::make_mut(set).remove(name);
            if set.is_empty() {
                names.remove(place);
            }
        }
    }
    for place in after.difference(&before) {
        Arc::make_mut(names.entry(place.clone()).or_default()).insert(name.to_owned());
    }
}
