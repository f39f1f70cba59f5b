//! Short ways to write configurations down.

use std::net::IpAddr;
use std::sync::Arc;

use pipeline::policy::{
    Action, Direction, FirewallPolicyConfig, GroupConfig, IdentityConfig, Peer, PolicyConfig, RuleConfig,
    RulesConfig, ServiceMatch, Tier,
};

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn cidr(text: &str) -> (IpAddr, u8) {
    let (address, prefix) = text.split_once('/').unwrap();
    (address.parse().unwrap(), prefix.parse().unwrap())
}

pub(crate) fn group(name: &str, cidrs: &[&str]) -> GroupConfig {
    GroupConfig { name: name.into(), cidrs: cidrs.iter().map(|text| cidr(text)).collect() }
}

pub(crate) fn identity(id: u32, groups: &[u32]) -> IdentityConfig {
    IdentityConfig { id, groups: groups.to_vec() }
}

/// `any`, a group's number, or a network.
pub(crate) fn peer(text: &str) -> Peer {
    if text == "any" {
        return Peer::Any;
    }
    match text.parse() {
        Ok(group) => Peer::Group(group),
        Err(_) => {
            let (address, prefix) = cidr(text);
            Peer::Cidr(address, prefix)
        }
    }
}

pub(crate) fn peers(text: &str) -> Vec<Peer> {
    text.split_whitespace().map(peer).collect()
}

pub(crate) fn ports(protocol: u8, low: u16, high: u16) -> ServiceMatch {
    ServiceMatch { protocol: Some(protocol), ports: Some((low, high)), icmp: None }
}

pub(crate) fn protocol(protocol: u8) -> ServiceMatch {
    ServiceMatch { protocol: Some(protocol), ..ServiceMatch::default() }
}

pub(crate) fn icmp(protocol: u8, kind: u8, code: Option<u8>) -> ServiceMatch {
    ServiceMatch { protocol: Some(protocol), ports: None, icmp: Some((kind, code)) }
}

pub(crate) fn rule(id: u32, action: Action) -> RuleConfig {
    RuleConfig {
        id,
        name: format!("rule-{id}").into(),
        direction: None,
        action,
        from: Vec::new(),
        to: Vec::new(),
        services: Vec::new(),
        log: false,
        keep_established: false,
    }
}

/// The rule, with its direction and its peers.
pub(crate) fn between(rule: RuleConfig, direction: Option<Direction>, from: &str, to: &str) -> RuleConfig {
    RuleConfig { direction, from: peers(from), to: peers(to), ..rule }
}

/// An enforced policy of tier application and priority 100.
pub(crate) fn policy(name: &str, applies_to: &str, rules: Vec<RuleConfig>) -> FirewallPolicyConfig {
    FirewallPolicyConfig {
        name: name.into(),
        revision: 7,
        tier: Tier::Application,
        priority: 100,
        audit: false,
        applies_to: peers(applies_to),
        rules,
    }
}

pub(crate) fn config(
    groups: Vec<GroupConfig>,
    policies: Vec<FirewallPolicyConfig>,
    identities: Vec<IdentityConfig>,
    endpoints: &[(u32, &str)],
) -> PolicyConfig {
    PolicyConfig {
        rules: Arc::new(RulesConfig { groups, policies }),
        identities,
        endpoints: endpoints.iter().map(|(id, text)| (*id, address(text))).collect(),
    }
}
