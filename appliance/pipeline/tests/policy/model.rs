//! A slow and obvious model: walks all rules, and asks every network of every group.

use std::net::IpAddr;

use pipeline::policy::{
    Action, Direction, FirewallPolicyConfig, Peer, PolicyConfig, RuleConfig, RuleId, Service, ServiceMatch,
};

/// Somebody: the identity, and the address if there is one.
pub(crate) type Somebody = (u32, Option<IpAddr>);

/// The deciding rule, its action, and what an audit policy would have done.
pub(crate) type Outcome = (Option<RuleId>, Action, Option<(RuleId, Action)>);

pub(crate) fn judge(
    config: &PolicyConfig,
    direction: Direction,
    local: Somebody,
    remote: Somebody,
    service: Service,
) -> Outcome {
    let mut policies: Vec<&FirewallPolicyConfig> = config.rules.policies.iter().collect();
    policies.sort_by_key(|policy| (policy.tier, policy.priority, policy.name.to_string()));
    let mut trials = Vec::new();
    let mut decided = (None, Action::Drop);
    for policy in policies {
        if !policy.applies_to.iter().any(|peer| is(config, local, peer)) {
            continue;
        }
        let matching = |rule: &&RuleConfig| matches(config, rule, direction, local, remote, service);
        let Some(rule) = policy.rules.iter().find(matching) else { continue };
        if policy.audit {
            trials.push((RuleId(rule.id), rule.action));
        } else {
            decided = (Some(RuleId(rule.id)), rule.action);
            break;
        }
    }
    let passes = |action: Action| action == Action::Allow;
    let would = trials.into_iter().find(|(_, action)| passes(*action) != passes(decided.1));
    (decided.0, decided.1, would)
}

/// Names of the groups that somebody is in.
pub(crate) fn groups_of(config: &PolicyConfig, somebody: Somebody) -> Vec<&str> {
    let groups = config.rules.groups.iter().enumerate();
    let mine = groups.filter(|(number, _)| is(config, somebody, &Peer::Group(*number as u32)));
    mine.map(|(_, group)| &*group.name).collect()
}

fn matches(
    config: &PolicyConfig,
    rule: &RuleConfig,
    direction: Direction,
    local: Somebody,
    remote: Somebody,
    service: Service,
) -> bool {
    let (from, to) = match direction {
        Direction::In => (remote, local),
        Direction::Out => (local, remote),
    };
    let one_of = |peers: &[Peer], who| peers.is_empty() || peers.iter().any(|peer| is(config, who, peer));
    rule.direction.is_none_or(|only| only == direction)
        && one_of(&rule.from, from)
        && one_of(&rule.to, to)
        && (rule.services.is_empty() || rule.services.iter().any(|wanted| serves(wanted, service)))
}

fn serves(wanted: &ServiceMatch, service: Service) -> bool {
    if wanted.protocol.is_some_and(|protocol| protocol != service.protocol) {
        return false;
    }
    match (wanted.ports, wanted.icmp, service.port) {
        (None, None, _) => true,
        (_, _, None) => false,
        (Some((low, high)), _, Some(port)) => (low..=high).contains(&port),
        (None, Some((kind, code)), Some(port)) => {
            let [its_kind, its_code] = port.to_be_bytes();
            its_kind == kind && code.is_none_or(|code| code == its_code)
        }
    }
}

fn is(config: &PolicyConfig, (id, address): Somebody, peer: &Peer) -> bool {
    match peer {
        Peer::Any => true,
        Peer::Cidr(network, prefix) => address.is_some_and(|address| holds(*network, *prefix, address)),
        Peer::Group(group) => {
            let listed = config.identities.iter().any(|other| other.id == id && other.groups.contains(group));
            let cidrs = &config.rules.groups[*group as usize].cidrs;
            let inside = |address| cidrs.iter().any(|(network, prefix)| holds(*network, *prefix, address));
            listed || address.is_some_and(inside)
        }
    }
}

/// Bit by bit.
fn holds(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    fn bit(bytes: &[u8], place: usize) -> u8 {
        bytes[place / 8] >> (7 - place % 8) & 1
    }
    let same = |a: &[u8], b: &[u8]| (0..usize::from(prefix)).all(|place| bit(a, place) == bit(b, place));
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(&a.octets(), &b.octets()),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(&a.octets(), &b.octets()),
        _ => false,
    }
}
