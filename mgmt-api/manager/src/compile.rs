//! From desired state to what one host needs. A function of its arguments.

mod firewall;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use mgmt_types::agent::{
    FirewallSettings, GENEVE_PORT, Slice, SliceHost, SliceNetwork, SlicePort, SliceRoute, SliceRouter,
};
use mgmt_types::{MacAddr, PortSpec, derive};

use crate::mtu::Mtus;
use crate::state::{HostEntry, NetworkEntry, State, WorkloadEntry};

/// All that `host` needs: the networks it has ports on and those their routers lead to, every port of these networks,
/// the hosts that have them, and the policies for its own ports.
pub(crate) fn slice(state: &State, host: &str) -> Slice {
    let networks = view(state, host);
    let mtus = Mtus::of(state);
    let workloads: BTreeSet<&str> =
        networks.keys().flat_map(|network| state.places.on_network(network)).collect();
    let ports: Vec<SlicePort> = workloads
        .into_iter()
        .filter_map(|name| state.workloads.get(name))
        .flat_map(|entry| ports(state, entry))
        .filter(|port| networks.contains_key(port.network.as_str()))
        .collect();
    let routers: BTreeSet<&str> =
        networks.values().filter_map(|entry| entry.resource.spec.router.as_deref()).collect();
    let hosts: BTreeSet<&str> = ports
        .iter()
        .flat_map(|port| [Some(port.host.as_str()), port.moved_from.as_deref()])
        .flatten()
        .chain([host])
        .collect();
    let firewall::Part { groups, identities, policies } = firewall::part(state, host, &ports);
    Slice {
        revision: state.hosts.get(host).map_or(0, |entry| entry.wanted),
        host: host.to_owned(),
        networks: networks.values().map(|entry| network(&mtus, entry)).collect(),
        routers: routers.into_iter().map(|name| router(state, name)).collect(),
        hosts: hosts.into_iter().filter_map(|name| state.hosts.get(name)).map(|entry| peer(entry)).collect(),
        ports,
        groups,
        identities,
        policies,
        settings: FirewallSettings::default(),
    }
}

/// The networks a host needs, by name: those it has ports on, or had until a short while ago, and all that hang on the
/// same routers.
fn view<'a>(state: &'a State, host: &str) -> BTreeMap<&'a str, &'a NetworkEntry> {
    let mut networks = BTreeMap::new();
    let workloads = state.places.on_host(host).chain(state.places.left(host));
    for port in
        workloads.filter_map(|name| state.workloads.get(name)).flat_map(|entry| &entry.resource.spec.ports)
    {
        if networks.contains_key(port.network.as_str()) {
            continue;
        }
        for name in state.domain(&port.network) {
            if let Some(entry) = state.networks.get(name) {
                networks.insert(name, &**entry);
            }
        }
    }
    networks
}

/// The hosts that need one of these networks: the other way round of what a host needs.
pub(crate) fn viewers<'a>(
    state: &'a State,
    networks: impl IntoIterator<Item = &'a str>,
) -> BTreeSet<&'a str> {
    let domains: BTreeSet<&str> = networks.into_iter().flat_map(|network| state.domain(network)).collect();
    domains
        .into_iter()
        .flat_map(|network| state.places.on_network(network))
        .filter_map(|name| state.workloads.get(name))
        .flat_map(|entry| [Some(entry.resource.spec.host.as_str()), entry.moved_from.as_deref()])
        .flatten()
        .collect()
}

/// The networks that `host` has or had ports on: all who need one of them know the host.
pub(crate) fn homes<'a>(state: &'a State, host: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let workloads = state.places.on_host(host).chain(state.places.left(host));
    workloads
        .filter_map(|name| state.workloads.get(name))
        .flat_map(|entry| entry.resource.spec.ports.iter().map(|port| port.network.as_str()))
}

/// Hosts that have a port on one of these networks.
pub(crate) fn residents<'a>(
    state: &'a State,
    networks: impl IntoIterator<Item = &'a str>,
) -> BTreeSet<&'a str> {
    networks
        .into_iter()
        .flat_map(|network| state.places.on_network(network))
        .filter_map(|name| state.workloads.get(name))
        .map(|entry| entry.resource.spec.host.as_str())
        .collect()
}

/// A host as others need to know it: what is declared, else what its agent says.
pub(crate) fn peer(entry: &HostEntry) -> SliceHost {
    let spec = &entry.resource.spec;
    let told = entry.announced.as_ref();
    SliceHost {
        name: entry.resource.name.clone(),
        underlay: match told {
            Some(told) if spec.underlay.is_empty() => told.addresses.clone(),
            Some(_) | None => spec.underlay.clone(),
        },
        port: spec.geneve_port.or(told.map(|told| told.port)).unwrap_or(GENEVE_PORT),
        mtu: spec.underlay_mtu.or(told.map(|told| told.mtu)).unwrap_or(UNDERLAY_MTU),
        options: spec.kind.is_agent() || spec.options == Some(true),
        external: !spec.kind.is_agent(),
    }
}

/// What the underlay of a host carries when nobody has said, in bytes: the Ethernet default.
const UNDERLAY_MTU: u16 = 1500;

/// A router with everything filled in; one without a resource has no routes of its own.
pub(crate) fn router(state: &State, name: &str) -> SliceRouter {
    let routes = state.routers.get(name).into_iter().flat_map(|entry| &entry.resource.spec.routes);
    let routes = routes.map(|route| SliceRoute { to: route.to, via: route.via }).collect();
    SliceRouter { name: name.to_owned(), routes }
}

/// A network with everything filled in.
pub(crate) fn network<'a>(mtus: &Mtus<'a>, entry: &'a NetworkEntry) -> SliceNetwork {
    let spec = &entry.resource.spec;
    SliceNetwork {
        name: entry.resource.name.clone(),
        vni: entry.vni,
        subnets: spec.subnets.clone(),
        gateways: spec.gateways_in_use(),
        gateway_mac: gateway_mac(entry.vni),
        mtu: mtus.in_use(entry),
        router: spec.router.clone(),
        mss_clamp: spec.mss_clamp,
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
        moved_from: entry.moved_from.clone().filter(|host| state.runs_agent(host)),
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
    use mgmt_types::agent::Underlay;

    use crate::testing::{state_of, wishes};
    use crate::transaction::{self, Note, Wish};

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

    /// Networks `a` and `b` on router `r`, network `far` on router `s` with the same addresses; on each a workload of its
    /// own host.
    const ROUTED: &str = r#"
kind: Host
name: host-a
---
kind: Host
name: host-b
---
kind: Host
name: host-c
---
kind: Network
name: a
spec: { subnets: [10.0.1.0/24], router: r }
---
kind: Network
name: b
spec: { subnets: [10.0.2.0/24], router: r }
---
kind: Network
name: empty
spec: { subnets: [10.0.3.0/24], router: r }
---
kind: Network
name: far
spec: { subnets: [10.0.1.0/24], router: s }
---
kind: Workload
name: on-a
spec: { host: host-a, kind: vm, ports: [{ name: eth0, network: a }] }
---
kind: Workload
name: on-b
labels: { tier: db }
spec: { host: host-b, kind: vm, ports: [{ name: eth0, network: b }] }
---
kind: Workload
name: on-far
spec: { host: host-c, kind: vm, ports: [{ name: eth0, network: far }] }
---
kind: Group
name: db
spec: { match: tier = db }
"#;

    fn names<'a, T>(items: &'a [T], name: impl Fn(&'a T) -> &'a str) -> Vec<&'a str> {
        items.iter().map(name).collect()
    }

    #[test]
    fn a_host_gets_what_its_routers_lead_to_and_nothing_of_other_routers() {
        let slice = slice(&state_of(ROUTED), "host-a");
        assert_eq!(names(&slice.networks, |network| &network.name), ["a", "b", "empty"]);
        assert_eq!(names(&slice.ports, |port| &port.workload), ["on-a", "on-b"]);
        assert_eq!(names(&slice.routers, |router| &router.name), ["r"]);
        assert_eq!(names(&slice.hosts, |host| &host.name), ["host-a", "host-b"]);
        assert_eq!(names(&slice.groups, |group| &group.name), ["db"], "the group of a workload on b");
        assert_eq!(slice.identities.len(), 1);
    }

    #[test]
    fn a_host_without_ports_knows_itself() {
        let state = state_of("kind: Host\nname: host-a\n");
        let slice = slice(&state, "host-a");
        assert_eq!(names(&slice.hosts, |host| &host.name), ["host-a"]);
        assert!(slice.networks.is_empty() && slice.ports.is_empty() && slice.routers.is_empty());
    }

    #[test]
    fn a_move_reaches_the_old_host_the_new_one_and_every_peer() {
        let state = state_of(ROUTED);
        let moved = "kind: Workload\nname: on-a\nspec: { host: host-c, kind: vm, ports: [{ name: eth0, network: a }] }";
        let plan = transaction::plan(&state, &wishes(moved)).unwrap();
        assert_eq!(plan.hosts, ["host-a", "host-b", "host-c"]);
        let place = |host: &str| {
            let slice = slice(&plan.state, host);
            let port = slice.ports.iter().find(|port| port.workload == "on-a").unwrap();
            (port.id, port.mac, port.host.clone(), port.moved_from.clone())
        };
        let before = slice(&state, "host-a").ports[0].clone();
        let expected = (before.id, before.mac, "host-c".to_owned(), Some("host-a".to_owned()));
        for host in ["host-a", "host-b", "host-c"] {
            assert_eq!(place(host), expected, "on {host}");
        }
        // The old host passes on what comes late: it keeps the network and learns where the new one is.
        let old = slice(&plan.state, "host-a");
        assert_eq!(names(&old.networks, |network| &network.name), ["a", "b", "empty"]);
        assert_eq!(names(&old.hosts, |host| &host.name), ["host-a", "host-b", "host-c"]);
        // The new one, and whoever sends, knows from which host that may come.
        let new = slice(&plan.state, "host-c");
        assert_eq!(names(&new.hosts, |host| &host.name), ["host-a", "host-b", "host-c"]);
        let back = "kind: Workload\nname: on-a\nspec: { host: host-a, kind: vm, ports: [{ name: eth0, network: a }] }";
        let plan = transaction::plan(&plan.state, &wishes(back)).unwrap();
        let port = &slice(&plan.state, "host-a").ports[0];
        assert_eq!((port.host.as_str(), port.moved_from.as_deref()), ("host-a", Some("host-c")));
    }

    #[test]
    fn a_host_is_as_declared_else_as_it_says() {
        let text = "kind: Host\nname: host-a\n---\nkind: Host\nname: ext\nspec: { kind: external, underlay: [192.0.2.9], genevePort: 6082, underlayMtu: 1400 }\n---\nkind: Host\nname: tlv\nspec: { kind: external, underlay: [192.0.2.8], options: true }\n";
        let mut state = state_of(text);
        let host = |state: &State, name: &str| peer(&state.hosts[name]);
        let silent = host(&state, "host-a");
        assert_eq!((silent.underlay.len(), silent.port, silent.mtu, silent.options), (0, 6081, 1500, true));
        let ext = host(&state, "ext");
        assert_eq!((ext.port, ext.mtu, ext.options, ext.external), (6082, 1400, false, true));
        assert!(host(&state, "tlv").options);

        let told = Underlay { addresses: vec!["192.0.2.1".parse().unwrap()], port: 7000, mtu: 9000 };
        let note = Wish::Note(Note::Underlay { host: "host-a".into(), told: told.clone() });
        state = transaction::plan(&state, &[note]).unwrap().state;
        let heard = host(&state, "host-a");
        assert_eq!((heard.underlay, heard.port, heard.mtu), (told.addresses.clone(), 7000, 9000));
        let declared = "kind: Host\nname: host-a\nspec: { underlay: [192.0.2.7], underlayMtu: 1600 }\n";
        state = transaction::plan(&state, &wishes(declared)).unwrap().state;
        let both = host(&state, "host-a");
        assert_eq!((both.underlay[0].to_string(), both.port, both.mtu), ("192.0.2.7".into(), 7000, 1600));
        state = transaction::plan(&state, &wishes("kind: Host\nname: host-a\n")).unwrap().state;
        assert_eq!(host(&state, "host-a").underlay, told.addresses, "what it said is still known");
    }

    #[test]
    fn an_external_host_is_known_to_its_peers_and_told_nothing() {
        let text = ROUTED
            .replace("name: host-b\n", "name: host-b\nspec: { kind: external, underlay: [192.0.2.9] }\n");
        let plan = transaction::plan(&State::default(), &wishes(&text)).unwrap();
        assert_eq!(plan.hosts, ["host-a", "host-c"]);
        let slice = slice(&plan.state, "host-a");
        let known = slice.hosts.iter().find(|host| host.name == "host-b").unwrap();
        assert!(known.external && !known.options);
        assert_eq!(slice.ports.iter().find(|port| port.workload == "on-b").unwrap().host, "host-b");
        // A workload that moves away from it leaves nobody behind who would pass anything on.
        let moved = "kind: Workload\nname: on-b\nspec: { host: host-a, kind: vm, ports: [{ name: eth0, network: b }] }";
        let next = transaction::plan(&plan.state, &wishes(moved)).unwrap().state;
        assert_eq!(next.workloads["on-b"].moved_from, None);
    }

    #[test]
    fn a_router_has_its_routes_and_one_without_a_resource_has_none() {
        let state = state_of(ROUTED);
        assert!(slice(&state, "host-a").routers[0].routes.is_empty());
        let text = "kind: Router\nname: r\nspec: { routes: [{ to: 0.0.0.0/0, via: 10.0.2.9 }] }\n";
        let plan = transaction::plan(&state, &wishes(text)).unwrap();
        assert_eq!(plan.hosts, ["host-a", "host-b"]);
        let route = &slice(&plan.state, "host-a").routers[0].routes[0];
        assert_eq!((route.to.to_string(), route.via.to_string()), ("0.0.0.0/0".into(), "10.0.2.9".into()));
        assert!(slice(&plan.state, "host-c").routers[0].routes.is_empty(), "router s is another one");
    }

    #[test]
    fn when_a_move_is_over_the_old_host_forgets() {
        let moved = "kind: Workload\nname: on-a\nspec: { host: host-c, kind: vm, ports: [{ name: eth0, network: a }] }";
        let state = transaction::plan(&state_of(ROUTED), &wishes(moved)).unwrap().state;
        let plan =
            transaction::plan(&state, &[Wish::Note(Note::Settled { workload: "on-a".into() })]).unwrap();
        assert_eq!(plan.hosts, ["host-a", "host-b", "host-c"]);
        let old = slice(&plan.state, "host-a");
        assert_eq!((old.networks.len(), old.ports.len(), old.hosts.len()), (0, 0, 1));
        assert_eq!(names(&slice(&plan.state, "host-b").hosts, |host| &host.name), ["host-b", "host-c"]);
    }

    #[test]
    fn a_slice_does_not_grow_with_the_mesh() {
        let size = |hosts: u32| {
            let mut text = String::new();
            for n in 0..hosts {
                // Four hosts share the two networks of one router.
                let (router, first, second) = (n / 4, n / 4 * 2, n / 4 * 2 + 1);
                let net = |n: u32| {
                    format!(
                        "kind: Network\nname: n{n}\nspec: {{ subnets: [10.{}.{}.0/24], vni: {}, router: r{router} }}\n---\n",
                        n / 256,
                        n % 256,
                        100_000 + n
                    )
                };
                if n % 4 == 0 {
                    text += &(net(first) + &net(second));
                }
                let network = if n % 2 == 0 { first } else { second };
                text += &format!(
                    "kind: Host\nname: h{n}\n---\nkind: Workload\nname: w{n}\nlabels: {{ n: \"{n}\" }}\nspec: {{ host: h{n}, kind: vm, ports: [{{ name: eth0, network: n{network} }}] }}\n---\nkind: Group\nname: g{n}\nspec: {{ match: n = {n} }}\n---\n"
                );
            }
            let mut slice = slice(&state_of(&text), "h1");
            slice.ports.iter_mut().for_each(|port| (port.id, port.identity) = (0, 0));
            slice.identities.iter_mut().for_each(|identity| identity.id = 0);
            serde_json::to_vec(&slice).unwrap().len()
        };
        let small = size(8);
        assert_eq!((size(100), size(400)), (small, small));
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
