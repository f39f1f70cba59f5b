use std::io::Write;
use std::net::Ipv4Addr;

use mgmt_types::{Attach, Network, Peer, Route, agent};
use proptest::prelude::*;

use super::*;
use crate::document::{self, Format};
use crate::testing::{deletions, state_of, wishes};

const BASE: &str = r#"
kind: Host
name: host-a
---
kind: Network
name: blue
spec: { subnets: [10.0.1.0/24, "fd00:1::/64"], router: shop }
---
kind: Network
name: red
spec: { subnets: [10.0.2.0/24], router: shop, vni: 9 }
---
kind: Workload
name: web-1
spec:
  host: host-a
  kind: vm
  ports:
    - { name: eth0, network: blue, addresses: [10.0.1.11], mac: "52:54:00:00:00:01" }
"#;

/// A workload on `network` with more members of its port.
fn workload(name: &str, host: &str, network: &str, more: &str) -> String {
    format!(
        "kind: Workload\nname: {name}\nspec:\n  host: {host}\n  kind: vm\n  ports:\n    - name: eth0\n      network: {network}\n{more}"
    )
}

#[test]
fn each_mistake_between_resources_names_line_field_got_and_expected() {
    let cases: Vec<(String, &str, u32, &str, &str)> = vec![
        (workload("b", "host-z", "blue", ""), "spec.host", 4, "host-z", "a known host: host-a"),
        (workload("b", "host-a", "blu", ""), "spec.ports[0].network", 8, "blu", "a known network: blue, red"),
        (
            workload("b", "host-a", "blue", "      addresses: [10.0.1.11]"),
            "spec.ports[0].addresses[0]",
            9,
            "10.0.1.11",
            "port eth0 of Workload/web-1 has it",
        ),
        (
            workload("b", "host-a", "blue", "      mac: 52-54-00-00-00-01"),
            "spec.ports[0].mac",
            9,
            "52:54:00:00:00:01",
            "a MAC address no port of Network/blue has",
        ),
        (
            workload("b", "host-a", "blue", "      addresses:\n      - 10.0.1.12\n      - 10.0.2.12"),
            "spec.ports[0].addresses[1]",
            11,
            "10.0.2.12",
            "an address in 10.0.1.0/24, fd00:1::/64 of Network/blue",
        ),
        (
            workload("b", "host-a", "blue", "      addresses: [10.0.1.1]"),
            "spec.ports[0].addresses[0]",
            9,
            "10.0.1.1",
            "another address",
        ),
        (
            workload("b", "host-a", "blue", "      addresses: [10.0.1.255]"),
            "spec.ports[0].addresses[0]",
            9,
            "10.0.1.255",
            "a host address of 10.0.1.0/24",
        ),
        (
            workload("b", "host-a", "blue", "      addresses: [10.0.1.0]"),
            "spec.ports[0].addresses[0]",
            9,
            "10.0.1.0",
            "a host address of 10.0.1.0/24",
        ),
        (
            workload("b", "host-a", "red", "      mac: 02-00-00-00-00-09"),
            "spec.ports[0].mac",
            9,
            "02:00:00:00:00:09",
            "another address",
        ),
        (
            // fd00:1::5054:ff:fe00:1 is what web-1 derives.
            workload("b", "host-a", "blue", "      addresses: ['fd00:1::5054:ff:fe00:1']"),
            "spec.ports[0].addresses[0]",
            9,
            "fd00:1::5054:ff:fe00:1",
            "port eth0 of Workload/web-1 has it",
        ),
        (
            "kind: Network\nname: green\nspec:\n  router: shop\n  subnets: [10.0.0.0/16]\n".to_owned(),
            "spec.subnets[0]",
            5,
            "10.0.0.0/16",
            "a range outside 10.0.1.0/24 of Network/blue, or another router",
        ),
        (
            "kind: Network\nname: green\nspec:\n  subnets: []\n  vni: 9\n".to_owned(),
            "spec.vni",
            5,
            "9",
            "Network/red has it",
        ),
        (
            "kind: Network\nname: blue\nspec:\n  subnets: [10.9.0.0/24]\n".to_owned(),
            "spec.subnets",
            4,
            "10.9.0.0/24",
            "a choice that leaves 10.0.1.11 to port eth0 of Workload/web-1",
        ),
        (
            "kind: Network\nname: blue\nspec:\n  subnets: [10.0.1.0/24]\n  gateways: [10.0.1.11]\n"
                .to_owned(),
            "spec.gateways",
            5,
            "10.0.1.11",
            "a choice that leaves 10.0.1.11",
        ),
        (
            "kind: Router\nname: shop\nspec:\n  routes:\n  - to: 10.0.1.64/26\n    via: 10.0.2.9\n".to_owned(),
            "spec.routes[0].to",
            5,
            "10.0.1.64/26",
            "a range outside 10.0.1.0/24 of Network/blue",
        ),
        (
            "kind: Router\nname: shop\nspec:\n  routes:\n  - to: 0.0.0.0/0\n    via: 10.0.3.9\n".to_owned(),
            "spec.routes[0].via",
            6,
            "10.0.3.9",
            "a host address of a network of the router: 10.0.1.0/24, fd00:1::/64, 10.0.2.0/24",
        ),
        (
            "kind: Router\nname: shop\nspec:\n  routes:\n  - to: 0.0.0.0/0\n    via: 10.0.2.1\n".to_owned(),
            "spec.routes[0].via",
            6,
            "10.0.2.1",
            "the address of a port; it is a gateway of Network/red",
        ),
        (
            "kind: Host\nname: b\nspec:\n  underlay: [192.0.2.8, 192.0.2.1]\n---\nkind: Host\nname: a\nspec: { underlay: [192.0.2.1] }\n".to_owned(),
            "spec.underlay[1]",
            4,
            "192.0.2.1",
            "an address no host has; Host/a has it",
        ),
        ("kind: Network\nname: Green\nspec:\n  subnets: []\n".to_owned(), "name", 2, "Green", "letters a-z"),
        (
            format!("kind: Network\nname: {}\nspec:\n  subnets: []\n", "x".repeat(64)),
            "name",
            2,
            "xxxx",
            "letters a-z",
        ),
    ];
    let state = state_of(BASE);
    for (text, field, line, got, expected) in cases {
        let problem = plan(&state, &wishes(&text)).unwrap_err();
        let first = &problem.first;
        assert_eq!(first.field.as_deref(), Some(field), "{text}\n{problem}");
        assert_eq!(first.line, Some(line), "{text}\n{problem}");
        assert!(first.got.as_deref().unwrap_or_default().starts_with(got), "{text}\n{problem}");
        assert!(first.expected.as_deref().unwrap_or_default().contains(expected), "{text}\n{problem}");
        assert!(first.reason.is_some() && first.resource.is_some(), "{text}\n{problem}");
        assert_eq!(problem.status, 422, "{text}\n{problem}");
    }
}

#[test]
fn two_ports_cannot_be_attached_to_one_device() {
    let tap = |name: &str, netns: &str| {
        workload(
            name,
            "host-a",
            "blue",
            &format!("      attach: {{ tap: {{ device: tap0, netns: {netns} }} }}"),
        )
    };
    let text = format!("{}\n---\n{}", tap("a", "shop"), tap("b", "/run/netns/shop"));
    let problem = plan(&state_of(BASE), &wishes(&text)).unwrap_err();
    assert_eq!(problem.first.field.as_deref(), Some("spec.ports[0].attach.tap.device"));
    assert_eq!(problem.first.document, Some(2));
    let text = format!("{}\n---\n{}", tap("a", "shop"), tap("b", "bank"));
    plan(&state_of(BASE), &wishes(&text)).unwrap();
}

#[test]
fn what_is_in_use_cannot_be_deleted_unless_its_users_go_too() {
    let state = state_of(BASE);
    for (kind, name) in [("Network", "blue"), ("Host", "host-a")] {
        let problem = plan(&state, &deletions(&format!("kind: {kind}\nname: {name}\n"))).unwrap_err();
        assert!(problem.is(ProblemKind::InUse), "{problem}");
        assert!(problem.detail.contains("Workload/web-1"), "{problem}");
    }
    let all = plan(&state, &deletions(BASE)).unwrap();
    assert_eq!(all.state.networks.len() + all.state.workloads.len() + all.state.hosts.len(), 0);
    assert!(all.outcomes.iter().all(|outcome| outcome.change == Change::Deleted));
}

#[test]
fn a_network_stays_as_a_route_through_it_needs_it() {
    let route = "kind: Router\nname: shop\nspec: { routes: [{ to: 0.0.0.0/0, via: 10.0.2.9 }] }\n";
    let state = plan(&state_of(BASE), &wishes(route)).unwrap().state;
    let problem = plan(&state, &deletions("kind: Network\nname: red\n")).unwrap_err();
    assert!(problem.is(ProblemKind::InUse), "{problem}");
    assert!(problem.detail.contains("the route to 0.0.0.0/0 of Router/shop"), "{problem}");
    for (spec, field) in [
        ("{ subnets: [10.0.3.0/24], router: shop, vni: 9 }", "spec.subnets"),
        ("{ subnets: [10.0.2.0/24], router: other, vni: 9 }", "spec.subnets"),
        ("{ subnets: [10.0.2.0/24], router: shop, vni: 9, gateways: [10.0.2.9] }", "spec.gateways"),
    ] {
        let problem =
            plan(&state, &wishes(&format!("kind: Network\nname: red\nspec: {spec}\n"))).unwrap_err();
        assert_eq!(problem.first.field.as_deref(), Some(field), "{problem}");
        assert_eq!(problem.first.resource.as_deref(), Some("Network/red"), "{problem}");
        let expected = problem.first.expected.as_deref().unwrap_or_default();
        assert!(expected.contains("leaves Router/shop its route to 0.0.0.0/0 through 10.0.2.9"), "{problem}");
    }
    let both = deletions("kind: Network\nname: red\n---\nkind: Router\nname: shop\n");
    assert!(plan(&state, &both).is_ok(), "together they may go");
}

#[test]
fn two_ports_of_an_external_host_may_claim_one_device() {
    let tap = "      attach: { tap: { device: tap0 } }";
    let text = format!(
        "kind: Host\nname: ext\nspec: {{ kind: external, underlay: [192.0.2.9] }}\n---\n{}\n---\n{}",
        workload("a", "ext", "blue", tap),
        workload("b", "ext", "blue", tap)
    );
    plan(&state_of(BASE), &wishes(&text)).unwrap();
}

#[test]
fn one_resource_twice_in_a_transaction_is_a_mistake() {
    let text = "kind: Host\nname: a\n---\nkind: Host\nname: a\n";
    let problem = plan(&State::default(), &wishes(text)).unwrap_err();
    assert_eq!((problem.first.line, problem.first.document), (Some(5), Some(2)));
    assert!(problem.detail.contains("document 1 is about the same resource"), "{problem}");
}

#[test]
fn order_within_a_transaction_does_not_matter() {
    let mut reversed = wishes(BASE);
    reversed.reverse();
    let next = plan(&State::default(), &reversed).unwrap().state;
    assert_eq!(next.workloads.len(), 1);
}

#[test]
fn the_same_again_is_no_new_revision() {
    let state = state_of(BASE);
    let again = plan(&state, &wishes(BASE)).unwrap();
    assert_eq!(again.state, state);
    assert!(again.outcomes.iter().all(|outcome| outcome.change == Change::Unchanged));
    assert!(again.puts.is_empty() && again.diffs.is_empty() && again.hosts.is_empty());
}

#[test]
fn all_mistakes_of_a_transaction_are_reported_together() {
    let text = format!(
        "{}\n---\n{}",
        workload("a", "host-x", "blue", ""),
        workload("b", "host-a", "pink", "      addresses: [10.0.1.11]")
    );
    let problem = plan(&state_of(BASE), &wishes(&text)).unwrap_err();
    let places: Vec<_> = problem.errors.iter().map(|m| (m.document, m.field.as_deref().unwrap())).collect();
    assert_eq!(places, [(Some(1), "spec.host"), (Some(2), "spec.ports[0].network")]);
}

#[test]
fn a_vni_is_allotted_once_and_kept() {
    let state = state_of(BASE);
    let vni = state.networks["blue"].vni;
    assert!(vni >= crate::state::FIRST_VNI);
    let text = "kind: Network\nname: blue\nlabels: { a: b }\nspec: { subnets: [10.0.1.0/24], router: shop }\n---\nkind: Network\nname: green\nspec: { subnets: [] }\n";
    let next = plan(&state, &wishes(text)).unwrap().state;
    assert_eq!(next.networks["blue"].vni, vni);
    assert_ne!(next.networks["green"].vni, vni);
}

/// Ten thousand workloads on 100 hosts and 100 networks, a thousand groups, a policy with ten rules for each of a
/// hundred of them. As trees, not as text: how long it takes to read YAML is another question.
fn crowd() -> State {
    let json = |value: serde_json::Value| {
        let kind: Kind = value["kind"].as_str().unwrap().parse().unwrap();
        let name = value["name"].as_str().unwrap().to_owned();
        Wish::Put(document::from_json(&value, kind, &name).unwrap())
    };
    let mut wishes = Vec::new();
    for n in 0..100 {
        wishes.push(json(serde_json::json!({ "kind": "Host", "name": format!("h{n}") })));
        let subnets = [format!("10.{n}.0.0/16")];
        let name = format!("n{n}");
        wishes.push(json(
            serde_json::json!({ "kind": "Network", "name": name, "spec": { "subnets": subnets } }),
        ));
    }
    for n in 0..10_000 {
        let address = format!("10.{}.{}.{}", n % 100, n / 25_000, n / 100 + 2);
        wishes.push(json(serde_json::json!({
            "kind": "Workload", "name": format!("w{n}"),
            "labels": { "app": format!("a{}", n % 997), "tier": format!("t{}", n % 3) },
            "spec": { "host": format!("h{}", n / 100), "kind": "vm",
                "ports": [{ "name": "eth0", "network": format!("n{}", n % 100), "addresses": [address] }] },
        })));
    }
    for n in 0..1000 {
        let text = match n % 10 {
            0 => format!("tier != t{}", n % 7),
            1 => format!("name = w{n}*"),
            _ => format!("app = a{n} or app in (b{n}, c{n})"),
        };
        let text = if n % 3 == 0 { format!("app = a{n} and tier = t{}", n % 3) } else { text };
        let name = format!("g{n}");
        wishes.push(json(serde_json::json!({ "kind": "Group", "name": name, "spec": { "match": text } })));
    }
    for n in 0..100 {
        let rule = |r: u32| serde_json::json!({ "name": format!("r{r}"), "action": "allow", "from": [format!("g{}", n + r)] });
        let rules: Vec<_> = (0..10).map(rule).collect();
        let spec = serde_json::json!({ "appliesTo": [format!("g{}", n * 10)], "rules": rules });
        wishes.push(json(
            serde_json::json!({ "kind": "FirewallPolicy", "name": format!("p{n}"), "spec": spec }),
        ));
    }
    plan(&State::default(), &wishes).unwrap().state
}

#[test]
fn one_label_among_ten_thousand_workloads_changes_in_milliseconds() {
    let begin = std::time::Instant::now();
    let mut state = crowd();
    let mut out = std::io::stderr();
    let _ = writeln!(out, "everything at once: {:?}", begin.elapsed());
    let mut best = std::time::Duration::MAX;
    for n in 0..20 {
        let label = if n % 2 == 0 { "a2" } else { "a5" };
        let text = format!(
            "kind: Workload\nname: w77\nlabels: {{ app: {label} }}\nspec: {{ host: h0, kind: vm, ports: [{{ name: eth0, network: n77, addresses: [10.77.0.2] }}] }}\n"
        );
        let wishes = wishes(&text);
        let begin = std::time::Instant::now();
        let plan = plan(&state, &wishes).unwrap();
        best = best.min(begin.elapsed());
        assert_eq!(plan.hosts.len(), 100, "each host has a port on n77");
        assert!(plan.puts.len() < 110 && plan.identities.len() <= 2);
        state = plan.state;
    }
    let begin = std::time::Instant::now();
    let slice = compile::slice(&state, "h0");
    let _ =
        writeln!(out, "one label: {best:?}; a slice of {} ports: {:?}", slice.ports.len(), begin.elapsed());
    // Far above what it takes, since others may use the machine: what was measured is printed.
    assert!(best.as_millis() < 1000, "{best:?}");
}

/// A slow, obvious account of the same rules, over IPv4 and explicit MAC addresses.
#[derive(Debug, Clone, Default)]
struct Model {
    resources: BTreeMap<(Kind, String), Resource>,
    /// VNIs that were given, by network; a network keeps its VNI when the field is removed.
    vnis: BTreeMap<String, u32>,
}

impl Model {
    /// True when it did so, false when there was something wrong; then nothing changed.
    fn apply(&mut self, wishes: &[Wish]) -> bool {
        let mut next = self.clone();
        let mut seen = Vec::new();
        for wish in wishes {
            let (kind, name) = wish.key();
            let key = (kind, name.to_owned());
            if seen.contains(&key) {
                return false;
            }
            seen.push(key.clone());
            match wish {
                Wish::Put(declared) => {
                    if let Resource::Network(Network { spec, .. }) = &*declared.resource
                        && let Some(vni) = spec.vni
                    {
                        next.vnis.insert(name.to_owned(), vni);
                    }
                    next.resources.insert(key, (*declared.resource).clone());
                }
                Wish::Delete(_) => {
                    if kind == Kind::Network {
                        next.vnis.remove(name);
                    }
                    next.resources.remove(&key);
                }
                // Changes no resource.
                Wish::Note(_) => {}
            }
        }
        if !next.is_sound() {
            return false;
        }
        *self = next;
        true
    }

    fn networks(&self) -> Vec<&Network> {
        let each = self.resources.values();
        each.filter_map(|r| if let Resource::Network(n) = r { Some(n) } else { None }).collect()
    }

    fn is_sound(&self) -> bool {
        let range = |net: ipnet::IpNet| -> (u32, u32) {
            let (std::net::IpAddr::V4(first), std::net::IpAddr::V4(last)) = (net.network(), net.broadcast())
            else {
                return (0, 0);
            };
            (first.to_bits(), last.to_bits())
        };
        for (index, a) in self.networks().iter().enumerate() {
            for (at, x) in a.spec.subnets.iter().enumerate() {
                for y in a.spec.subnets.iter().skip(at + 1) {
                    if range(*x).0 <= range(*y).1 && range(*y).0 <= range(*x).1 {
                        return false;
                    }
                }
            }
            for b in self.networks().iter().skip(index + 1) {
                if self.vnis.get(&a.name).is_some_and(|vni| self.vnis.get(&b.name) == Some(vni)) {
                    return false;
                }
                if a.spec.router.is_none() || a.spec.router != b.spec.router {
                    continue;
                }
                for (x, y) in a.spec.subnets.iter().flat_map(|x| b.spec.subnets.iter().map(move |y| (x, y))) {
                    let ((x0, x1), (y0, y1)) = (range(*x), range(*y));
                    if x0 <= y1 && y0 <= x1 {
                        return false;
                    }
                }
            }
        }
        for resource in self.resources.values() {
            let Resource::FirewallPolicy(policy) = resource else { continue };
            let rules = &policy.spec.rules;
            let sides = rules.iter().flat_map(|rule| rule.from.iter().chain(&rule.to).flatten());
            for peer in policy.spec.applies_to.iter().chain(sides) {
                if let Peer::Group(name) = peer
                    && !self.resources.contains_key(&(Kind::Group, name.clone()))
                {
                    return false;
                }
            }
        }
        let mut used = Vec::new();
        for resource in self.resources.values() {
            if let Resource::Host(host) = resource {
                used.extend(host.spec.underlay.iter().map(|address| format!("underlay {address}")));
            }
            if let Resource::Router(router) = resource
                && !router.spec.routes.iter().all(|route| self.leads_out(&router.name, route, range))
            {
                return false;
            }
        }
        for resource in self.resources.values() {
            let Resource::Workload(workload) = resource else { continue };
            if !self.resources.contains_key(&(Kind::Host, workload.spec.host.clone())) {
                return false;
            }
            for port in &workload.spec.ports {
                let Some(network) = self.networks().into_iter().find(|n| n.name == port.network) else {
                    return false;
                };
                for address in &port.addresses {
                    let std::net::IpAddr::V4(v4) = address else { return false };
                    let bits = v4.to_bits();
                    let fits = network.spec.subnets.iter().any(|s| {
                        let (first, last) = range(*s);
                        let gateway = match &network.spec.gateways {
                            None => first + 1,
                            Some(given) => given
                                .iter()
                                .map(|g| match g {
                                    std::net::IpAddr::V4(g) => g.to_bits(),
                                    std::net::IpAddr::V6(_) => 0,
                                })
                                .find(|g| *g == bits)
                                .unwrap_or(0),
                        };
                        first < bits && bits < last && bits != gateway
                    });
                    if !fits {
                        return false;
                    }
                    used.push(format!("{} address {address}", port.network));
                }
                used.push(format!("{} mac {:?}", port.network, port.mac));
                let host = self.resources.get(&(Kind::Host, workload.spec.host.clone()));
                let ours = matches!(host, Some(Resource::Host(host)) if host.spec.kind.is_agent());
                if let Some(Attach::Tap(tap)) = &port.attach
                    && ours
                {
                    used.push(format!("{} tap {}", workload.spec.host, tap.device));
                }
            }
        }
        used.sort();
        used.windows(2).all(|pair| pair[0] != pair[1])
    }

    /// Whether an IPv4 route leads out of the router's networks, through what could be a port of one of them.
    fn leads_out(&self, router: &str, route: &Route, range: impl Fn(ipnet::IpNet) -> (u32, u32)) -> bool {
        let std::net::IpAddr::V4(via) = route.via else { return false };
        let (to, via) = (range(route.to), via.to_bits());
        let mut through = false;
        for network in self.networks().into_iter().filter(|n| n.spec.router.as_deref() == Some(router)) {
            for subnet in &network.spec.subnets {
                let (first, last) = range(*subnet);
                if first <= to.0 && to.1 <= last {
                    return false;
                }
                let is_gateway = network.spec.gateways.is_none() && via == first + 1;
                through |= first < via && via < last && !is_gateway;
            }
        }
        through
    }
}

fn network_text() -> impl Strategy<Value = String> {
    let subnets =
        prop::sample::subsequence(vec!["10.0.0.0/25", "10.0.0.128/25", "10.0.1.0/24", "10.0.1.0/30"], 0..3);
    let router = prop::sample::select(vec!["", ", router: r", ", router: s"]);
    let more = prop::sample::select(vec!["", ", vni: 5", ", vni: 6", ", gateways: []"]);
    (0..3, subnets, router, more).prop_map(|(n, subnets, router, more)| {
        format!("kind: Network\nname: n{n}\nspec: {{ subnets: [{}]{router}{more} }}\n", subnets.join(", "))
    })
}

fn workload_text() -> impl Strategy<Value = String> {
    let address = prop::sample::select(vec![0, 1, 2, 3, 127, 129, 130, 257, 258]);
    let addresses = prop::collection::vec(address, 0..2).prop_map(|offsets| {
        let base = u32::from(Ipv4Addr::new(10, 0, 0, 0));
        offsets.iter().map(|o| Ipv4Addr::from_bits(base + o).to_string()).collect::<Vec<_>>().join(", ")
    });
    let attach = prop::sample::select(vec!["", ", attach: { tap: { device: t0 } }"]);
    let labels = prop::sample::select(vec!["", "labels: { t: a }\n", "labels: { t: b, u: c }\n"]);
    (0..4, 0..3, 0..3, addresses, 0..4, attach, labels).prop_map(|(w, h, n, addresses, mac, attach, labels)| {
        format!(
            "kind: Workload\nname: w{w}\n{labels}spec: {{ host: h{h}, kind: vm, ports: [{{ name: eth0, network: n{n}, addresses: [{addresses}], mac: \"52:54:00:00:00:0{mac}\"{attach} }}] }}\n"
        )
    })
}

fn host_text() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec!["", "labels: { a: b }\n"]);
    let spec = prop::sample::select(vec![
        "",
        "spec: { underlay: [192.0.2.1] }\n",
        "spec: { underlay: [192.0.2.2], underlayMtu: 1400 }\n",
        "spec: { kind: external, underlay: [192.0.2.1] }\n",
    ]);
    (0..3, label, spec).prop_map(|(h, label, spec)| format!("kind: Host\nname: h{h}\n{label}{spec}"))
}

fn router_text() -> impl Strategy<Value = String> {
    let to = prop::sample::select(vec!["0.0.0.0/0", "10.0.0.0/16", "10.0.0.64/26", "198.51.100.0/24"]);
    let via = prop::sample::select(vec!["10.0.0.3", "10.0.0.127", "10.0.1.1", "10.0.1.2"]);
    let routes = prop::collection::vec((to, via), 0..2).prop_map(|routes| {
        let routes: Vec<String> =
            routes.into_iter().map(|(to, via)| format!("{{ to: {to}, via: {via} }}")).collect();
        routes.join(", ")
    });
    (prop::sample::select(vec!["r", "s"]), routes)
        .prop_map(|(name, routes)| format!("kind: Router\nname: {name}\nspec: {{ routes: [{routes}] }}\n"))
}

/// What a host says of itself, and that a move is over.
fn note() -> impl Strategy<Value = Note> {
    (prop::bool::ANY, 0..4u16).prop_map(|(says, n)| match says {
        true => Note::Underlay {
            host: format!("h{}", n % 3),
            told: Underlay {
                // No other host says so, or is declared to have it.
                addresses: vec![format!("192.0.2.1{n}").parse().unwrap()],
                port: 6081,
                mtu: 1400 + 100 * n,
            },
        },
        false => Note::Settled { workload: format!("w{n}") },
    })
}

fn group_text() -> impl Strategy<Value = String> {
    let spec = prop::sample::select(vec![
        "match: t = a",
        "match: 't != a and name in (w0, w1)'",
        "match: exists u, name: w3",
        "name: w*",
        "workloads: [w2, w9]",
        "cidrs: [10.0.0.0/25]",
        "cidrs: [10.0.0.2, 192.0.2.0/24], match: t = b",
    ]);
    (0..3, spec).prop_map(|(g, spec)| format!("kind: Group\nname: g{g}\nspec: {{ {spec} }}\n"))
}

fn policy_text() -> impl Strategy<Value = String> {
    let peer = || prop::sample::select(vec!["any", "g0", "g1", "g2", "10.0.0.3"]);
    let rules = prop::sample::subsequence(vec!["r0", "r1", "r2"], 0..3);
    (0..3, peer(), peer(), rules, 0..2).prop_map(|(p, to, from, rules, priority)| {
        let rules: Vec<String> =
            rules.iter().map(|name| format!("{{ name: {name}, action: allow, from: [{from}] }}")).collect();
        let rules = rules.join(", ");
        format!("kind: FirewallPolicy\nname: p{p}\nspec: {{ priority: {priority}, appliesTo: [{to}], rules: [{rules}] }}\n")
    })
}

fn transaction() -> impl Strategy<Value = Vec<(bool, String)>> {
    let text = prop_oneof![
        3 => network_text(), 4 => workload_text(), 2 => host_text(), 1 => router_text(), 2 => group_text(),
        2 => policy_text()
    ];
    prop::collection::vec((prop::bool::weighted(0.2), text), 1..4)
}

fn parse(transaction: &[(bool, String)]) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for (delete, text) in transaction {
        if *delete {
            wishes.extend(deletions(text));
        } else {
            wishes.extend(document::read(Format::Yaml, text.as_bytes()).unwrap().into_iter().map(Wish::Put));
        }
    }
    wishes
}

/// Every number of a rule or of a set of groups, with what it stood for when it was first seen.
#[derive(Default)]
struct Given {
    rules: HashMap<u32, (String, String)>,
    sets: HashMap<u32, BTreeSet<String>>,
}

impl Given {
    /// Asks every workload about every group, and sees that no number changed its meaning.
    fn check(&mut self, state: &State) {
        let mut used = BTreeSet::new();
        for entry in state.workloads.values() {
            let chosen: BTreeSet<String> = state
                .groups
                .values()
                .filter(|group| group.resource.spec.selects(entry.subject()))
                .map(|group| group.resource.name.clone())
                .collect();
            let set: BTreeSet<String> = state.groups_of(entry).map(str::to_owned).collect();
            assert_eq!(set, chosen, "{} is in the wrong groups", entry.resource.name);
            assert_eq!(entry.identity == 0, set.is_empty());
            if entry.identity != 0 {
                used.insert(entry.identity);
                let first = self.sets.entry(entry.identity).or_insert_with(|| set.clone());
                assert_eq!(*first, set, "identity {} changed its meaning", entry.identity);
            }
        }
        assert!(state.identities.keys().eq(&used), "identities that nobody has, or the reverse");
        for entry in state.policies.values() {
            let names: BTreeSet<&String> = entry.resource.spec.rules.iter().map(|rule| &rule.name).collect();
            assert!(entry.rules.keys().eq(names), "{:?}", entry.rules);
            for (rule, id) in &entry.rules {
                let owner = (entry.resource.name.clone(), rule.clone());
                assert_eq!(self.rules.entry(*id).or_insert_with(|| owner.clone()), &owner, "rule {id}");
            }
        }
    }
}

/// A slice has what the host needs, found by looking at everything, and says by number what the state says by name.
fn check_slice(state: &State, host: &str) {
    let slice = compile::slice(state, host);
    let is_here =
        |entry: &WorkloadEntry| entry.resource.spec.host == host || entry.moved_from.as_deref() == Some(host);
    let plugged: BTreeSet<&String> = state
        .workloads
        .values()
        .filter(|entry| is_here(entry))
        .flat_map(|entry| entry.resource.spec.ports.iter().map(|port| &port.network))
        .collect();
    let router = |name: &String| state.networks[name].resource.spec.router.clone();
    let routers: BTreeSet<String> = plugged.iter().filter_map(|name| router(name)).collect();
    let networks: BTreeSet<&String> = state
        .networks
        .keys()
        .filter(|name| plugged.contains(name) || router(name).is_some_and(|router| routers.contains(&router)))
        .collect();
    let ports = state.workloads.values().flat_map(|entry| compile::ports(state, entry));
    let ports: Vec<_> = ports.filter(|port| networks.contains(&port.network)).collect();
    for network in &slice.networks {
        let spec = &state.networks[&network.name].resource.spec;
        let alike = slice.networks.iter().filter(|other| match &network.router {
            Some(router) => other.router.as_ref() == Some(router),
            None => other.name == network.name,
        });
        let domain: Vec<_> = alike.map(|other| &other.name).collect();
        let narrowest = slice
            .hosts
            .iter()
            .filter(|host| {
                !host.underlay.is_empty()
                    && ports.iter().any(|port| port.host == host.name && domain.contains(&&port.network))
            })
            .map(|host| host.mtu)
            .min();
        assert_eq!(spec.mtu, mgmt_types::Mtu::Auto);
        assert_eq!(network.mtu, narrowest.map_or(1500, |mtu| ((mtu - 143) / 10 * 10).max(1280)));
    }
    let mut hosts: BTreeSet<&str> = ports.iter().map(|port| port.host.as_str()).collect();
    hosts.extend(ports.iter().filter_map(|port| port.moved_from.as_deref()));
    hosts.insert(host);
    assert!(slice.networks.iter().map(|network| &network.name).eq(networks), "networks of {host}");
    assert_eq!(slice.ports, ports);
    assert!(slice.routers.iter().map(|router| &router.name).eq(&routers), "routers of {host}");
    assert!(slice.hosts.iter().map(|host| host.name.as_str()).eq(hosts), "hosts that {host} knows");
    let group = |number: u32| slice.groups[usize::try_from(number).unwrap()].name.clone();
    for port in &slice.ports {
        let wanted: BTreeSet<String> =
            state.groups_of(&state.workloads[&port.workload]).map(str::to_owned).collect();
        let identity = slice.identities.iter().find(|identity| identity.id == port.identity);
        let told = identity.map(|identity| identity.groups.iter().map(|g| group(*g)).collect());
        assert_eq!(told.unwrap_or_else(BTreeSet::new), wanted);
    }
    let mut applying: Vec<_> = state
        .policies
        .values()
        .filter(|policy| {
            slice.ports.iter().filter(|port| port.host == host).any(|port| {
                policy.resource.spec.applies_to.iter().any(|peer| match peer {
                    Peer::Any => true,
                    Peer::Range(range) => port.addresses.iter().any(|address| range.contains(*address)),
                    Peer::Group(name) => {
                        let spec = &state.groups[name].resource.spec;
                        spec.selects(state.workloads[&port.workload].subject())
                            || port.addresses.iter().any(|address| spec.holds(*address))
                    }
                })
            })
        })
        .map(|policy| (policy.resource.spec.priority, policy.resource.name.clone()))
        .collect();
    applying.sort();
    let told: Vec<_> = slice.policies.iter().map(|policy| policy.name.clone()).collect();
    assert_eq!(told, applying.into_iter().map(|(_, name)| name).collect::<Vec<_>>(), "on {host}");
    for policy in &slice.policies {
        let declared = &state.policies[&policy.name].resource.spec;
        let named = |peers: &[agent::Peer]| -> Vec<Peer> {
            let each = peers.iter().map(|peer| match peer {
                agent::Peer::Any => Peer::Any,
                agent::Peer::Group(number) => Peer::Group(group(*number)),
                agent::Peer::Cidr(net) => Peer::Range((*net).into()),
            });
            each.collect()
        };
        assert_eq!(named(&policy.applies_to), declared.applies_to);
        for (rule, declared) in policy.rules.iter().zip(&declared.rules) {
            assert_eq!(
                (&rule.name, named(&rule.from)),
                (&declared.name, declared.from.clone().unwrap_or_default())
            );
        }
    }
}

/// A host whose slice differs, and no other, has something to do.
fn check_told(before: &State, plan: &Plan, why: &dyn std::fmt::Debug) -> Result<(), TestCaseError> {
    for host in plan.state.hosts.keys() {
        if !plan.state.runs_agent(host) {
            prop_assert!(!plan.hosts.contains(host), "{host} has nobody who could be told");
            continue;
        }
        let (mut old, mut new) = (compile::slice(before, host), compile::slice(&plan.state, host));
        (old.revision, new.revision) = (0, 0);
        if old != new {
            prop_assert!(plan.hosts.contains(host), "{host} is not told: {why:#?}");
            prop_assert_eq!(compile::slice(&plan.state, host).revision, plan.state.revision);
        } else {
            let told = plan.hosts.contains(host) && before.hosts.contains_key(host);
            prop_assert!(!told, "{host} is told for nothing: {why:#?}");
        }
        check_slice(&plan.state, host);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn transactions_agree_with_a_slow_model(
        transactions in prop::collection::vec((transaction(), prop::option::of(note())), 1..20),
    ) {
        let mut model = Model::default();
        let start = "kind: Host\nname: h0\n---\nkind: Host\nname: h1\n---\nkind: Host\nname: h2\n---\nkind: Network\nname: n0\nspec: { subnets: [10.0.0.0/25] }\n";
        prop_assert!(model.apply(&wishes(start)));
        let mut state = state_of(start);
        let mut ports: HashMap<u32, (String, String)> = HashMap::new();
        let mut given = Given::default();
        for (transaction, note) in &transactions {
            let wishes = parse(transaction);
            let before = model.clone();
            let accepted = model.apply(&wishes);
            match plan(&state, &wishes) {
                Ok(plan) => {
                    prop_assert!(accepted, "accepted {transaction:#?}\non {before:#?}");
                    let changed = model.resources != before.resources;
                    prop_assert_eq!(plan.state.revision, state.revision + u64::from(changed));
                    // What the store would write leads to the same state.
                    let mut replayed = state.clone();
                    plan.puts.iter().cloned().for_each(|entry| replayed.put(entry));
                    plan.removals.iter().for_each(|(kind, name)| replayed.remove(*kind, name));
                    replayed.revision = plan.state.revision;
                    replayed.counters = plan.state.counters;
                    for (id, set) in &plan.identities {
                        match set {
                            Some(set) => drop(replayed.identities.insert(*id, Arc::clone(set))),
                            None => drop(replayed.identities.remove(id)),
                        }
                    }
                    prop_assert_eq!(&replayed, &plan.state);
                    check_told(&state, &plan, transaction)?;
                    state = plan.state;
                    given.check(&state);
                }
                Err(problem) => {
                    prop_assert!(!accepted, "refused {transaction:#?}\non {before:#?}\n{problem}");
                    prop_assert!(!problem.detail.is_empty());
                }
            }
            if let Some(note) = note {
                let plan = plan(&state, &[Wish::Note(note.clone())]).unwrap();
                check_told(&state, &plan, note)?;
                state = plan.state;
            }
            let resources: BTreeMap<_, _> = Kind::ALL.into_iter().flat_map(|kind| state.list(kind))
                .map(|entry| ((entry.kind(), entry.name().to_owned()), entry.resource().desired())).collect();
            prop_assert_eq!(&resources, &model.resources);
            for entry in state.workloads.values() {
                for (port, id) in &entry.ports {
                    let owner = (entry.resource.name.clone(), port.clone());
                    prop_assert_eq!(ports.entry(*id).or_insert_with(|| owner.clone()), &owner, "a number changed hands");
                }
            }
        }
    }
}
