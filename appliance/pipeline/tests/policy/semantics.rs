//! What a rule means, line by line.

use pipeline::policy::{
    Action, Decision, Direction, Endpoint, FirewallPolicyConfig, GroupConfig, IdentityConfig, Policy,
    RuleConfig, Service, Tier,
};

use crate::config::{address, between, config, group, icmp, identity, policy, ports, protocol, rule};

use Action::{Allow, Drop, Reject};
use Direction::{In, Out};

const HTTPS: Service = Service::port(6, 443);

// Groups: two by label, one by address.
const WEB: u32 = 0;
const DB: u32 = 1;
const OFFICE: u32 = 2;

/// Identities: one per group by label, one in both, one in none.
fn people() -> (Vec<GroupConfig>, Vec<IdentityConfig>) {
    (
        vec![group("web", &[]), group("db", &[]), group("office", &["198.51.100.0/24", "2001:db8::/64"])],
        vec![identity(1, &[WEB]), identity(2, &[DB]), identity(3, &[DB, WEB]), identity(4, &[])],
    )
}

fn compiled(policies: Vec<FirewallPolicyConfig>) -> Policy {
    let (groups, identities) = people();
    let endpoints = [(1, "10.0.0.1"), (2, "10.0.0.2"), (1, "198.51.100.9"), (4, "10.0.0.4")];
    Policy::compile(&config(groups, policies, identities, &endpoints), None).unwrap()
}

fn one(applies_to: &str, rule: RuleConfig) -> Policy {
    compiled(vec![policy("p", applies_to, vec![rule])])
}

fn by_label(policy: &Policy, id: u32) -> Endpoint {
    policy.endpoint(id, None).unwrap()
}

/// Whether the rule that allows matches at a port of identity `local` for identity `remote`.
fn allows(policy: &Policy, direction: Direction, local: u32, remote: u32) -> bool {
    let (local, remote) = (by_label(policy, local), by_label(policy, remote));
    policy.judge(direction, local, remote, HTTPS).action == Allow
}

fn serves(services: &[pipeline::policy::ServiceMatch], service: Service) -> bool {
    let policy = one("any", RuleConfig { services: services.to_vec(), ..rule(1, Allow) });
    let somebody = by_label(&policy, 4);
    policy.judge(In, somebody, somebody, service).action == Allow
}

#[test]
fn without_any_rule_everything_is_dropped_by_nobody() {
    for policy in [Policy::default(), compiled(vec![])] {
        let somebody = policy.external(address("10.0.0.1"));
        let denied = Decision { rule: None, action: Drop, would: None };
        assert_eq!(policy.judge(In, somebody, somebody, HTTPS), denied);
        assert_eq!(policy.judge(Out, somebody, somebody, Service::without_port(47)), denied);
    }
}

#[test]
fn a_policy_counts_only_at_ports_that_it_applies_to() {
    for (applies_to, at) in [
        ("any", [true; 4]),
        ("0", [true, false, true, false]),
        ("0 1", [true, true, true, false]),
        ("", [false; 4]),
    ] {
        let policy = one(applies_to, rule(1, Allow));
        for direction in [In, Out] {
            let seen = [1, 2, 3, 4].map(|local| allows(&policy, direction, local, 4));
            assert_eq!(seen, at, "appliesTo {applies_to:?} {direction:?}");
        }
    }
}

#[test]
fn a_policy_may_apply_to_ports_by_their_address() {
    for applies_to in ["2", "198.51.100.0/24", "198.51.100.9/32"] {
        let policy = one(applies_to, rule(1, Allow));
        let remote = policy.external(address("192.0.2.1"));
        for (at, want) in [(None, Drop), (Some("10.0.0.1"), Drop), (Some("198.51.100.9"), Allow)] {
            let local = policy.endpoint(1, at.map(address)).unwrap();
            assert_eq!(policy.judge(In, local, remote, HTTPS).action, want, "{applies_to} at {at:?}");
        }
    }
}

#[test]
fn a_rule_without_direction_counts_in_both() {
    for (direction, want) in [(None, [true, true]), (Some(In), [true, false]), (Some(Out), [false, true])] {
        let policy = one("any", between(rule(1, Allow), direction, "", ""));
        assert_eq!([In, Out].map(|direction| allows(&policy, direction, 1, 2)), want, "{direction:?}");
    }
}

#[test]
fn coming_in_from_is_the_remote_side_and_to_is_the_port() {
    let policy = one("any", between(rule(1, Allow), Some(In), "0", "1"));
    assert!(allows(&policy, In, 2, 1), "db is asked by web");
    assert!(!allows(&policy, In, 1, 2), "web is asked by db");
    assert!(!allows(&policy, In, 2, 4) && !allows(&policy, In, 4, 1));
}

#[test]
fn going_out_from_is_the_port_and_to_is_the_remote_side() {
    let policy = one("any", between(rule(1, Allow), Some(Out), "0", "1"));
    assert!(allows(&policy, Out, 1, 2), "web asks db");
    assert!(!allows(&policy, Out, 2, 1), "db asks web");
    assert!(!allows(&policy, Out, 4, 2) && !allows(&policy, Out, 1, 4));
}

#[test]
fn a_rule_between_two_groups_counts_at_both_ends_where_the_policy_applies() {
    // As in "to-db" of a three-tier application.
    let policy = one("0 1", between(rule(1, Allow), None, "0", "1"));
    assert!(allows(&policy, Out, 1, 2) && allows(&policy, In, 2, 1));
    assert!(!allows(&policy, In, 1, 2) && !allows(&policy, Out, 2, 1));
    let policy = one("1", between(rule(1, Allow), None, "0", "1"));
    assert!(!allows(&policy, Out, 1, 2), "it does not apply to web");
    assert!(allows(&policy, In, 2, 1));
}

#[test]
fn what_the_policy_and_the_rule_ask_of_the_port_must_both_be_true() {
    let policy = one("0", between(rule(1, Allow), Some(In), "any", "1"));
    assert_eq!([1, 2, 3].map(|local| allows(&policy, In, local, 4)), [false, false, true]);
}

#[test]
fn nobody_named_and_any_are_everybody() {
    for (from, to) in [("", ""), ("any", ""), ("", "any"), ("any", "any"), ("0 any", "any 1")] {
        let policy = one("any", between(rule(1, Allow), None, from, to));
        assert!(allows(&policy, In, 4, 4) && allows(&policy, Out, 4, 4), "from {from:?} to {to:?}");
    }
}

#[test]
fn several_peers_are_any_of_them() {
    let policy = one("any", between(rule(1, Allow), Some(In), "0 1 192.0.2.0/24", ""));
    assert_eq!([1, 2, 3, 4].map(|remote| allows(&policy, In, 4, remote)), [true, true, true, false]);
    let outside = policy.external(address("192.0.2.200"));
    assert_eq!(policy.judge(In, by_label(&policy, 4), outside, HTTPS).action, Allow);
}

#[test]
fn an_address_is_in_the_groups_and_literal_networks_that_hold_it() {
    for from in ["2", "198.51.100.0/24", "198.51.100.77/24", "198.51.100.9/32", "0.0.0.0/0"] {
        let policy = one("any", between(rule(1, Allow), Some(In), from, ""));
        let local = by_label(&policy, 4);
        let at = |who: &str| policy.judge(In, local, policy.external(address(who)), HTTPS).action == Allow;
        assert!(at("198.51.100.9"), "{from}");
        assert_eq!(at("198.51.101.9"), from == "0.0.0.0/0", "{from}");
        assert_eq!(at("2001:db8::1"), from == "2", "{from}");
        assert!(!at("2001:db8:0:1::1"), "{from}");
    }
}

#[test]
fn a_declared_address_has_the_groups_of_its_identity_and_those_that_hold_it() {
    let policy = compiled(vec![]);
    let groups = |endpoint| policy.groups_of(endpoint).collect::<Vec<_>>();
    assert_eq!(groups(policy.endpoint(1, Some(address("10.0.0.1"))).unwrap()), ["web"]);
    assert_eq!(groups(policy.endpoint(1, Some(address("198.51.100.9"))).unwrap()), ["web", "office"]);
    assert_eq!(groups(policy.external(address("198.51.100.9"))), ["office"]);
    assert_eq!(groups(policy.external(address("10.0.0.1"))), [""; 0]);
    assert_eq!(groups(policy.endpoint(3, None).unwrap()), ["web", "db"]);
    assert_eq!(
        policy.endpoint(0, Some(address("198.51.100.9"))),
        Some(policy.external(address("198.51.100.9")))
    );
    assert_eq!(policy.endpoint(2, Some(address("198.51.100.9"))), None, "nobody said so");
    assert_eq!(policy.endpoint(9, None), None, "nobody said so");
    assert_eq!(OFFICE, 2);
}

#[test]
fn services_match_by_protocol_and_port() {
    assert!(serves(&[], HTTPS) && serves(&[], Service::without_port(47)));
    let tls = [ports(6, 443, 443), ports(6, 8443, 8450)];
    for (port, want) in
        [(442, false), (443, true), (444, false), (8442, false), (8443, true), (8450, true), (8451, false)]
    {
        assert_eq!(serves(&tls, Service::port(6, port)), want, "tcp/{port}");
        assert!(!serves(&tls, Service::port(17, port)), "udp/{port}");
    }
    for number in [6, 17, 132] {
        assert!(serves(&[ports(number, 0, u16::MAX)], Service::port(number, 0)));
        assert!(serves(&[ports(number, 0, u16::MAX)], Service::port(number, u16::MAX)));
        assert!(serves(&[protocol(number)], Service::port(number, 443)));
    }
    assert!(
        serves(&[protocol(47)], Service::without_port(47))
            && !serves(&[protocol(47)], Service::without_port(50))
    );
    assert!(
        serves(&[ports(17, 53, 53), pipeline::policy::ServiceMatch::default()], HTTPS),
        "one is all services"
    );
}

#[test]
fn ranges_of_one_rule_may_overlap() {
    let overlapping =
        [ports(6, 10, 20), ports(6, 12, 15), ports(6, 15, 25), ports(6, 30, 30), ports(6, 30, 30)];
    for port in 0..40 {
        let want = (10..=25).contains(&port) || port == 30;
        assert_eq!(serves(&overlapping, Service::port(6, port)), want, "tcp/{port}");
    }
}

#[test]
fn icmp_matches_by_type_and_code_if_one_is_asked_for() {
    for number in [1, 58] {
        assert!(serves(&[icmp(number, 8, None)], Service::icmp(number, 8, 0)));
        assert!(serves(&[icmp(number, 8, None)], Service::icmp(number, 8, 255)));
        assert!(!serves(&[icmp(number, 8, None)], Service::icmp(number, 9, 0)));
        assert!(!serves(&[icmp(number, 8, None)], Service::icmp(59 - number, 8, 0)));
        assert!(serves(&[icmp(number, 3, Some(4))], Service::icmp(number, 3, 4)));
        assert!(!serves(&[icmp(number, 3, Some(4))], Service::icmp(number, 3, 3)));
        assert!(!serves(&[icmp(number, 3, Some(4))], Service::icmp(number, 3, 5)));
        assert!(serves(&[icmp(number, 255, Some(255))], Service::icmp(number, 255, 255)));
        assert!(serves(&[protocol(number)], Service::icmp(number, 8, 0)));
    }
}

#[test]
fn a_packet_without_ports_matches_no_rule_that_asks_for_them() {
    for number in [6, 17, 132] {
        assert!(!serves(&[ports(number, 0, u16::MAX)], Service::without_port(number)), "even for all ports");
        assert!(serves(&[protocol(number)], Service::without_port(number)));
    }
    assert!(!serves(&[icmp(1, 0, None)], Service::without_port(1)));
    assert!(serves(&[protocol(1)], Service::without_port(1)));
}

#[test]
fn policies_are_judged_by_tier_then_priority_then_name_and_rules_in_their_order() {
    let named = |id, name, tier, priority| {
        let rules = vec![rule(id, Allow), rule(id + 100, Drop)];
        FirewallPolicyConfig { tier, priority, ..policy(name, "any", rules) }
    };
    let policy = compiled(vec![
        named(6, "a", Tier::Baseline, 0),
        named(4, "b", Tier::Application, 2),
        named(3, "a", Tier::Application, 2),
        named(5, "a", Tier::Application, 10),
        named(2, "z", Tier::Security, 9),
        named(1, "z", Tier::Emergency, 99),
    ]);
    let ids: Vec<u32> = policy.rules().iter().map(|rule| rule.id.0).collect();
    assert_eq!(ids, [1, 101, 2, 102, 3, 103, 4, 104, 5, 105, 6, 106]);
    let somebody = by_label(&policy, 4);
    assert_eq!(policy.judge(In, somebody, somebody, HTTPS).rule.map(|rule| rule.place()), Some(0));
}

#[test]
fn the_first_rule_that_matches_decides_and_is_told_with_its_policy() {
    let mut logged = between(rule(21, Reject), Some(In), "", "");
    (logged.log, logged.keep_established) = (true, true);
    let policy = compiled(vec![policy(
        "shop",
        "0",
        vec![between(rule(20, Allow), Some(In), "1", ""), logged, rule(22, Allow)],
    )]);
    let judge = |remote| policy.judge(In, by_label(&policy, 1), by_label(&policy, remote), HTTPS);
    assert_eq!((judge(2).action, judge(2).rule.map(|rule| policy.rule(rule).id.0)), (Allow, Some(20)));
    let refused = judge(4);
    assert_eq!(refused.action, Reject);
    let told = policy.rule(refused.rule.unwrap());
    assert_eq!((told.id.0, &*told.name, &*told.policy, told.revision), (21, "rule-21", "shop", 7));
    assert_eq!((told.tier, told.action), (Tier::Application, Reject));
    assert!(told.log && told.keep_established && !told.audit);
}

/// Audit policies before and after an enforced one, and what is told.
fn audited(
    before: &[&[Action]],
    enforced: Option<Action>,
    after: &[Action],
) -> (Action, Option<(u32, Action)>) {
    let mut policies = Vec::new();
    let mut add = |tier, audit, actions: &[Action]| {
        let priority = policies.len() as u32;
        let rules =
            actions.iter().enumerate().map(|(n, action)| rule(priority * 10 + n as u32, *action)).collect();
        policies.push(FirewallPolicyConfig { tier, priority, audit, ..policy("p", "any", rules) });
    };
    before.iter().for_each(|actions| add(Tier::Security, true, actions));
    if let Some(action) = enforced {
        add(Tier::Application, false, &[action]);
    }
    add(Tier::Baseline, true, after);
    let policy = compiled(policies);
    let somebody = by_label(&policy, 4);
    let decision = policy.judge(In, somebody, somebody, HTTPS);
    (decision.action, decision.would.map(|(rule, action)| (policy.rule(rule).id.0, action)))
}

#[test]
fn an_audit_policy_decides_nothing_and_is_told_when_it_disagrees() {
    assert_eq!(audited(&[&[Drop]], Some(Allow), &[]), (Allow, Some((0, Drop))));
    assert_eq!(audited(&[&[Reject]], Some(Allow), &[]), (Allow, Some((0, Reject))));
    assert_eq!(audited(&[&[Allow]], Some(Drop), &[]), (Drop, Some((0, Allow))));
    assert_eq!(audited(&[&[Allow]], Some(Allow), &[]), (Allow, None));
}

#[test]
fn to_drop_and_to_reject_is_no_disagreement() {
    assert_eq!(audited(&[&[Drop]], Some(Reject), &[]), (Reject, None));
    assert_eq!(audited(&[&[Reject]], None, &[]), (Drop, None));
}

#[test]
fn only_the_first_match_of_an_audit_policy_counts_and_each_is_asked_by_itself() {
    assert_eq!(audited(&[&[Allow, Drop]], Some(Allow), &[]), (Allow, None));
    assert_eq!(audited(&[&[Allow, Drop], &[Drop]], Some(Allow), &[]), (Allow, Some((10, Drop))));
    assert_eq!(audited(&[&[Drop], &[Reject]], Some(Allow), &[]), (Allow, Some((0, Drop))));
}

#[test]
fn an_audit_policy_behind_the_deciding_rule_is_not_asked() {
    assert_eq!(audited(&[], Some(Allow), &[Drop]), (Allow, None));
    assert_eq!(audited(&[], None, &[Allow]), (Drop, Some((0, Allow))), "default deny is behind everything");
}

#[test]
fn endpoints_of_another_policy_are_nobody_and_harm_nobody() {
    let (small, large) = (Policy::default(), one("any", between(rule(1, Allow), None, "0", "")));
    let stranger = by_label(&large, 4);
    assert_eq!(small.judge(In, stranger, stranger, HTTPS).action, Drop);
    assert_eq!(small.groups_of(stranger).count(), 0);
}
