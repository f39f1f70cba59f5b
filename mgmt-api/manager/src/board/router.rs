//! What is known about routers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use mgmt_types::{Router, RouterReport};

use crate::compile;
use crate::state::State;

/// Who routes between what, and which routes lead to nobody.
pub(super) fn report(state: &State, router: &Router) -> RouterReport {
    let networks: Vec<&str> = state.places.of_router(&router.name).collect();
    let residents = compile::residents(state, networks.iter().copied());
    let hosts = residents.into_iter().filter(|host| state.runs_agent(host)).map(str::to_owned);
    let routes = &router.spec.routes;
    let held = if routes.is_empty() { BTreeSet::new() } else { addresses(state, &networks) };
    let unheld = routes.iter().filter(|route| !held.contains(&route.via));
    let mut warnings: Vec<String> = unheld
        .map(|route| format!("the route to {} leads nowhere: no port has {}", route.to, route.via))
        .take(MAX_WARNINGS)
        .collect();
    if networks.is_empty() {
        warnings.push("no network hangs on it".to_owned());
    }
    RouterReport {
        hosts: hosts.collect(),
        networks: networks.into_iter().map(str::to_owned).collect(),
        warnings,
    }
}

/// Most routes that are told of.
const MAX_WARNINGS: usize = 20;

/// Addresses of ports on the networks.
fn addresses(state: &State, networks: &[&str]) -> BTreeSet<IpAddr> {
    let names: BTreeSet<&str> =
        networks.iter().flat_map(|network| state.places.on_network(network)).collect();
    names
        .into_iter()
        .filter_map(|name| state.workloads.get(name))
        .flat_map(|entry| compile::ports(state, entry))
        .filter(|port| networks.contains(&port.network.as_str()))
        .flat_map(|port| port.addresses)
        .collect()
}
