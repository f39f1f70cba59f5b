//! The firewall's part of a slice, as the pipeline is told of it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mgmt_types::agent::{self, FlowTimeouts, Slice, SlicePolicy, SliceRule};
use mgmt_types::{PolicyMode, RuleAction, RuleDirection};
use pipeline::conntrack::timeouts::Timeouts;
use pipeline::link_local;
use pipeline::policy::{
    Action, Direction, FirewallPolicyConfig, GroupConfig, IdentityConfig, Peer, Policy, PolicyConfig,
    PolicyError, RuleConfig, RulesConfig, ServiceMatch, Tier,
};

/// Compiles groups, identities and policies. What did not change is shared with `previous`.
///
/// # Errors
/// What contradicts itself.
pub(super) fn policy(slice: &Slice, previous: Option<&Policy>) -> Result<Arc<Policy>, PolicyError> {
    let groups = slice.groups.iter().map(|group| GroupConfig {
        name: group.name.as_str().into(),
        cidrs: group.cidrs.iter().map(network).collect(),
    });
    let rules = RulesConfig {
        groups: groups.collect(),
        policies: slice.policies.iter().map(firewall_policy).collect(),
    };
    let identities = slice
        .identities
        .iter()
        .map(|identity| IdentityConfig { id: identity.id, groups: identity.groups.clone() });
    let endpoints = slice.ports.iter().flat_map(|port| {
        let own = IpAddr::V6(link_local(port.mac.octets()));
        port.addresses.iter().copied().chain([own]).map(|address| (port.identity, address))
    });
    let config = PolicyConfig {
        rules: Arc::new(rules),
        identities: identities.collect(),
        endpoints: endpoints.collect(),
    };
    Policy::compile(&config, previous).map(Arc::new)
}

/// The timeouts that a slice asks for, the pipeline's own where it says nothing.
pub(crate) fn timeouts(asked: &FlowTimeouts) -> Timeouts {
    let mut timeouts = Timeouts::default();
    for (field, asked) in [
        (&mut timeouts.tcp_opening, asked.tcp_opening),
        (&mut timeouts.tcp_established, asked.tcp_established),
        (&mut timeouts.tcp_closing, asked.tcp_closing),
        (&mut timeouts.udp_unreplied, asked.udp_unreplied),
        (&mut timeouts.udp_replied, asked.udp_replied),
        (&mut timeouts.icmp_query, asked.icmp),
        (&mut timeouts.other_replied, asked.other),
    ] {
        *field = asked.unwrap_or(*field);
    }
    timeouts
}

fn firewall_policy(policy: &SlicePolicy) -> FirewallPolicyConfig {
    FirewallPolicyConfig {
        name: policy.name.as_str().into(),
        revision: policy.revision,
        tier: match policy.tier {
            mgmt_types::Tier::Emergency => Tier::Emergency,
            mgmt_types::Tier::Security => Tier::Security,
            mgmt_types::Tier::Network => Tier::Network,
            mgmt_types::Tier::Platform => Tier::Platform,
            mgmt_types::Tier::Application => Tier::Application,
            mgmt_types::Tier::Baseline => Tier::Baseline,
        },
        priority: policy.priority,
        audit: policy.mode == PolicyMode::Audit,
        applies_to: policy.applies_to.iter().map(peer).collect(),
        rules: policy.rules.iter().map(rule).collect(),
    }
}

fn rule(rule: &SliceRule) -> RuleConfig {
    RuleConfig {
        id: rule.id,
        name: rule.name.as_str().into(),
        direction: rule.direction.map(|direction| match direction {
            RuleDirection::In => Direction::In,
            RuleDirection::Out => Direction::Out,
        }),
        action: match rule.action {
            RuleAction::Allow => Action::Allow,
            RuleAction::Drop => Action::Drop,
            RuleAction::Reject => Action::Reject,
        },
        from: rule.from.iter().map(peer).collect(),
        to: rule.to.iter().map(peer).collect(),
        services: rule
            .services
            .iter()
            .map(|service| ServiceMatch {
                protocol: service.protocol,
                ports: service.ports,
                icmp: service.icmp,
            })
            .collect(),
        log: rule.log,
        keep_established: rule.keep_established,
    }
}

fn peer(peer: &agent::Peer) -> Peer {
    match peer {
        agent::Peer::Any => Peer::Any,
        agent::Peer::Group(group) => Peer::Group(*group),
        agent::Peer::Cidr(cidr) => Peer::Cidr(cidr.addr(), cidr.prefix_len()),
    }
}

fn network(cidr: &IpNet) -> (IpAddr, u8) {
    (cidr.addr(), cidr.prefix_len())
}
