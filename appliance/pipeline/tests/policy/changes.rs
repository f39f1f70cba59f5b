//! Many small changes in a row, as a running system sees them.

use std::sync::Arc;

use pipeline::policy::{
    Action, Direction, FirewallPolicyConfig, Policy, PolicyConfig, RuleConfig, RulesConfig, Service,
};

use crate::config::{address, between, config, group, identity, policy, ports, rule};

const GROUPS: u32 = 24;
const IDENTITIES: u32 = 150;

/// A linear congruential generator (Knuth, MMIX): any numbers will do.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % end
    }

    fn groups(&mut self) -> Vec<u32> {
        (0..3).map(|_| self.below(GROUPS)).collect()
    }
}

/// Policies of ten rules each.
fn policies(count: u32, numbers: &mut Numbers) -> Vec<FirewallPolicyConfig> {
    let some = |numbers: &mut Numbers| match numbers.below(4) {
        0 => "any".to_owned(),
        1 => format!("10.0.{}.0/24", numbers.below(4)),
        _ => numbers.below(GROUPS).to_string(),
    };
    let one = |id, numbers: &mut Numbers| {
        let action = [Action::Allow, Action::Drop, Action::Reject][numbers.below(3) as usize];
        let services = vec![ports(6, numbers.below(40) as u16, 40 + numbers.below(9) as u16)];
        let direction = [None, Some(Direction::In), Some(Direction::Out)][numbers.below(3) as usize];
        let rule = RuleConfig { services, ..rule(id, action) };
        between(rule, direction, &some(numbers), &some(numbers))
    };
    (0..count)
        .map(|number| {
            let rules = (0..10).map(|place| one(number * 10 + place, numbers)).collect();
            policy(&format!("p{number:03}"), &some(numbers), rules)
        })
        .collect()
}

fn world(rules: u32) -> PolicyConfig {
    let mut numbers = Numbers(u64::from(rules));
    let groups = (0..GROUPS).map(|number| match number % 6 {
        0 => group("cidr", &[&format!("10.0.{}.0/{}", numbers.below(4), 20 + numbers.below(8))]),
        _ => group("label", &[]),
    });
    let groups = groups.collect();
    let identities = (1..=IDENTITIES).map(|id| identity(id, &numbers.groups())).collect();
    let addresses: Vec<String> = (1..=IDENTITIES).map(|id| format!("10.0.{}.{id}", id % 5)).collect();
    let endpoints: Vec<(u32, &str)> = (1..).zip(addresses.iter().map(String::as_str)).collect();
    config(groups, policies(rules / 10, &mut numbers), identities, &endpoints)
}

fn assert_same(config: &PolicyConfig, one: &Policy, other: &Policy, numbers: &mut Numbers) {
    for _ in 0..3000 {
        let mut somebody = || {
            let (id, at) = config.endpoints[numbers.below(IDENTITIES) as usize];
            match numbers.below(4) {
                0 => [one, other].map(|policy| policy.external(address("10.0.2.200"))),
                1 => [one, other].map(|policy| policy.endpoint(id, None).unwrap()),
                _ => [one, other].map(|policy| policy.endpoint(id, Some(at)).unwrap()),
            }
        };
        let ([local, local_other], [remote, remote_other]) = (somebody(), somebody());
        assert!(one.groups_of(local).eq(other.groups_of(local_other)));
        let direction = [Direction::In, Direction::Out][numbers.below(2) as usize];
        let service = Service::port(6, numbers.below(50) as u16);
        let want = other.judge(direction, local_other, remote_other, service);
        assert_eq!(one.judge(direction, local, remote, service), want);
    }
}

#[test]
fn labels_that_change_one_after_another_lead_where_compiling_from_scratch_leads() {
    for rules in [100, 2_000] {
        let mut config = world(rules);
        let mut policy = Policy::compile(&config, None).unwrap();
        let mut numbers = Numbers(1);
        for change in 0..60 {
            let place = numbers.below(IDENTITIES) as usize;
            if change % 2 == 0 {
                // An identity whose groups change, …
                config.identities[place].groups = numbers.groups();
            } else {
                // … and a workload that gets a new one.
                let id = 1000 + change;
                let left =
                    std::mem::replace(&mut config.identities[place], identity(id, &numbers.groups())).id;
                config
                    .endpoints
                    .iter_mut()
                    .filter(|(owner, _)| *owner == left)
                    .for_each(|known| known.0 = id);
            }
            let next = Policy::compile(&config, Some(&policy)).unwrap();
            assert!(next.shares_rules_with(&policy));
            assert_same(&config, &next, &Policy::compile(&config, None).unwrap(), &mut numbers);
            policy = next;
        }
    }
}

#[test]
fn what_grew_by_many_changes_is_no_larger_than_what_is_compiled_from_scratch_by_more_than_a_part() {
    let mut config = world(2_000);
    let mut policy = Policy::compile(&config, None).unwrap();
    let mut numbers = Numbers(2);
    for _ in 0..200 {
        let place = numbers.below(IDENTITIES) as usize;
        config.identities[place].groups = numbers.groups();
        policy = Policy::compile(&config, Some(&policy)).unwrap();
        let (_, grown) = policy.size();
        let (_, fresh) = Policy::compile(&config, None).unwrap().size();
        assert!(grown as f64 <= fresh as f64 * 1.3, "{grown} bytes instead of {fresh}");
    }
}

#[test]
fn equal_rules_are_known_to_be_equal_and_others_are_not() {
    let config = world(100);
    let policy = Policy::compile(&config, None).unwrap();
    let mut equal = config.clone();
    equal.rules = Arc::new(RulesConfig::clone(&config.rules));
    assert!(Policy::compile(&equal, Some(&policy)).unwrap().shares_rules_with(&policy));
    Arc::make_mut(&mut equal.rules).policies[3].rules[3].log = true;
    let changed = Policy::compile(&equal, Some(&policy)).unwrap();
    assert!(!changed.shares_rules_with(&policy));
    assert!(changed.rules().iter().any(|rule| rule.log));
}
