//! Whatever can be declared can be written down and read again.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mgmt_types::agent::{
    FirewallSettings, Peer, ServiceMatch, Slice, SliceGroup, SliceIdentity, SliceNetwork, SlicePolicy,
    SlicePort, SliceRule,
};
use mgmt_types::{
    Attach, Host, HostSpec, Labels, MacAddr, Mtu, Network, NetworkSpec, PolicyMode, PortSpec, RateLimit,
    Resource, RuleAction, Selector, Tap, Tier, VhostRole, VhostUser, Workload, WorkloadKind, WorkloadSpec,
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
    )
        .prop_map(|(name, network, addresses, mac, queues, rate_limit, attach)| PortSpec {
            name,
            network,
            addresses,
            mac,
            queues,
            rate_limit,
            attach,
        })
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
        ("[a-z]{1,9}", labels(), revision()).prop_map(|(name, labels, revision)| {
            Resource::Host(Host { name, labels, spec: HostSpec {}, status: None, revision })
        }),
    ]
}

fn slice_peer() -> impl Strategy<Value = Peer> {
    prop_oneof![Just(Peer::Any), any::<u32>().prop_map(Peer::Group), subnet().prop_map(Peer::Cidr)]
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
        let network = SliceNetwork { name: name.clone(), vni: id, subnets, gateways: gateways.clone(), gateway_mac: mac, mtu };
        let port = SlicePort {
            id, workload: name.clone(), name: name.clone(), network: name.clone(), host: name.clone(), mac,
            addresses: gateways, attach, queues: 1, rate_limit, identity: id, firewall: id % 2 == 0,
        };
        let slice = Slice {
            revision: 7, host: name.clone(), networks: vec![network], ports: vec![port],
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
        let _ = mgmt_types::name::check(&text);
    }
}
