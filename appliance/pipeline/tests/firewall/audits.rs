//! Policies on trial tell what they would do, and do nothing.

use pipeline::policy::{Action, FirewallPolicyConfig, RuleConfig, Tier};
use pipeline::{DropReason, Event, RuleId};

use crate::frames::v4;
use crate::world::{APP, Host, IN, OUT, WEB, allow, open, policy, port, rule};

fn on_trial(rules: Vec<RuleConfig>) -> FirewallPolicyConfig {
    FirewallPolicyConfig { audit: true, tier: Tier::Security, ..policy("trial", rules) }
}

#[test]
fn what_a_trial_would_drop_passes_and_is_told_once_a_flow() {
    let drop_dns = RuleConfig { direction: IN, services: vec![port(17, 53)], ..rule(1, Action::Drop) };
    let mut host = Host::new([vec![on_trial(vec![drop_dns])], open()].concat());
    let there = v4("web", "app");
    for _ in 0..3 {
        assert_eq!(host.send("web", &there.udp(1, 53, b"?")), "app");
        assert_eq!(host.send("app", &there.back().udp(53, 1, b"!")), "web");
    }
    let audited: Vec<_> = host
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Audited(record) => Some(record),
            _ => None,
        })
        .collect();
    assert_eq!(audited.len(), 1);
    let record = audited[0];
    assert_eq!((record.reason, record.rule, record.direction), (DropReason::PolicyDrop, Some(RuleId(1)), IN));
    assert!(!record.would_allow);
    assert_eq!(record.key.expect("a key").destination, (there.to, 53));
    assert_eq!(host.record().rules, [Some(RuleId(9)), Some(RuleId(9))], "the trial's is not among them");
    // Another revision asks again, and tells again.
    host.change(host.config.policies.clone());
    assert_eq!(host.send("web", &there.udp(1, 53, b"?")), "app");
    assert_eq!(host.happened(), ["audited policy-drop"]);
    assert_eq!(host.send("web", &there.udp(1, 54, b"?")), "app");
    assert_eq!(host.happened(), ["started udp-unreplied"]);
}

#[test]
fn each_side_tells_for_itself() {
    let mut host = Host::new([vec![on_trial(vec![rule(1, Action::Reject)])], open()].concat());
    assert_eq!(host.send("web", &v4("web", "app").udp(1, 53, b"?")), "app");
    assert_eq!(host.happened(), ["audited policy-reject", "audited policy-reject", "started udp-unreplied"]);
    // At an excluded port nobody is asked.
    assert_eq!(host.send("web", &v4("web", "free").udp(1, 53, b"?")), "free");
    assert_eq!(host.happened(), ["audited policy-reject", "started udp-unreplied"]);
}

#[test]
fn what_a_trial_would_allow_is_dropped_all_the_same() {
    let mut host = Host::new(vec![on_trial(vec![allow(1, WEB, APP, port(17, 53))])]);
    assert_eq!(host.send("web", &v4("web", "app").udp(1, 53, b"?")), "drop default-deny");
    let events = host.take_events();
    let [Event::Audited(would), Event::Dropped(drop)] = events[..] else { panic!("{events:?}") };
    assert!(would.would_allow && !drop.would_allow);
    assert_eq!((would.rule, would.direction), (Some(RuleId(1)), OUT));
    assert_eq!((drop.reason, drop.rule), (DropReason::DefaultDeny, None));
    assert!(host.flows.is_empty());
}
