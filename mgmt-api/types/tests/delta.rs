//! A delta leads from any slice of a host to any other, and nowhere else.

use ipnet::IpNet;
use mgmt_types::agent::{
    DeltaError, FirewallSettings, Peer, SealedSlice, Slice, SliceDelta, SliceGroup, SliceHost, SliceIdentity,
    SliceNetwork, SlicePolicy, SlicePort, SliceRouter, SliceRule, SliceState,
};
use mgmt_types::{Attach, MacAddr, PolicyMode, RuleAction, Tap, Tier};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

/// Few names and few values, so that two slices share some items, differ in some and lack some.
fn name() -> impl Strategy<Value = String> {
    "[a-d]"
}

fn network((name, mtu): (String, u16)) -> SliceNetwork {
    SliceNetwork {
        name,
        vni: 1,
        subnets: Vec::new(),
        gateways: Vec::new(),
        gateway_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        mtu,
        router: None,
        mss_clamp: true,
    }
}

fn port((id, (workload, name, identity)): (u32, (String, String, u32))) -> SlicePort {
    SlicePort {
        id,
        workload,
        name,
        network: "blue".into(),
        host: "h".into(),
        moved_from: None,
        mac: MacAddr([2, 0, 0, 0, 0, 2]),
        addresses: Vec::new(),
        attach: Attach::Tap(Tap { device: "t".into(), netns: None }),
        queues: 1,
        rate_limit: None,
        identity,
        firewall: true,
    }
}

fn host((name, mtu): (String, u16)) -> SliceHost {
    SliceHost { name, underlay: Vec::new(), port: 6081, mtu, options: true, external: false }
}

type Choice = (Tier, u32, Vec<usize>, Vec<usize>);

/// Groups are chosen by any number and brought into the range that there is.
fn policy(count: usize) -> impl Fn((String, Choice)) -> SlicePolicy {
    move |(name, (tier, priority, applies_to, from))| {
        let peers = |chosen: Vec<usize>| -> Vec<Peer> {
            let group = |number: usize| u32::try_from(number % count.max(1)).unwrap();
            chosen.into_iter().map(|n| if count == 0 { Peer::Any } else { Peer::Group(group(n)) }).collect()
        };
        let rule = SliceRule {
            id: 1,
            name: "r".into(),
            direction: None,
            action: RuleAction::Allow,
            from: peers(from),
            to: Vec::new(),
            services: Vec::new(),
            log: false,
            keep_established: false,
        };
        SlicePolicy {
            name,
            revision: 1,
            tier,
            priority,
            mode: PolicyMode::Enforce,
            applies_to: peers(applies_to),
            rules: vec![rule],
        }
    }
}

fn slice() -> impl Strategy<Value = SealedSlice> {
    let choices = || vec(any::<usize>(), 0..3);
    let tier = select(vec![Tier::Emergency, Tier::Baseline]);
    let sections = (
        btree_map(name(), 1000u16..1003, 0..4),
        btree_map(1u32..9, (name(), name(), 0u32..3), 0..6),
        btree_set(name(), 0..3),
        btree_map(name(), 1000u16..1003, 0..4),
        btree_map("[a-f]", any::<bool>(), 0..6),
        btree_map(1u32..6, btree_set(any::<usize>(), 0..4), 0..4),
        btree_map(name(), (tier, 1u32..3, choices(), choices()), 0..4),
        any::<bool>(),
    );
    (any::<u64>(), sections).prop_map(
        |(revision, (networks, ports, routers, hosts, groups, identities, policies, tcp_pick_up))| {
            let count = groups.len();
            let net: IpNet = "10.0.0.0/8".parse().unwrap();
            let identity = |(id, chosen): (u32, std::collections::BTreeSet<usize>)| {
                let mut groups: Vec<u32> = chosen
                    .into_iter()
                    .filter(|_| count > 0)
                    .map(|n| u32::try_from(n % count).unwrap())
                    .collect();
                groups.sort_unstable();
                groups.dedup();
                SliceIdentity { id, groups }
            };
            SealedSlice::new(Slice {
                revision,
                host: "h".into(),
                networks: networks.into_iter().map(network).collect(),
                ports: ports.into_iter().map(port).collect(),
                routers: routers.into_iter().map(|name| SliceRouter { name, routes: Vec::new() }).collect(),
                hosts: hosts.into_iter().map(host).collect(),
                groups: groups
                    .into_iter()
                    .map(|(name, has)| SliceGroup { name, cidrs: has.then_some(net).into_iter().collect() })
                    .collect(),
                identities: identities.into_iter().map(identity).collect(),
                policies: policies.into_iter().map(policy(count)).collect(),
                settings: FirewallSettings { tcp_pick_up, ..FirewallSettings::default() },
            })
        },
    )
}

fn base() -> SealedSlice {
    let groups = ["a", "c"].map(|name| SliceGroup { name: name.into(), cidrs: Vec::new() });
    SealedSlice::new(Slice {
        revision: 4,
        host: "h".into(),
        groups: groups.into(),
        identities: vec![SliceIdentity { id: 1, groups: vec![1] }],
        ports: vec![port((7, ("w".into(), "e".into(), 1)))],
        ..Slice::default()
    })
}

fn changed(change: impl FnOnce(&mut Slice)) -> SealedSlice {
    let mut slice = Slice::clone(base().slice());
    slice.revision += 1;
    change(&mut slice);
    SealedSlice::new(slice)
}

proptest! {
    #[test]
    fn a_delta_between_two_slices_leads_from_one_to_the_other(one in slice(), other in slice()) {
        let delta = SliceDelta::between(&one, &other).expect("both are in order");
        let text = serde_json::to_string(&delta).unwrap();
        let delta: SliceDelta = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(one.apply(&delta), Ok(other));
    }

    #[test]
    fn a_delta_of_one_slice_never_changes_another_into_what_it_does_not_say(
        one in slice(), other in slice(), third in slice(),
    ) {
        let mut delta = SliceDelta::between(&one, &other).expect("both are in order");
        delta.from = third.slice().revision;
        if let Ok(got) = third.apply(&delta) {
            prop_assert_eq!(got.digest(), delta.digest);
            prop_assert_eq!(got.slice().digest(), delta.digest);
        }
    }

    #[test]
    fn a_slice_sent_whole_is_sealed_as_it_was(one in slice()) {
        let text = serde_json::to_string(&one).unwrap();
        let state: SliceState = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(state.seal(), (one, true));
    }
}

#[test]
fn a_changed_label_costs_as_much_as_what_it_changes() {
    let mut many = Slice { revision: 1, host: "h".into(), ..Slice::default() };
    many.ports = (0..10_000).map(|id| port((id, (format!("w-{id:05}"), "e".into(), id % 50)))).collect();
    let mut next = many.clone();
    next.revision = 2;
    next.ports[4711].identity = 99;
    let (one, other) = (SealedSlice::new(many), SealedSlice::new(next));
    let delta = SliceDelta::between(&one, &other).unwrap();
    let size = |value: &dyn Fn() -> Vec<u8>| value().len();
    let whole = size(&|| serde_json::to_vec(&other).unwrap());
    let changed = size(&|| serde_json::to_vec(&delta).unwrap());
    assert!(changed < 400 && whole > 1_000_000, "{changed} of {whole} bytes");
    assert_eq!(one.apply(&delta), Ok(other));
}

#[test]
fn a_group_that_comes_moves_the_numbers_of_others_without_naming_what_stays() {
    let next = changed(|slice| {
        slice.groups.insert(1, SliceGroup { name: "b".into(), cidrs: Vec::new() });
        slice.identities[0].groups = vec![2];
    });
    let delta = SliceDelta::between(&base(), &next).unwrap();
    assert!(delta.identities.is_empty() && delta.ports.is_empty(), "{delta:?}");
    assert_eq!(base().apply(&delta), Ok(next));
}

#[test]
fn a_delta_that_does_not_fit_says_why() {
    let next = changed(|slice| slice.ports.clear());
    let delta = SliceDelta::between(&base(), &next).unwrap();
    let refused = |change: &dyn Fn(&mut SliceDelta)| {
        let mut delta = delta.clone();
        change(&mut delta);
        base().apply(&delta).unwrap_err()
    };
    assert_eq!(refused(&|delta| delta.from = 3), DeltaError::WrongBase { from: 3, have: 4 });
    assert_eq!(
        refused(&|delta| delta.ports.remove = vec![8]),
        DeltaError::NotThere { section: "ports", key: "8".into() }
    );
    assert_eq!(
        refused(&|delta| delta.ports.put = vec![port((7, ("w".into(), "e".into(), 1)))]),
        DeltaError::Twice { section: "ports", key: "7".into() }
    );
    let nowhere = DeltaError::NoSuchGroup { section: "identities", key: "1".into() };
    assert_eq!(refused(&|delta| delta.groups.remove = vec!["c".into()]), nowhere);
    assert_eq!(
        refused(&|delta| {
            delta.names = vec!["z".into()];
            delta.identities.put = vec![SliceIdentity { id: 1, groups: vec![0] }];
        }),
        nowhere
    );
    assert_eq!(
        refused(&|delta| delta.identities.put = vec![SliceIdentity { id: 1, groups: vec![0] }]),
        nowhere
    );
    assert!(matches!(refused(&|delta| delta.ports.remove.clear()), DeltaError::Digest { .. }));
    assert!(matches!(refused(&|delta| delta.revision = 9), DeltaError::Digest { .. }));
}

#[test]
fn where_no_delta_can_be_told_there_is_none() {
    let unordered = changed(|slice| slice.groups.reverse());
    let dangling = changed(|slice| slice.identities[0].groups = vec![9]);
    let of_another = changed(|slice| slice.host = "other".into());
    for to in [unordered, dangling, of_another] {
        assert_eq!(SliceDelta::between(&base(), &to), None, "{to:?}");
    }
}

#[test]
fn members_of_later_versions_are_ignored() {
    let delta = SliceDelta::between(&base(), &changed(|slice| slice.ports.clear())).unwrap();
    let mut value = serde_json::to_value(&delta).unwrap();
    value["later"] = true.into();
    value["ports"]["later"] = true.into();
    value["tunnels"] = serde_json::json!({ "put": [1] });
    assert_eq!(serde_json::from_value::<SliceDelta>(value).unwrap(), delta);
}
