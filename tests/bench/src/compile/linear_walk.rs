//! The peer: walks the rules in order until one matches. Membership is known beforehand, as a bit per group; so a rule
//! costs a few comparisons.

use std::net::IpAddr;

use pipeline::policy::{
    Action, Direction, FirewallPolicyConfig, Peer, PolicyConfig, RuleConfig, RuleId, Service, ServiceMatch,
};

/// All rules in order of judgement.
pub(crate) struct LinearWalk<'a> {
    policies: Vec<&'a FirewallPolicyConfig>,
}

/// Somebody, by groups and address.
#[derive(Debug)]
pub(crate) struct Somebody {
    groups: Vec<u64>,
    address: IpAddr,
}

impl Somebody {
    /// In the groups of an identity and in those whose networks hold the address.
    pub(crate) fn new(config: &PolicyConfig, identity: &[u32], address: IpAddr) -> Self {
        let all = &config.rules.groups;
        let mut groups = vec![0; all.len().div_ceil(64)];
        for (number, group) in all.iter().enumerate() {
            let inside = group.cidrs.iter().any(|(network, prefix)| holds(*network, *prefix, address));
            if inside || identity.contains(&(number as u32)) {
                groups[number / 64] |= 1 << (number % 64);
            }
        }
        Self { groups, address }
    }

    fn is_one_of(&self, peers: &[Peer]) -> bool {
        peers.iter().any(|peer| match *peer {
            Peer::Any => true,
            Peer::Group(group) => self.groups[group as usize / 64] >> (group % 64) & 1 == 1,
            Peer::Cidr(network, prefix) => holds(network, prefix, self.address),
        })
    }
}

impl<'a> LinearWalk<'a> {
    pub(crate) fn new(config: &'a PolicyConfig) -> Self {
        let mut policies: Vec<_> = config.rules.policies.iter().collect();
        policies.sort_by(|a, b| (a.tier, a.priority, &a.name).cmp(&(b.tier, b.priority, &b.name)));
        Self { policies }
    }

    /// The rule that decides, and what it decides.
    pub(crate) fn judge(
        &self,
        direction: Direction,
        local: &Somebody,
        remote: &Somebody,
        service: Service,
    ) -> (Option<RuleId>, Action) {
        for policy in &self.policies {
            if policy.audit || !local.is_one_of(&policy.applies_to) {
                continue;
            }
            let rule = policy.rules.iter().find(|rule| matches(rule, direction, local, remote, service));
            if let Some(rule) = rule {
                return (Some(RuleId(rule.id)), rule.action);
            }
        }
        (None, Action::Drop)
    }
}

fn matches(
    rule: &RuleConfig,
    direction: Direction,
    local: &Somebody,
    remote: &Somebody,
    service: Service,
) -> bool {
    let (from, to) = match direction {
        Direction::In => (remote, local),
        Direction::Out => (local, remote),
    };
    rule.direction.is_none_or(|only| only == direction)
        && (rule.services.is_empty() || rule.services.iter().any(|wanted| serves(wanted, service)))
        && (rule.from.is_empty() || from.is_one_of(&rule.from))
        && (rule.to.is_empty() || to.is_one_of(&rule.to))
}

/// The rules here name no ICMP types.
fn serves(wanted: &ServiceMatch, service: Service) -> bool {
    wanted.protocol.is_none_or(|protocol| protocol == service.protocol)
        && wanted.ports.is_none_or(|(low, high)| service.port.is_some_and(|port| low <= port && port <= high))
}

fn holds(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(prefix),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(prefix),
        _ => false,
    }
}
