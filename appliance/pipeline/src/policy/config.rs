//! What a policy is compiled from.

use core::net::IpAddr;
use std::sync::Arc;

use super::{Action, Direction, Tier};

/// Everything that decides who may talk to whom.
#[derive(Clone, Debug, Default)]
pub struct PolicyConfig {
    /// Groups and rules. Handed in behind the same `Arc` as last time, they are known to be unchanged without a look.
    pub rules: Arc<RulesConfig>,
    /// Distinct sets of groups that workloads are in by name, label or listing, in any order. Identity 0 is in no
    /// group and need not be given.
    pub identities: Vec<IdentityConfig>,
    /// Every address that a workload is known to have, with its identity: what
    /// [`Policy::endpoint`](super::Policy::endpoint) can be asked for. In any order; repetitions are harmless.
    pub endpoints: Vec<(u32, IpAddr)>,
}

/// Groups, and the firewall policies that name them by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesConfig {
    /// Groups; a group's number is its place here.
    pub groups: Vec<GroupConfig>,
    /// Firewall policies. They are judged by tier, then priority, then name, however they are ordered here.
    pub policies: Vec<FirewallPolicyConfig>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Its name, for people.
    pub name: Arc<str>,
    /// Every address in one of these networks is a member, besides the workloads whose identity says so. Address and
    /// prefix length; bits behind the prefix do not matter.
    pub cidrs: Vec<(IpAddr, u8)>,
}

/// One distinct set of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityConfig {
    /// Its number, stable over revisions.
    pub id: u32,
    /// Numbers of its groups, in any order.
    pub groups: Vec<u32>,
}

/// A firewall policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirewallPolicyConfig {
    /// Its name, for people; policies of one tier and priority are judged in the order of their names.
    pub name: Arc<str>,
    /// The revision at which it was last changed.
    pub revision: u64,
    /// The tier in which it is judged.
    pub tier: Tier,
    /// Lower numbers are judged first within a tier.
    pub priority: u32,
    /// Whether it only reports what it would do.
    pub audit: bool,
    /// The ports that it protects: those whose endpoint is one of these. None means no port at all.
    pub applies_to: Vec<Peer>,
    /// Its rules, in order of judgement.
    pub rules: Vec<RuleConfig>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleConfig {
    /// Its number, stable over revisions.
    pub id: u32,
    /// Its name, for people.
    pub name: Arc<str>,
    /// The direction that it speaks of, seen from the port; `None` means both.
    pub direction: Option<Direction>,
    /// What becomes of traffic that matches.
    pub action: Action,
    /// Who sends: the remote side of what comes in, the port itself of what goes out. None means everybody.
    pub from: Vec<Peer>,
    /// Who receives: the port itself of what comes in, the remote side of what goes out. None means everybody.
    pub to: Vec<Peer>,
    /// Which services. None means all.
    pub services: Vec<ServiceMatch>,
    /// Whether what it decides is told to the log.
    pub log: bool,
    /// Whether flows that it has admitted stay when a later revision forbids them.
    pub keep_established: bool,
}

/// One side of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Everybody.
    Any,
    /// The members of a group, by its number.
    Group(u32),
    /// Every address of a network: address and prefix length; bits behind the prefix do not matter.
    Cidr(IpAddr, u8),
}

/// Some services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceMatch {
    /// IP protocol number; `None` means every protocol.
    pub protocol: Option<u8>,
    /// Lowest and highest destination port; only for TCP (6), UDP (17) and SCTP (132). A packet without ports, such as
    /// a later fragment, does not match.
    pub ports: Option<(u16, u16)>,
    /// Type and, if it matters, code; only for ICMP (1) and ICMPv6 (58).
    pub icmp: Option<(u8, Option<u8>)>,
}
