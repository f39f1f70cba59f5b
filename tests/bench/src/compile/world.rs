//! A made-up data centre: workloads in groups, and firewall policies that name them. The same for the same size.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use pipeline::policy::{
    Action, Direction, FirewallPolicyConfig, GroupConfig, IdentityConfig, Peer, PolicyConfig, RuleConfig,
    RulesConfig, Service, ServiceMatch, Tier,
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Rules of one policy.
const RULES: usize = 10;
/// Groups that hold a great part of all workloads, as `env = prod` does; each workload is in one.
const ENVIRONMENTS: u32 = 4;
/// Groups like `tier = web`; each workload is in one.
const TIERS: u32 = 40;
/// Besides, each workload is in this many of the other groups: 5 in all.
const OTHERS: u32 = 3;
/// Every so many of the groups holds networks as well.
const WITH_NETWORKS: usize = 40;
/// Ports that rules name.
const PORTS: u64 = 400;

/// SplitMix64 (Steele et al., 2014).
#[derive(Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) rules: usize,
    pub(crate) groups: u32,
    pub(crate) workloads: u32,
}

/// A configuration of that size; every workload has an identity of its own.
pub(crate) fn config(size: Size) -> PolicyConfig {
    let mut chance = Chance(size.rules as u64);
    let groups = (0..size.groups as usize).map(|number| group(number, &mut chance)).collect();
    let policies = (0..size.rules / RULES - 1).map(|number| policy(number, size, &mut chance));
    let policies = policies.chain([baseline(size)]).collect();
    let identities = (1..=size.workloads).map(|id| identity(id, size, &mut chance)).collect();
    let endpoints = (1..=size.workloads).flat_map(|id| addresses(id).map(|address| (id, address))).collect();
    PolicyConfig { rules: Arc::new(RulesConfig { groups, policies }), identities, endpoints }
}

/// An identity in an environment, a tier and a few other groups.
pub(crate) fn identity(id: u32, size: Size, chance: &mut Chance) -> IdentityConfig {
    let first_other = ENVIRONMENTS + TIERS;
    let mut groups = vec![
        // The first has half of all workloads, the second a quarter, …
        chance.below(1 << ENVIRONMENTS).trailing_zeros().min(ENVIRONMENTS - 1),
        ENVIRONMENTS + chance.below(u64::from(TIERS)) as u32,
    ];
    for _ in 0..OTHERS {
        groups.push(first_other + chance.below(u64::from(size.groups - first_other)) as u32);
    }
    groups.sort_unstable();
    groups.dedup();
    IdentityConfig { id, groups }
}

/// The IPv4 address and the link-local address of a workload.
pub(crate) fn addresses(id: u32) -> [IpAddr; 2] {
    let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + id);
    let v6 = Ipv6Addr::from([0xfe80, 0, 0, 0, 0, 0xff_fe, (id >> 16) as u16, id as u16]);
    [IpAddr::V4(v4), IpAddr::V6(v6)]
}

/// A service that rules may name, or another.
pub(crate) fn service(chance: &mut Chance) -> Service {
    let protocol = if chance.percent(80) { TCP } else { UDP };
    Service::port(protocol, port(chance) + u16::from(chance.percent(10)))
}

fn port(chance: &mut Chance) -> u16 {
    1 + 97 * chance.below(PORTS) as u16
}

fn network(chance: &mut Chance) -> (IpAddr, u8) {
    let bits = chance.below(1 << 32) as u32;
    let prefix = 8 + 4 * chance.below(6) as u8;
    // Half of them hold workloads.
    let bits =
        if chance.percent(50) { Ipv4Addr::new(10, 0, (bits >> 8) as u8, bits as u8).to_bits() } else { bits };
    (IpAddr::V4(Ipv4Addr::from_bits(bits)), prefix)
}

fn group(number: usize, chance: &mut Chance) -> GroupConfig {
    let networks = if number % WITH_NETWORKS == WITH_NETWORKS - 1 { 4 } else { 0 };
    GroupConfig {
        name: format!("group-{number}").into(),
        cidrs: (0..networks).map(|_| network(chance)).collect(),
    }
}

fn some_group(size: Size, chance: &mut Chance) -> Peer {
    let number = match chance.below(100) {
        0..5 => chance.below(u64::from(ENVIRONMENTS)),
        5..20 => u64::from(ENVIRONMENTS) + chance.below(u64::from(TIERS)),
        _ => chance.below(u64::from(size.groups)),
    };
    Peer::Group(number as u32)
}

/// Nobody named, one or two groups, or a network.
fn side(size: Size, chance: &mut Chance) -> Vec<Peer> {
    match chance.below(100) {
        0..30 => Vec::new(),
        30..75 => vec![some_group(size, chance)],
        75..95 => vec![some_group(size, chance), some_group(size, chance)],
        _ => {
            let (address, prefix) = network(chance);
            vec![Peer::Cidr(address, prefix)]
        }
    }
}

fn policy(number: usize, size: Size, chance: &mut Chance) -> FirewallPolicyConfig {
    let applies_to = match chance.below(100) {
        0..10 => vec![Peer::Any],
        10..70 => vec![some_group(size, chance)],
        _ => vec![some_group(size, chance), some_group(size, chance)],
    };
    let rule = |place, chance: &mut Chance| {
        let direction = [None, Some(Direction::In), Some(Direction::Out)][chance.below(3) as usize];
        let action = [Action::Allow, Action::Allow, Action::Drop, Action::Reject][chance.below(4) as usize];
        let services = (0..1 + chance.below(2)).map(|_| some_service(chance)).collect();
        let (from, to) = (side(size, chance), side(size, chance));
        rule((number * RULES + place) as u32, direction, action, from, to, services)
    };
    let rules = (0..RULES).map(|place| rule(place, chance)).collect();
    FirewallPolicyConfig {
        name: format!("policy-{number}").into(),
        revision: 1,
        tier: [Tier::Security, Tier::Application][usize::from(chance.percent(80))],
        priority: chance.below(10) as u32,
        audit: chance.percent(2),
        applies_to,
        rules,
    }
}

fn some_service(chance: &mut Chance) -> ServiceMatch {
    let protocol = if chance.percent(80) { TCP } else { UDP };
    let low = port(chance);
    let high = if chance.percent(10) { low.saturating_add(chance.below(2000) as u16) } else { low };
    ServiceMatch { protocol: Some(protocol), ports: Some((low, high)), icmp: None }
}

fn rule(
    id: u32,
    direction: Option<Direction>,
    action: Action,
    from: Vec<Peer>,
    to: Vec<Peer>,
    services: Vec<ServiceMatch>,
) -> RuleConfig {
    let name = format!("rule-{id}").into();
    RuleConfig { id, name, direction, action, from, to, services, log: false, keep_established: false }
}

/// What decides when nothing else does.
fn baseline(size: Size) -> FirewallPolicyConfig {
    let dns = [TCP, UDP].map(|protocol| ServiceMatch {
        protocol: Some(protocol),
        ports: Some((53, 53)),
        ..ServiceMatch::default()
    });
    let first = size.rules as u32;
    let plain =
        |id, direction, action, services| rule(id, Some(direction), action, Vec::new(), Vec::new(), services);
    FirewallPolicyConfig {
        name: "baseline".into(),
        revision: 1,
        tier: Tier::Baseline,
        priority: 0,
        audit: false,
        applies_to: vec![Peer::Any],
        rules: vec![
            plain(first, Direction::In, Action::Allow, dns.into()),
            plain(first + 1, Direction::Out, Action::Allow, Vec::new()),
            plain(first + 2, Direction::In, Action::Drop, Vec::new()),
        ],
    }
}
