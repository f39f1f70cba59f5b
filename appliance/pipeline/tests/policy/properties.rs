//! The compiled policy decides as the model does, compiled from scratch or after another one.

use std::net::IpAddr;
use std::sync::Arc;

use pipeline::policy::{
    Action, Direction, Endpoint, FirewallPolicyConfig, GroupConfig, IdentityConfig, Peer, Policy,
    PolicyConfig, RuleConfig, RulesConfig, Service, ServiceMatch, Tier,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::{self, Somebody};

const GROUPS: u32 = 6;
const IDENTITIES: u32 = 5;

/// Few addresses and networks around them, so that they meet.
fn an_address() -> impl Strategy<Value = IpAddr> {
    select(vec![
        "10.0.0.1",
        "10.0.0.2",
        "10.0.1.1",
        "10.1.0.1",
        "192.0.2.1",
        "fd00::1",
        "fd00::2",
        "fd00:1::1",
    ])
    .prop_map(|text| text.parse().unwrap())
}

fn a_network() -> impl Strategy<Value = (IpAddr, u8)> {
    (an_address(), 0u8..=8).prop_map(|(address, step)| match address {
        IpAddr::V4(_) => (address, step * 4),
        IpAddr::V6(_) => (address, step * 16),
    })
}

fn a_peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        1 => Just(Peer::Any),
        6 => (0..GROUPS).prop_map(Peer::Group),
        2 => a_network().prop_map(|(address, prefix)| Peer::Cidr(address, prefix)),
    ]
}

fn a_service_match() -> impl Strategy<Value = ServiceMatch> {
    let ports = (select(vec![6u8, 17, 132]), 0u16..6, 0u16..3).prop_map(|(protocol, low, more)| {
        // Around both ends of the numbers.
        let low = if low > 2 { u16::MAX - 6 + low } else { low };
        ServiceMatch {
            protocol: Some(protocol),
            ports: Some((low, low.saturating_add(more))),
            ..ServiceMatch::default()
        }
    });
    let icmp =
        (select(vec![1u8, 58]), 0u8..3, proptest::option::of(0u8..2)).prop_map(|(protocol, kind, code)| {
            ServiceMatch { protocol: Some(protocol), ports: None, icmp: Some((kind, code)) }
        });
    let whole = select(vec![None, Some(1), Some(6), Some(17), Some(47)])
        .prop_map(|protocol| ServiceMatch { protocol, ..ServiceMatch::default() });
    prop_oneof![4 => ports, 2 => icmp, 1 => whole]
}

fn a_service() -> impl Strategy<Value = Service> {
    let port = prop_oneof![0u16..6, (u16::MAX - 6)..=u16::MAX, 0x0100u16..0x0102, Just(0x0200)];
    (select(vec![1u8, 6, 17, 47, 50, 58, 132]), proptest::option::weighted(0.8, port))
        .prop_map(|(protocol, port)| Service { protocol, port })
}

fn a_rule() -> impl Strategy<Value = RuleConfig> {
    (
        proptest::option::of(select(vec![Direction::In, Direction::Out])),
        select(vec![Action::Allow, Action::Drop, Action::Reject]),
        vec(a_peer(), 0..3),
        vec(a_peer(), 0..3),
        vec(a_service_match(), 0..3),
    )
        .prop_map(|(direction, action, from, to, services)| RuleConfig {
            id: 0,
            name: "".into(),
            direction,
            action,
            from,
            to,
            services,
            log: false,
            keep_established: false,
        })
}

/// Few rules; or many that match nothing in between, so that sets have several chunks and some of them are empty.
fn a_policy(padding: bool) -> impl Strategy<Value = FirewallPolicyConfig> {
    (
        select(vec![Tier::Security, Tier::Application]),
        0u32..2,
        "[ab]",
        proptest::bool::weighted(0.3),
        vec(a_peer(), 0..3),
        vec(a_rule(), 0..6),
        if padding { 0usize..500 } else { 0usize..1 },
    )
        .prop_map(|(tier, priority, name, audit, applies_to, mut rules, unmatched)| {
            let nobody = RuleConfig {
                id: 0,
                name: "".into(),
                direction: None,
                action: Action::Reject,
                from: vec![Peer::Group(GROUPS)],
                to: Vec::new(),
                services: Vec::new(),
                log: false,
                keep_established: false,
            };
            let at = rules.len() / 2;
            rules.splice(at..at, (0..unmatched).map(|_| nobody.clone()));
            FirewallPolicyConfig { name: name.into(), revision: 1, tier, priority, audit, applies_to, rules }
        })
}

fn groups() -> impl Strategy<Value = Vec<GroupConfig>> {
    vec(vec(a_network(), 0..3), GROUPS as usize).prop_map(|all| {
        // One more, that nobody is ever in.
        let groups = all.into_iter().chain([Vec::new()]).enumerate();
        groups.map(|(number, cidrs)| GroupConfig { name: format!("g{number}").into(), cidrs }).collect()
    })
}

fn identities() -> impl Strategy<Value = Vec<IdentityConfig>> {
    vec(vec(0..GROUPS, 0..4), IDENTITIES as usize).prop_map(|all| {
        let identities = all.into_iter().enumerate();
        identities.map(|(number, groups)| IdentityConfig { id: 10 - 2 * number as u32, groups }).collect()
    })
}

fn configs() -> impl Strategy<Value = PolicyConfig> {
    let rules = (groups(), any::<bool>().prop_flat_map(|padding| vec(a_policy(padding), 0..8)));
    let endpoints = vec(((1..=IDENTITIES).prop_map(|id| id * 2), an_address()), 0..8);
    (rules, identities(), endpoints).prop_map(|((groups, policies), identities, endpoints)| {
        numbered(PolicyConfig { rules: Arc::new(RulesConfig { groups, policies }), identities, endpoints })
    })
}

/// Rule numbers that are no places.
fn numbered(mut config: PolicyConfig) -> PolicyConfig {
    let rules = Arc::make_mut(&mut config.rules);
    let all = rules.policies.iter_mut().flat_map(|policy| &mut policy.rules);
    all.enumerate().for_each(|(number, rule)| rule.id = 90_000 - number as u32);
    config
}

fn people(config: &PolicyConfig, policy: &Policy, outside: &[IpAddr]) -> Vec<(Somebody, Endpoint)> {
    let declared = config.endpoints.iter().map(|(id, address)| (*id, Some(*address)));
    let nowhere = config.identities.iter().map(|identity| (identity.id, None));
    let mut all: Vec<_> =
        declared.chain(nowhere).map(|who| (who, policy.endpoint(who.0, who.1).expect("declared"))).collect();
    all.extend(outside.iter().map(|address| ((0, Some(*address)), policy.external(*address))));
    all
}

fn check(
    config: &PolicyConfig,
    policy: &Policy,
    outside: &[IpAddr],
    services: &[Service],
) -> Result<(), TestCaseError> {
    let people = people(config, policy, outside);
    for (who, endpoint) in &people {
        prop_assert_eq!(policy.groups_of(*endpoint).collect::<Vec<_>>(), model::groups_of(config, *who));
    }
    for direction in [Direction::In, Direction::Out] {
        for ((local, local_endpoint), (remote, remote_endpoint)) in
            people.iter().flat_map(|local| people.iter().map(move |remote| (local, remote)))
        {
            for service in services {
                let decision = policy.judge(direction, *local_endpoint, *remote_endpoint, *service);
                let id = |rule| policy.rule(rule).id;
                let would = decision.would.map(|(rule, action)| (id(rule), action));
                prop_assert_eq!(
                    (decision.rule.map(id), decision.action, would),
                    model::judge(config, direction, *local, *remote, *service),
                    "{:?} {:?} {:?} {:?}",
                    direction,
                    local,
                    remote,
                    service
                );
            }
        }
    }
    Ok(())
}

/// One of the things that change while a system runs.
fn edited(config: &PolicyConfig, other: &PolicyConfig, edit: u8) -> PolicyConfig {
    let mut config = config.clone();
    match edit {
        0 => config.rules = Arc::new(RulesConfig::clone(&config.rules)),
        1 => config.identities.clone_from(&other.identities),
        2 => config.endpoints.clone_from(&other.endpoints),
        3 => Arc::make_mut(&mut config.rules).groups.clone_from(&other.rules.groups),
        4 => Arc::make_mut(&mut config.rules).policies.clone_from(&other.rules.policies),
        5 => {
            let mut more = other.identities[0].clone();
            more.id = 3;
            config.identities.push(more);
            config.endpoints.push((3, "10.0.0.2".parse().unwrap()));
        }
        _ => {
            let id = config.identities.remove(1).id;
            config.endpoints.retain(|(identity, _)| *identity != id);
        }
    }
    config
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn it_decides_as_a_walk_over_all_rules_does(
        config in configs(),
        outside in vec(an_address(), 1..4),
        services in vec(a_service(), 4),
    ) {
        let policy = Policy::compile(&config, None).unwrap();
        check(&config, &policy, &outside, &services)?;
    }

    #[test]
    fn compiled_after_another_it_decides_as_compiled_from_scratch(
        config in configs(),
        other in configs(),
        edits in vec(0u8..7, 1..4),
        outside in vec(an_address(), 1..4),
        services in vec(a_service(), 3),
    ) {
        let mut config = config;
        let mut policy = Policy::compile(&config, None).unwrap();
        for edit in edits {
            if config.identities.len() < 3 {
                continue;
            }
            let next = edited(&config, &other, edit);
            let kept = next.rules == config.rules;
            let Ok(compiled) = Policy::compile(&next, Some(&policy)) else {
                // An edit may leave addresses of an identity that is gone.
                prop_assert!(Policy::compile(&next, None).is_err());
                continue;
            };
            prop_assert_eq!(compiled.shares_rules_with(&policy), kept);
            check(&next, &compiled, &outside, &services)?;
            (config, policy) = (next, compiled);
        }
    }
}
