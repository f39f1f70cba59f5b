//! The closed words of firewall rules: tiers, modes, directions, actions.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a policy stands among all policies: an earlier tier is judged first. Who writes in which is a matter of
/// agreement; only the manager's own policy `baseline` has its place, at the end.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// What must hold at once, whatever else is declared: quarantine, a worm's port.
    Emergency,
    /// Rules of those who answer for security.
    Security,
    /// Rules of those who run the networks.
    Network,
    /// Rules of those who run the platform: monitoring, backup, name service.
    Platform,
    /// Rules of the applications' owners.
    #[default]
    Application,
    /// What holds when nothing else was said.
    Baseline,
}

impl Tier {
    /// Every tier, in the order of judgement.
    pub const ALL: [Self; 6] =
        [Self::Emergency, Self::Security, Self::Network, Self::Platform, Self::Application, Self::Baseline];

    /// As written in a policy.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Emergency => "emergency",
            Self::Security => "security",
            Self::Network => "network",
            Self::Platform => "platform",
            Self::Application => "application",
            Self::Baseline => "baseline",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether a policy decides or only tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyMode {
    /// Its rules decide.
    #[default]
    Enforce,
    /// Its rules are matched and counted, then judgement goes on as if the policy were not there.
    Audit,
}

impl fmt::Display for PolicyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
        })
    }
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// It passes, and so do its replies.
    Allow,
    /// It goes no further and its sender learns nothing.
    Drop,
    /// It goes no further and its sender is told: RST for TCP, ICMP unreachable for the rest.
    Reject,
}

impl fmt::Display for RuleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Drop => "drop",
            Self::Reject => "reject",
        })
    }
}

/// Which way a connection is opened, seen from the port the policy applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleDirection {
    /// Towards the port.
    In,
    /// From the port.
    Out,
}

impl fmt::Display for RuleDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::In => "in",
            Self::Out => "out",
        })
    }
}
