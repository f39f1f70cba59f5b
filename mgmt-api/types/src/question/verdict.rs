//! What became of recent packets.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FlowId, RuleName, Silent};
use crate::RuleDirection;

/// Whose verdicts, and which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VerdictQuery {
    /// The workload whose ports sent or were meant.
    pub workload: String,
    /// One of its ports; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Only what was dropped, or would be by an audit policy.
    pub drops_only: bool,
    /// At most this many, the newest; 50 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Recent verdicts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerdictList {
    /// Oldest first.
    pub verdicts: Vec<Verdict>,
    /// Hosts that did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<Silent>,
}

/// What became of a packet, or of several alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time: u64,
    /// The host that decided.
    pub host: String,
    /// The port that sent it, as `web-1.eth0`.
    pub port: String,
    /// What became of it.
    pub verdict: VerdictKind,
    /// Why, when it did not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The reason in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
    /// Who wanted to talk to whom, when it came to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<FlowId>,
    /// Whose rules said no, when it was the firewall: `out` the sender's, `in` the receiver's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<RuleDirection>,
    /// The rules that decided; none for default deny.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleName>,
    /// Groups that the sender was known to be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_groups: Option<Vec<String>>,
    /// Groups that the receiver was known to be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_groups: Option<Vec<String>>,
    /// The revision it was judged by.
    pub revision: u64,
    /// Bytes of the frame.
    #[serde(default)]
    pub bytes: u32,
    /// How many of the same cause this stands for, itself included: of a flood, only some are kept one by one.
    pub times: u64,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictKind {
    /// It began a flow.
    Admitted,
    /// It ended here.
    Dropped,
    /// It went on, and a policy in audit mode would have dropped it.
    WouldDrop,
    /// It ended here, and a policy in audit mode would have let it go on.
    WouldAllow,
}

impl VerdictKind {
    /// The words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Dropped => "dropped",
            Self::WouldDrop => "would-drop",
            Self::WouldAllow => "would-allow",
        }
    }
}

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
