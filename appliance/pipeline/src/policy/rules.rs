//! The compiled rules: everything that does not depend on who has which identity.
//!
//! A rule matches when three things are true: the local port is one that it speaks of, the remote side is, and the
//! service is. The first two depend on the members of groups; they are kept here as, for every group, the rules that
//! being in it fulfils. [`Endpoints`](super::endpoints::Endpoints) unites them for each set of groups.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::addresses::{Addresses, masked};
use super::members::{Members, MembersBuilder, WordList};
use super::rule_set::{MOST_RULES, RuleSet, Shape};
use super::services::{Services, ServicesBuilder, has_ports, has_types};
use super::{
    Action, Direction, FirewallPolicyConfig, Peer, PolicyError, Rule, RuleConfig, RuleId, RulesConfig,
    ServiceMatch,
};

/// Groups, and networks that rules name without a group.
const MOST_GROUPS: usize = 1 << 16;

/// The compiled rules.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) config: Arc<RulesConfig>,
    /// In order of judgement.
    pub(super) table: Box<[Rule]>,
    pub(super) actions: Box<[Action]>,
    /// The place of each rule's policy in the order of judgement.
    pub(super) policies: Box<[u32]>,
    /// Rules of audit policies.
    pub(super) audit: RuleSet,
    pub(super) shape: Shape,
    pub(super) sides: [Sides; 2],
    pub(super) services: Services,
    pub(super) addresses: Addresses,
}

/// The rules that count in one direction, by whom they speak of.
#[derive(Debug)]
pub(super) struct Sides {
    pub(super) local: LocalSide,
    /// Rules that ask for no group.
    pub(super) remote: RuleSet,
    pub(super) remote_members: Members,
}

/// Which rules speak of a local port: those whose policy applies to it and whose own local side it is.
#[derive(Debug)]
pub(super) struct LocalSide {
    /// Neither asks for any group.
    pub(super) everybody: RuleSet,
    /// One of both asks for these groups.
    pub(super) members: Members,
    /// Both ask for groups: this is what the policy asks for, …
    pub(super) applies: Members,
    /// … and this the rule.
    pub(super) own: Members,
}

impl Rules {
    /// Compiles rules.
    pub(super) fn new(config: &Arc<RulesConfig>) -> Result<Self, PolicyError> {
        let order = in_order(&config.policies);
        let count = config.policies.iter().map(|policy| policy.rules.len()).sum();
        at_most("rules", count, MOST_RULES)?;
        let groups = Groups::new(config, &order)?;
        at_most("groups and networks named by rules", groups.count(), MOST_GROUPS)?;
        let shape = Shape::of(count);
        let mut builder = Builder::new(groups, shape);
        for (place, policy) in order.iter().enumerate() {
            builder.policy(place as u32, policy)?;
        }
        refuse_duplicates(&builder.table)?;
        builder.build(config, shape)
    }

    /// The name of a group; networks that rules name without a group have none.
    pub(super) fn group_name(&self, group: u32) -> Option<&str> {
        self.config.groups.get(group as usize).map(|group| &*group.name)
    }

    /// Bytes, without the names and the configuration.
    pub(super) fn size(&self) -> usize {
        let sides = self.sides.iter().map(|sides| {
            let LocalSide { everybody, members, applies, own } = &sides.local;
            let members = [members, applies, own, &sides.remote_members];
            members.map(Members::size).iter().sum::<usize>() + everybody.size() + sides.remote.size()
        });
        self.table.len() * (size_of::<Rule>() + size_of::<Action>() + size_of::<u32>())
            + self.audit.size()
            + sides.sum::<usize>()
            + self.services.size()
            + self.addresses.size()
    }
}

/// Policies in order of judgement.
fn in_order(policies: &[FirewallPolicyConfig]) -> Vec<&FirewallPolicyConfig> {
    let mut order: Vec<_> = policies.iter().collect();
    order.sort_by(|a, b| (a.tier, a.priority, &a.name).cmp(&(b.tier, b.priority, &b.name)));
    order
}

fn at_most(what: &'static str, have: usize, most: usize) -> Result<(), PolicyError> {
    if have > most { Err(PolicyError::TooMany { what, have, most }) } else { Ok(()) }
}

fn refuse_duplicates(table: &[Rule]) -> Result<(), PolicyError> {
    let mut ids: Vec<u32> = table.iter().map(|rule| rule.id.0).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(PolicyError::DuplicateRule { id: pair[0] }),
        None => Ok(()),
    }
}

/// Groups by number, and behind them every network that a rule names without a group.
struct Groups<'a> {
    config: &'a RulesConfig,
    networks: BTreeMap<(IpAddr, u8), u32>,
}

/// Whom a list of peers means.
enum Whom {
    Everybody,
    Members(Vec<u32>),
}

impl<'a> Groups<'a> {
    fn new(config: &'a RulesConfig, order: &[&FirewallPolicyConfig]) -> Result<Self, PolicyError> {
        let mut this = Self { config, networks: BTreeMap::new() };
        for policy in order {
            let rules = policy.rules.iter().flat_map(|rule| rule.from.iter().chain(&rule.to));
            for peer in policy.applies_to.iter().chain(rules) {
                if let Peer::Cidr(address, prefix) = peer {
                    let next = this.count() as u32;
                    this.networks.entry((masked(*address, *prefix)?, *prefix)).or_insert(next);
                }
            }
        }
        Ok(this)
    }

    fn count(&self) -> usize {
        self.config.groups.len() + self.networks.len()
    }

    /// Networks, with the number of the group or peer that holds them.
    fn addresses(&self) -> Result<Addresses, PolicyError> {
        let groups = self.config.groups.iter().enumerate().flat_map(|(number, group)| {
            group.cidrs.iter().map(move |(address, prefix)| (*address, *prefix, number as u32))
        });
        let peers = self.networks.iter().map(|((address, prefix), number)| (*address, *prefix, *number));
        Addresses::new(groups.chain(peers))
    }

    fn resolve(&self, policy: &Arc<str>, peers: &[Peer]) -> Result<Whom, PolicyError> {
        let mut members = Vec::with_capacity(peers.len());
        let mut everybody = false;
        for peer in peers {
            match *peer {
                Peer::Any => everybody = true,
                Peer::Group(group) if (group as usize) < self.config.groups.len() => members.push(group),
                Peer::Group(group) => {
                    let have = self.config.groups.len();
                    return Err(PolicyError::UnknownGroup { policy: Arc::clone(policy), group, have });
                }
                Peer::Cidr(address, prefix) => {
                    members.extend(self.networks.get(&(masked(address, prefix)?, prefix)))
                }
            }
        }
        members.sort_unstable();
        members.dedup();
        Ok(if everybody { Whom::Everybody } else { Whom::Members(members) })
    }

    /// For the sides of a rule, where nobody named means everybody.
    fn resolve_side(&self, policy: &Arc<str>, peers: &[Peer]) -> Result<Whom, PolicyError> {
        if peers.is_empty() { Ok(Whom::Everybody) } else { self.resolve(policy, peers) }
    }
}

/// Collects the rules in order of judgement.
struct Builder<'a> {
    groups: Groups<'a>,
    table: Vec<Rule>,
    policies: Vec<u32>,
    audit: RuleSet,
    sides: [SidesBuilder; 2],
    services: ServicesBuilder,
}

impl<'a> Builder<'a> {
    fn new(groups: Groups<'a>, shape: Shape) -> Self {
        let sides = [(); 2].map(|()| SidesBuilder::new(groups.count(), shape));
        Self {
            groups,
            table: Vec::new(),
            policies: Vec::new(),
            audit: RuleSet::new(shape),
            sides,
            services: ServicesBuilder::default(),
        }
    }

    fn policy(&mut self, place: u32, policy: &FirewallPolicyConfig) -> Result<(), PolicyError> {
        let applies = self.groups.resolve(&policy.name, &policy.applies_to)?;
        for rule in &policy.rules {
            let index = self.table.len() as u32;
            let (from, to) = (
                self.groups.resolve_side(&policy.name, &rule.from)?,
                self.groups.resolve_side(&policy.name, &rule.to)?,
            );
            let [inward, outward] = &mut self.sides;
            if rule.direction != Some(Direction::Out) {
                inward.rule(index, &applies, &to, &from);
            }
            if rule.direction != Some(Direction::In) {
                outward.rule(index, &applies, &from, &to);
            }
            self.services(index, policy, rule)?;
            if policy.audit {
                self.audit.insert(index);
            }
            self.policies.push(place);
            self.table.push(Rule {
                id: RuleId(rule.id),
                name: Arc::clone(&rule.name),
                policy: Arc::clone(&policy.name),
                tier: policy.tier,
                revision: policy.revision,
                action: rule.action,
                log: rule.log,
                keep_established: rule.keep_established,
                audit: policy.audit,
            });
        }
        self.sides.iter_mut().try_for_each(|sides| sides.policy_ends(&applies))
    }

    fn services(
        &mut self,
        index: u32,
        policy: &FirewallPolicyConfig,
        rule: &RuleConfig,
    ) -> Result<(), PolicyError> {
        if rule.services.is_empty() {
            self.services.everything(index);
        }
        for ServiceMatch { protocol, ports, icmp } in rule.services.iter().copied() {
            let names = || (Arc::clone(&policy.name), Arc::clone(&rule.name));
            if ports.is_some() && !has_ports(protocol) {
                let (policy, rule) = names();
                return Err(PolicyError::PortsWithoutProtocol { policy, rule, protocol });
            }
            if icmp.is_some() && !has_types(protocol) {
                let (policy, rule) = names();
                return Err(PolicyError::TypeWithoutIcmp { policy, rule, protocol });
            }
            if let Some((low, high)) = ports.filter(|(low, high)| low > high) {
                let (policy, rule) = names();
                return Err(PolicyError::PortRange { policy, rule, low, high });
            }
            let types = icmp.map(|(kind, code)| {
                let bound = |code: u8| u16::from_be_bytes([kind, code]);
                (bound(code.unwrap_or(0)), bound(code.unwrap_or(u8::MAX)))
            });
            match (protocol, ports.or(types)) {
                (None, _) => self.services.everything(index),
                (Some(protocol), None) => self.services.protocol(protocol, index),
                (Some(protocol), Some(range)) => self.services.range(protocol, range, index),
            }
        }
        Ok(())
    }

    fn build(self, config: &Arc<RulesConfig>, shape: Shape) -> Result<Rules, PolicyError> {
        Ok(Rules {
            config: Arc::clone(config),
            actions: self.table.iter().map(|rule| rule.action).collect(),
            services: self.services.build(self.table.len(), shape)?,
            table: self.table.into(),
            policies: self.policies.into(),
            audit: self.audit,
            shape,
            sides: self.sides.map(SidesBuilder::build),
            addresses: self.groups.addresses()?,
        })
    }
}

/// Collects the rules of one direction.
struct SidesBuilder {
    local_everybody: RuleSet,
    remote_everybody: RuleSet,
    local: MembersBuilder,
    applies: MembersBuilder,
    own: MembersBuilder,
    remote: MembersBuilder,
    /// Rules of the policy at hand, which asks for groups, that ask for no group themselves.
    of_policy: WordList,
    /// Those that do.
    of_policy_and_rule: WordList,
}

impl SidesBuilder {
    fn new(groups: usize, shape: Shape) -> Self {
        Self {
            local_everybody: RuleSet::new(shape),
            remote_everybody: RuleSet::new(shape),
            local: MembersBuilder::new(groups),
            applies: MembersBuilder::new(groups),
            own: MembersBuilder::new(groups),
            remote: MembersBuilder::new(groups),
            of_policy: WordList::default(),
            of_policy_and_rule: WordList::default(),
        }
    }

    fn rule(&mut self, rule: u32, applies: &Whom, local: &Whom, remote: &Whom) {
        match remote {
            Whom::Everybody => self.remote_everybody.insert(rule),
            Whom::Members(members) => self.remote.rule(members, rule),
        }
        match (applies, local) {
            (Whom::Everybody, Whom::Everybody) => self.local_everybody.insert(rule),
            (Whom::Everybody, Whom::Members(members)) => self.local.rule(members, rule),
            (Whom::Members(_), Whom::Everybody) => self.of_policy.insert(rule),
            (Whom::Members(_), Whom::Members(members)) => {
                self.of_policy_and_rule.insert(rule);
                self.own.rule(members, rule);
            }
        }
    }

    fn policy_ends(&mut self, applies: &Whom) -> Result<(), PolicyError> {
        let (direct, both) =
            (core::mem::take(&mut self.of_policy), core::mem::take(&mut self.of_policy_and_rule));
        if let Whom::Members(members) = applies {
            self.local.words(members, &direct)?;
            self.applies.words(members, &both)?;
        }
        Ok(())
    }

    fn build(self) -> Sides {
        let local = LocalSide {
            everybody: self.local_everybody,
            members: self.local.build(),
            applies: self.applies.build(),
            own: self.own.build(),
        };
        Sides { local, remote: self.remote_everybody, remote_members: self.remote.build() }
    }
}
