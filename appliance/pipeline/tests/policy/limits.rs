//! What does not compile, and why.

use std::net::IpAddr;
use std::sync::Arc;

use pipeline::policy::{
    Action, Direction, GroupConfig, Peer, Policy, PolicyConfig, PolicyError, RuleConfig, Service,
    ServiceMatch,
};

use crate::config::{address, between, config, group, icmp, identity, policy, ports, rule};

fn error(config: &PolicyConfig) -> PolicyError {
    Policy::compile(config, None).expect_err("a contradiction")
}

fn of_rule(rule: RuleConfig) -> PolicyConfig {
    config(vec![group("web", &[])], vec![policy("p", "any", vec![rule])], vec![], &[])
}

fn serving(service: ServiceMatch) -> PolicyConfig {
    of_rule(RuleConfig { services: vec![service], ..rule(1, Action::Allow) })
}

#[test]
fn a_group_that_was_not_given_is_named_wherever_it_is_used() {
    let unknown = PolicyError::UnknownGroup { policy: "p".into(), group: 1, have: 1 };
    assert_eq!(error(&of_rule(between(rule(1, Action::Allow), None, "1", ""))), unknown);
    assert_eq!(error(&of_rule(between(rule(1, Action::Allow), None, "", "any 1"))), unknown);
    let applied = config(vec![group("web", &[])], vec![policy("p", "0 1", vec![])], vec![], &[]);
    assert_eq!(error(&applied), unknown);
    let listed = config(vec![group("web", &[])], vec![], vec![identity(5, &[0, 9])], &[]);
    assert_eq!(error(&listed), PolicyError::UnknownGroupOfIdentity { identity: 5, group: 9, have: 1 });
}

#[test]
fn numbers_are_given_once() {
    let rules = vec![rule(7, Action::Allow), rule(8, Action::Allow)];
    let twice = config(
        vec![],
        vec![policy("a", "any", rules), policy("b", "any", vec![rule(7, Action::Drop)])],
        vec![],
        &[],
    );
    assert_eq!(error(&twice), PolicyError::DuplicateRule { id: 7 });
    let twice = config(vec![], vec![], vec![identity(5, &[]), identity(6, &[]), identity(5, &[])], &[]);
    assert_eq!(error(&twice), PolicyError::DuplicateIdentity { identity: 5 });
}

#[test]
fn identity_zero_is_in_no_group_and_others_are_declared() {
    let zero = config(vec![group("web", &[])], vec![], vec![identity(0, &[0])], &[]);
    assert_eq!(error(&zero), PolicyError::IdentityZero { groups: 1 });
    let given = config(vec![group("web", &[])], vec![], vec![identity(0, &[])], &[(0, "10.0.0.1")]);
    assert!(Policy::compile(&given, None).is_ok());
    let unknown = config(vec![], vec![], vec![], &[(4, "10.0.0.1")]);
    assert_eq!(error(&unknown), PolicyError::UnknownIdentity { identity: 4, address: address("10.0.0.1") });
}

#[test]
fn a_prefix_is_no_longer_than_its_address() {
    for (text, prefix, most) in [("10.0.0.0", 33, 32), ("fd00::", 129, 128), ("10.0.0.0", 255, 32)] {
        let want = PolicyError::Prefix { address: address(text), prefix, most };
        let mut peer = rule(1, Action::Allow);
        peer.from = vec![Peer::Cidr(address(text), prefix)];
        assert_eq!(error(&of_rule(peer)), want);
        let cidrs = vec![(address(text), prefix)];
        let grouped = config(vec![GroupConfig { name: "g".into(), cidrs }], vec![], vec![], &[]);
        assert_eq!(error(&grouped), want);
    }
}

#[test]
fn ports_and_types_belong_to_their_protocols() {
    let names = || (Arc::from("p"), Arc::from("rule-1"));
    let (policy, rule) = names();
    assert_eq!(
        error(&serving(ServiceMatch { protocol: None, ports: Some((1, 2)), icmp: None })),
        PolicyError::PortsWithoutProtocol { policy, rule, protocol: None }
    );
    let (policy, rule) = names();
    assert_eq!(
        error(&serving(ports(47, 1, 2))),
        PolicyError::PortsWithoutProtocol { policy, rule, protocol: Some(47) }
    );
    let (policy, rule) = names();
    assert_eq!(error(&serving(ports(6, 2, 1))), PolicyError::PortRange { policy, rule, low: 2, high: 1 });
    let (policy, rule) = names();
    assert_eq!(
        error(&serving(icmp(6, 8, None))),
        PolicyError::TypeWithoutIcmp { policy, rule, protocol: Some(6) }
    );
    let text = error(&serving(ServiceMatch { protocol: None, ports: Some((1, 2)), icmp: None })).to_string();
    assert!(text.starts_with("rule rule-1 of policy p matches ports of every protocol: only TCP"), "{text}");
}

#[test]
fn there_is_a_most_of_everything() {
    let rules = (0..=65_536).map(|id| rule(id, Action::Allow)).collect();
    let many = config(vec![], vec![policy("p", "any", rules)], vec![], &[]);
    assert_eq!(error(&many), PolicyError::TooMany { what: "rules", have: 65_537, most: 65_536 });
    let many = config((0..=65_536).map(|_| group("", &[])).collect(), vec![], vec![], &[]);
    let want =
        PolicyError::TooMany { what: "groups and networks named by rules", have: 65_537, most: 65_536 };
    assert_eq!(error(&many), want);
}

#[test]
fn what_would_overflow_memory_is_refused_instead() {
    // Every rule applies to every group.
    let groups = (0..20_000).map(|_| group("", &[])).collect();
    let rules = (0..65_536).map(|id| rule(id, Action::Allow)).collect();
    let mut everywhere = policy("p", "", rules);
    everywhere.applies_to = (0..20_000).map(Peer::Group).collect();
    let wide = config(groups, vec![everywhere], vec![], &[]);
    assert!(matches!(error(&wide), PolicyError::TooLarge { .. }));
    // Every rule matches other ports, and most of them overlap.
    let range = |id: u32| vec![ports(6, id as u16, u16::MAX)];
    let rules = (0..65_536).map(|id| RuleConfig { services: range(id), ..rule(id, Action::Allow) }).collect();
    let overlapping = config(vec![], vec![policy("p", "any", rules)], vec![], &[]);
    assert!(matches!(error(&overlapping), PolicyError::TooLarge { .. }));
}

#[test]
fn the_last_of_the_most_rules_is_found() {
    let last = 65_535;
    let port =
        |id: u32| RuleConfig { services: vec![ports(6, id as u16, id as u16)], ..rule(id, Action::Allow) };
    let all = config(vec![], vec![policy("p", "any", (0..=last).map(port).collect())], vec![], &[]);
    let policy = Policy::compile(&all, None).unwrap();
    let somebody = policy.external(IpAddr::from([10, 0, 0, 1]));
    for number in [0, 1, 511, 512, 513, 20_000, u16::MAX - 1, u16::MAX] {
        let decision = policy.judge(Direction::In, somebody, somebody, Service::port(6, number));
        assert_eq!(decision.rule.map(|rule| rule.place()), Some(usize::from(number)));
    }
}
