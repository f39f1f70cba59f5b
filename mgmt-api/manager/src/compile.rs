//! From desired state to what one host needs. A function of its arguments.

mod firewall;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use mgmt_types::agent::{FirewallSettings, Slice, SliceNetwork, SlicePort};
use mgmt_types::{MacAddr, PortSpec, derive};

use crate::state::{NetworkEntry, State, WorkloadEntry};

/// All that `host` needs: the networks it has ports on, every port of these networks, and the policies for its own.
pub(crate) fn slice(state: &State, host: &str) -> Slice {
    let mut present = BTreeSet::new();
    for entry in state.workloads.values().filter(|entry| entry.resource.spec.host == host) {
        present.extend(entry.resource.spec.ports.iter().map(|port| port.network.as_str()));
    }
    let networks =
        present.iter().filter_map(|name| state.networks.get(*name)).map(|entry| network(entry)).collect();
    let ports: Vec<SlicePort> = state
        .workloads
        .values()
        .flat_map(|entry| ports(state, entry))
        .filter(|port| present.contains(port.network.as_str()))
        .collect();
    let revision = state.hosts.get(host).map_or(0, |entry| entry.wanted);
    let firewall::Part { groups, identities, policies } = firewall::part(state, host, &ports);
    let settings = FirewallSettings::default();
    Slice {
        revision,
        host: host.to_owned(),
        networks,
        ports,
        routers: Vec::new(),
        hosts: Vec::new(),
        groups,
        identities,
        policies,
        settings,
    }
}

/// A network with everything filled in.
pub(crate) fn network(entry: &NetworkEntry) -> SliceNetwork {
    let spec = &entry.resource.spec;
    SliceNetwork {
        name: entry.resource.name.clone(),
        vni: entry.vni,
        subnets: spec.subnets.clone(),
        gateways: spec.gateways_in_use(),
        gateway_mac: gateway_mac(entry.vni),
        mtu: spec.mtu.bytes(),
        router: spec.router.clone(),
    }
}

/// The ports of a workload with everything filled in; those on networks that do not exist are left out.
pub(crate) fn ports<'a>(
    state: &'a State,
    entry: &'a WorkloadEntry,
) -> impl Iterator<Item = SlicePort> + use<'a> {
    entry.resource.spec.ports.iter().filter_map(|spec| port(state, entry, spec))
}

fn port(state: &State, entry: &WorkloadEntry, spec: &PortSpec) -> Option<SlicePort> {
    let network = state.networks.get(&spec.network)?;
    let workload = &entry.resource;
    Some(SlicePort {
        id: *entry.ports.get(&spec.name)?,
        workload: workload.name.clone(),
        name: spec.name.clone(),
        network: spec.network.clone(),
        host: workload.spec.host.clone(),
        mac: spec.mac_in_use(&workload.name),
        addresses: addresses(&network.resource.spec.subnets, &workload.name, spec),
        attach: spec.attach_in_use(&workload.name, workload.spec.kind),
        queues: spec.queues.unwrap_or(1),
        rate_limit: spec.rate_limit,
        identity: entry.identity,
        firewall: spec.firewall.is_on(),
    })
}

/// The addresses given, then one derived for each IPv6 subnet that has none of them.
pub(crate) fn addresses(subnets: &[IpNet], workload: &str, port: &PortSpec) -> Vec<IpAddr> {
    let mac = port.mac_in_use(workload);
    let mut addresses = port.addresses.clone();
    for subnet in subnets {
        if let IpNet::V6(net) = subnet
            && !port.addresses.iter().any(|address| subnet.contains(address))
            && let Some(derived) = derive::ipv6(*net, mac)
        {
            addresses.push(IpAddr::V6(derived));
        }
    }
    addresses
}

/// The gateway's MAC address: locally administered, the VNI in its last three octets, so that it is the same on every
/// host and differs between networks.
pub(crate) fn gateway_mac(vni: u32) -> MacAddr {
    let [_, a, b, c] = vni.to_be_bytes();
    MacAddr([0x02, 0x00, 0x00, a, b, c])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{state_of, wishes};
    use crate::transaction;

    const TWO_HOSTS: &str = r#"
kind: Host
name: host-a
---
kind: Host
name: host-b
---
kind: Network
name: blue
spec: { subnets: [10.0.1.0/24, "fd00:1::/64"], vni: 7, mtu: 9000 }
---
kind: Network
name: red
spec: { subnets: [10.0.2.0/24] }
---
kind: Workload
name: web-1
spec: { host: host-a, kind: vm, ports: [{ name: eth0, network: blue, addresses: [10.0.1.11], queues: 4 }] }
---
kind: Workload
name: web-2
spec: { host: host-b, kind: container, ports: [{ name: eth0, network: blue, addresses: ["fd00:1::5"], mac: "52:54:00:00:00:02" }] }
---
kind: Workload
name: db-1
spec: { host: host-b, kind: vm, ports: [{ name: eth0, network: red }] }
"#;

    #[test]
    fn a_host_gets_the_networks_it_has_ports_on_and_all_their_ports() {
        let state = state_of(TWO_HOSTS);
        let slice = slice(&state, "host-a");
        let networks: Vec<_> = slice.networks.iter().map(|network| network.name.as_str()).collect();
        let ports: Vec<_> =
            slice.ports.iter().map(|port| (port.workload.as_str(), port.host.as_str())).collect();
        assert_eq!(networks, ["blue"]);
        assert_eq!(ports, [("web-1", "host-a"), ("web-2", "host-b")]);
        assert_eq!(super::slice(&state, "host-b").networks.len(), 2);
        assert_eq!(super::slice(&state, "host-c").networks.len(), 0);
    }

    #[test]
    fn everything_a_host_needs_is_filled_in() {
        let slice = slice(&state_of(TWO_HOSTS), "host-a");
        let blue = &slice.networks[0];
        assert_eq!((blue.vni, blue.mtu), (7, 9000));
        assert_eq!(blue.gateway_mac.to_string(), "02:00:00:00:00:07");
        assert_eq!(blue.gateways, ["10.0.1.1".parse::<IpAddr>().unwrap(), "fd00:1::1".parse().unwrap()]);
        let web_1 = &slice.ports[0];
        // The MAC address is the golden one of `mgmt_types::derive`; the IPv6 address is its EUI-64.
        assert_eq!(web_1.mac.to_string(), "f6:7d:f9:29:85:eb");
        assert_eq!(
            web_1.addresses,
            ["10.0.1.11".parse::<IpAddr>().unwrap(), "fd00:1::f47d:f9ff:fe29:85eb".parse().unwrap()]
        );
        assert_eq!(web_1.queues, 4);
        let web_2 = &slice.ports[1];
        assert_eq!(web_2.addresses, ["fd00:1::5".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            serde_json::to_value(&web_2.attach).unwrap(),
            serde_json::json!({ "tap": { "device": "web-2.eth0" } })
        );
    }

    #[test]
    fn port_numbers_stay_with_their_port_and_are_never_used_again() {
        let before = state_of(TWO_HOSTS);
        let id =
            |state: &State, workload: &str, port: &str| state.workloads[workload].ports.get(port).copied();
        let more = "kind: Workload\nname: web-1\nspec: { host: host-b, kind: vm, ports: [{ name: eth1, network: red }, { name: eth0, network: blue }] }";
        let moved = transaction::plan(&before, &wishes(more)).unwrap().state;
        assert_eq!(id(&moved, "web-1", "eth0"), id(&before, "web-1", "eth0"));
        let fresh = id(&moved, "web-1", "eth1").unwrap();
        assert!(before.workloads.values().flat_map(|w| w.ports.values()).all(|old| *old != fresh));
        let without = "kind: Workload\nname: web-1\nspec: { host: host-b, kind: vm, ports: [] }";
        let empty = transaction::plan(&moved, &wishes(without)).unwrap().state;
        let again = transaction::plan(&empty, &wishes(more)).unwrap().state;
        assert!(id(&again, "web-1", "eth1").unwrap() > fresh);
    }

    #[test]
    fn a_slice_carries_the_revision_that_last_changed_it() {
        let state = state_of(TWO_HOSTS);
        assert_eq!(slice(&state, "host-a").revision, 1);
        let only_b = "kind: Workload\nname: db-2\nspec: { host: host-b, kind: vm, ports: [{ name: eth0, network: red }] }";
        let next = transaction::plan(&state, &wishes(only_b)).unwrap().state;
        assert_eq!((slice(&next, "host-a").revision, slice(&next, "host-b").revision), (1, 2));
        let label = "kind: Workload\nname: db-2\nlabels: { a: b }\nspec: { host: host-b, kind: vm, ports: [{ name: eth0, network: red }] }";
        let next = transaction::plan(&next, &wishes(label)).unwrap().state;
        assert_eq!((next.revision, slice(&next, "host-b").revision), (3, 2));
    }
}
