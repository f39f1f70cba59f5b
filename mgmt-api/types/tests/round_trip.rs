//! Whatever can be declared can be written down and read again.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mgmt_types::agent::{
    self, FirewallSettings, ServiceMatch, Slice, SliceGroup, SliceHost, SliceIdentity, SliceNetwork,
    SlicePolicy, SlicePort, SliceRoute, SliceRouter, SliceRule,
};
use mgmt_types::{
    AddressRange, Attach, Firewall, FirewallPolicy, FirewallPolicySpec, Glob, Group, GroupSpec, Host,
    HostKind, HostSpec, Icmp, Labels, MacAddr, Match, Mtu, NAMED_SERVICES, Network, NetworkSpec, Peer,
    PolicyMode, PortSpec, RateLimit, Resource, Route, Router, RouterSpec, Rule, RuleAction, RuleDirection,
    Selector, Service, Tap, Tier, Transport, VhostRole, VhostUser, Workload, WorkloadKind, WorkloadSpec,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn labels() -> impl Strategy<Value = Labels> {
    btree_map("[a-z./_-]{1,9}", "[A-Za-z0-9./_-]{0,9}", 0..4)
}

fn subnet() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 8u8..=30).prop_map(|(bits, length)| Ipv4Net::new(bits.into(), length).unwrap().into()),
        (any::<u128>(), 32u8..=126)
            .prop_map(|(bits, length)| Ipv6Net::new(bits.into(), length).unwrap().into()),
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>()
}

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(MacAddr)
}

fn attach() -> impl Strategy<Value = Attach> {
    let role = select(vec![VhostRole::Server, VhostRole::Client]);
    prop_oneof![
        (role, option::of("/[a-z/]{1,20}"))
            .prop_map(|(role, socket)| Attach::VhostUser(VhostUser { role, socket })),
        ("[a-z0-9.]{1,15}", option::of("[a-z]{1,9}"))
            .prop_map(|(device, netns)| Attach::Tap(Tap { device, netns })),
    ]
}

fn rate_limit() -> impl Strategy<Value = RateLimit> {
    let number = || option::of(any::<u64>());
    (number(), number(), number(), number()).prop_map(|(packets, bits, burst_packets, burst_bytes)| {
        RateLimit { packets_per_second: packets, bits_per_second: bits, burst_packets, burst_bytes }
    })
}

fn port() -> impl Strategy<Value = PortSpec> {
    (
        "[a-z]{1,15}",
        "[a-z]{1,9}",
        vec(address(), 0..3),
        option::of(mac()),
        option::of(1u16..=16),
        option::of(rate_limit()),
        option::of(attach()),
        select(vec![Firewall::On, Firewall::Off]),
    )
        .prop_map(|(name, network, addresses, mac, queues, rate_limit, attach, firewall)| PortSpec {
            name,
            network,
            addresses,
            mac,
            queues,
            rate_limit,
            attach,
            firewall,
        })
}

fn range() -> impl Strategy<Value = AddressRange> {
    subnet().prop_map(AddressRange::from)
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![Just(Peer::Any), "[b-z]{1,9}".prop_map(Peer::Group), range().prop_map(Peer::Range)]
}

fn service() -> impl Strategy<Value = Service> {
    let transport = select(vec![Transport::Tcp, Transport::Udp, Transport::Sctp]);
    let ports = option::of((any::<u16>(), any::<u16>()).prop_map(|(a, b)| (a.min(b), a.max(b))));
    let version = select(vec![Icmp::V4, Icmp::V6]);
    prop_oneof![
        (transport, ports).prop_map(|(transport, ports)| Service::Ports(transport, ports)),
        (version, any::<Option<(u8, Option<u8>)>>()).prop_map(|(version, icmp)| Service::Icmp(version, icmp)),
        any::<u8>().prop_map(Service::Protocol),
        (0..NAMED_SERVICES.len()).prop_map(|index| Service::Named(&NAMED_SERVICES[index])),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    (
        "[a-z]{1,9}",
        option::of(select(vec![RuleDirection::In, RuleDirection::Out])),
        select(vec![RuleAction::Allow, RuleAction::Drop, RuleAction::Reject]),
        option::of(vec(peer(), 0..3)),
        option::of(vec(peer(), 0..3)),
        option::of(vec(service(), 0..3)),
        any::<[bool; 2]>(),
    )
        .prop_map(|(name, direction, action, from, to, services, [log, keep_established])| Rule {
            name,
            direction,
            action,
            from,
            to,
            services,
            log,
            keep_established,
        })
}

fn group_spec() -> impl Strategy<Value = GroupSpec> {
    let selector = "(not )?[a-c]{1,3} (=|!=|in|not in) [(] *[a-c]{1,3} *[)]"
        .prop_filter_map("no expression", |text| {
            text.parse().or_else(|_| text.replace(['(', ')'], "").parse::<Match>()).ok()
        });
    let name = "[a-z0-9*?-]{1,9}".prop_map(|text| text.parse::<Glob>().unwrap());
    (
        option::of(selector),
        option::of(name),
        option::of(vec("[a-z]{1,9}", 0..3)),
        option::of(vec(range(), 0..3)),
    )
        .prop_map(|(selector, name, workloads, cidrs)| GroupSpec { selector, name, workloads, cidrs })
}

fn policy_spec() -> impl Strategy<Value = FirewallPolicySpec> {
    let mode = select(vec![PolicyMode::Enforce, PolicyMode::Audit]);
    (select(Tier::ALL.to_vec()), any::<u16>(), vec(peer(), 0..3), mode, vec(rule(), 0..4)).prop_map(
        |(tier, priority, applies_to, mode, rules)| FirewallPolicySpec {
            tier,
            priority,
            applies_to,
            mode,
            rules,
        },
    )
}

fn host_spec() -> impl Strategy<Value = HostSpec> {
    let kind = select(vec![HostKind::Agent, HostKind::External]);
    (kind, vec(address(), 0..3), any::<Option<u16>>(), any::<Option<u16>>(), any::<Option<bool>>()).prop_map(
        |(kind, underlay, geneve_port, underlay_mtu, options)| HostSpec {
            kind,
            underlay,
            geneve_port,
            underlay_mtu,
            options,
        },
    )
}

fn resource() -> impl Strategy<Value = Resource> {
    let mtu = prop_oneof![Just(Mtu::Auto), (Mtu::MIN..=Mtu::MAX).prop_map(Mtu::Bytes)];
    let spec = (
        vec(subnet(), 0..3),
        option::of("[a-z]{1,9}"),
        mtu,
        option::of(1u32..1 << 24),
        option::of(vec(address(), 0..2)),
    )
        .prop_map(|(subnets, router, mtu, vni, gateways)| NetworkSpec {
            subnets,
            router,
            mtu,
            vni,
            gateways,
            mss_clamp: vni.is_none(),
        });
    let kind = select(vec![WorkloadKind::Vm, WorkloadKind::Container, WorkloadKind::Host]);
    let workload = ("[a-z]{1,9}", kind, vec(port(), 0..3));
    let revision = || option::of(any::<u64>());
    prop_oneof![
        ("[a-z]{1,9}", labels(), spec, revision()).prop_map(|(name, labels, spec, revision)| {
            Resource::Network(Network { name, labels, spec, status: None, revision })
        }),
        ("[a-z]{1,9}", labels(), workload, revision()).prop_map(
            |(name, labels, (host, kind, ports), revision)| {
                let spec = WorkloadSpec { host, kind, ports };
                Resource::Workload(Workload { name, labels, spec, status: None, revision })
            }
        ),
        ("[a-z]{1,9}", labels(), host_spec(), revision()).prop_map(|(name, labels, spec, revision)| {
            Resource::Host(Host { name, labels, spec, status: None, revision })
        }),
        ("[a-z]{1,9}", labels(), vec((subnet(), address()), 0..3), revision()).prop_map(
            |(name, labels, routes, revision)| {
                let routes = routes.into_iter().map(|(to, via)| Route { to, via }).collect();
                Resource::Router(Router { name, labels, spec: RouterSpec { routes }, status: None, revision })
            }
        ),
        ("[a-z]{1,9}", labels(), group_spec(), revision()).prop_map(|(name, labels, spec, revision)| {
            Resource::Group(Group { name, labels, spec, status: None, revision })
        }),
        ("[a-z]{1,9}", labels(), policy_spec(), revision()).prop_map(|(name, labels, spec, revision)| {
            Resource::FirewallPolicy(FirewallPolicy { name, labels, spec, status: None, revision })
        }),
    ]
}

fn slice_peer() -> impl Strategy<Value = agent::Peer> {
    prop_oneof![
        Just(agent::Peer::Any),
        any::<u32>().prop_map(agent::Peer::Group),
        subnet().prop_map(agent::Peer::Cidr)
    ]
}

fn service_match() -> impl Strategy<Value = ServiceMatch> {
    (any::<Option<u8>>(), any::<Option<(u16, u16)>>(), any::<Option<(u8, Option<u8>)>>())
        .prop_map(|(protocol, ports, icmp)| ServiceMatch { protocol, ports, icmp })
}

proptest! {
    #[test]
    fn what_an_older_manager_sends_still_reads(revision in any::<u64>()) {
        let text = format!(r#"{{"revision":{revision},"host":"a","networks":[],"ports":[]}}"#);
        let slice: Slice = serde_json::from_str(&text).unwrap();
        prop_assert!(slice.settings.tcp_pick_up && slice.policies.is_empty());
    }

    #[test]
    fn a_resource_reads_back_as_it_was_written(resource in resource()) {
        let text = serde_json::to_string(&resource).unwrap();
        prop_assert_eq!(serde_json::from_str::<Resource>(&text).unwrap(), resource);
    }

    #[test]
    fn looking_for_mistakes_never_panics_and_always_says_where(resource in resource()) {
        for mistake in resource.mistakes() {
            prop_assert!(mistake.field.is_some() && mistake.expected.is_some(), "{mistake}");
        }
    }

    #[test]
    fn a_slice_reads_back_and_fields_of_later_versions_are_ignored(
        name in "[a-z]{1,9}", subnets in vec(subnet(), 0..3), gateways in vec(address(), 0..3), mac in mac(),
        attach in attach(), rate_limit in option::of(rate_limit()), id in any::<u32>(), mtu in any::<u16>(),
        cidrs in vec(subnet(), 0..3), peers in vec(slice_peer(), 0..3), tier in select(Tier::ALL.to_vec()),
        services in vec(service_match(), 0..3),
    ) {
        let network = SliceNetwork {
            name: name.clone(), vni: id, subnets, gateways: gateways.clone(), gateway_mac: mac, mtu,
            router: Some(name.clone()), mss_clamp: id % 2 == 0,
        };
        let routes = cidrs.iter().zip(&gateways).map(|(to, via)| SliceRoute { to: *to, via: *via }).collect();
        let host = SliceHost {
            name: name.clone(), underlay: gateways.clone(), port: mtu, mtu, options: true, external: id % 2 == 0,
        };
        let port = SlicePort {
            id, workload: name.clone(), name: name.clone(), network: name.clone(), host: name.clone(), mac,
            moved_from: Some(name.clone()),
            addresses: gateways, attach, queues: 1, rate_limit, identity: id, firewall: id % 2 == 0,
        };
        let slice = Slice {
            revision: 7, host: name.clone(), networks: vec![network], ports: vec![port],
            routers: vec![SliceRouter { name: name.clone(), routes }], hosts: vec![host],
            groups: vec![SliceGroup { name: name.clone(), cidrs: cidrs.clone() }],
            identities: vec![SliceIdentity { id, groups: vec![0] }],
            policies: vec![SlicePolicy {
                name: name.clone(), revision: 3, tier, priority: id, mode: PolicyMode::Audit,
                applies_to: peers.clone(),
                rules: vec![SliceRule {
                    id, name, direction: None, action: RuleAction::Reject, from: peers, to: Vec::new(), services,
                    log: true, keep_established: true,
                }],
            }],
            settings: FirewallSettings { tcp_pick_up: false, ..FirewallSettings::default() },
        };
        let mut value = serde_json::to_value(&slice).unwrap();
        value["later"] = true.into();
        value["ports"][0]["later"] = true.into();
        prop_assert_eq!(serde_json::from_value::<Slice>(value).unwrap(), slice);
    }

    #[test]
    fn a_mac_address_reads_back(mac in mac()) {
        prop_assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC{0,40}") {
        let _ = text.parse::<MacAddr>();
        let _ = text.parse::<Selector>();
        let _ = text.parse::<Match>();
        let _ = text.parse::<Service>();
        let _ = text.parse::<Peer>();
        let _ = text.parse::<Glob>();
        let _ = mgmt_types::name::check(&text);
    }
}
