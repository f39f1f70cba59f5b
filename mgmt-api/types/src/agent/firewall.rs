//! The firewall's part of a slice: groups, identities and policies that can touch the host's ports.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{PolicyMode, RuleAction, RuleDirection, Tier};

/// A group that a policy of the slice names. Its place in [`Slice::groups`](super::Slice::groups) is its number
/// within this slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceGroup {
    /// Its name.
    pub name: String,
    /// Addresses that belong to it beside its workloads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub cidrs: Vec<IpNet>,
}

/// One distinct set of groups that some port of the slice has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceIdentity {
    /// Given by the manager, never used again for another set; 0 is the empty set and is not listed.
    pub id: u32,
    /// Numbers of its groups within this slice, ascending. Groups that no policy of the slice names are left out.
    pub groups: Vec<u32>,
}

/// A policy that applies to some local port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlicePolicy {
    /// Its name.
    pub name: String,
    /// The revision that last changed it.
    pub revision: u64,
    /// Its tier.
    pub tier: Tier,
    /// Its priority within the tier: the lower number is judged first.
    pub priority: u32,
    /// Whether it decides or only tells.
    #[serde(default)]
    pub mode: PolicyMode,
    /// Whom it applies to: a port that is one of these.
    pub applies_to: Vec<Peer>,
    /// Its rules, in order of judgement.
    pub rules: Vec<SliceRule>,
}

/// One rule with everything resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceRule {
    /// Given by the manager: stable for the life of the rule, never used again for another.
    pub id: u32,
    /// Its name within the policy.
    pub name: String,
    /// The way it looks at; both when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<RuleDirection>,
    /// What it does.
    pub action: RuleAction,
    /// Who opens the connection; everybody when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Peer>,
    /// Whom it is opened to; everybody when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Peer>,
    /// Which services; every one when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceMatch>,
    /// Write a line for each flow it decides.
    #[serde(default, skip_serializing_if = "is_false")]
    pub log: bool,
    /// A flow it admitted lives on when a later policy forbids it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep_established: bool,
}

/// One side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Peer {
    /// Everybody.
    Any,
    /// The group of this number within the slice.
    Group(u32),
    /// Every address of this range.
    #[schema(value_type = String)]
    Cidr(IpNet),
}

/// A service with its name resolved: one protocol or all, and what is wanted of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMatch {
    /// IP protocol number; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// First and last destination port, for TCP, UDP and SCTP; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<(u16, u16)>,
    /// ICMP type, and code unless all codes are meant; all types when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, Option<u8>)>,
}

/// How the host tracks flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FirewallSettings {
    /// Track a TCP connection whose opening was not seen, as after a restart.
    pub tcp_pick_up: bool,
    /// When a flow that is silent ends; each is the protocol's own default when absent.
    pub timeouts: FlowTimeouts,
}

impl Default for FirewallSettings {
    fn default() -> Self {
        Self { tcp_pick_up: true, timeouts: FlowTimeouts::default() }
    }
}

/// When a flow that is silent ends, in seconds; the agent's own default where absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowTimeouts {
    /// A TCP connection that is being opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_opening: Option<u32>,
    /// A TCP connection both sides have agreed on (RFC 5382 REQ-5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_established: Option<u32>,
    /// A TCP connection that is being closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_closing: Option<u32>,
    /// UDP that nobody answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_unreplied: Option<u32>,
    /// UDP that was answered (RFC 4787 REQ-5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_replied: Option<u32>,
    /// ICMP questions (RFC 5508 REQ-1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp: Option<u32>,
    /// Every other protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<u32>,
}

/// What a host counted for one rule since its agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleStatus {
    /// [`SliceRule::id`].
    pub id: u32,
    /// Packets of flows it admitted, both directions, and packets it refused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub packets: u64,
    /// Bytes of these packets' frames.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Flows it admitted and packets it refused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hits: u64,
    /// When it last matched, in milliseconds since 1970-01-01 UTC; absent when never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_hit: Option<u64>,
    /// How often it would have decided otherwise than what was done, were its policy enforced.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub would: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}
