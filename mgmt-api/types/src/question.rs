//! What hosts can be asked: the way of a packet, recent verdicts, live flows, what a change would do.
//!
//! Agents connect outward, so a question travels down the stream that brings the host its slices, and the answer comes
//! as a request of its own. The same questions can be put to an agent directly, on its local socket.

mod flow;
mod trace;
mod verdict;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::agent::Slice;
use crate::{FlowImpact, RuleAction, RuleDirection, Tier};

pub use flow::{FlowEnd, FlowEvent, FlowId, FlowInfo, FlowList, FlowQuery, FlowTidings, FlowUpdate};
pub use trace::{Probe, ProbeError, Trace, TraceAnswer, TraceEnd, TraceOutcome, TraceRequest, TraceStep};
pub use verdict::{Verdict, VerdictKind, VerdictList, VerdictQuery};

/// A question on its way to a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// What the answer is posted under: `/v1/agent/answers/{id}`.
    pub id: u64,
    /// What is asked.
    pub question: Question,
}

/// What a host can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// What would become of a packet. One answer of kind `trace`.
    Trace(TraceRequest),
    /// What became of recent packets of a workload's ports. One answer of kind `verdicts`.
    Verdicts(VerdictQuery),
    /// Which flows are tracked. One answer of kind `flows`, or, when they are to be followed, `flowEvents` again and
    /// again until nobody listens any more.
    Flows(FlowQuery),
    /// What a slice that is not in force would do to the flows that are. One answer of kind `impact`.
    Impact(Box<Slice>),
}

/// Part of an answer, or all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// The answer.
    pub answer: Answer,
    /// Whether no more follows.
    pub last: bool,
}

/// What a host answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// To a trace.
    Trace(Box<Trace>),
    /// To verdicts.
    Verdicts(Vec<Verdict>),
    /// To flows that are not followed.
    Flows(FlowTidings),
    /// To flows that are followed.
    FlowEvents(FlowTidings),
    /// To a change.
    Impact(FlowImpact),
    /// The question makes no sense there; why, in words.
    Refused(String),
}

/// A rule, as it is named to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleName {
    /// Its number, stable for the life of the rule.
    pub id: u32,
    /// Its policy; empty when the rule is no longer in force and forgotten.
    pub policy: String,
    /// Its name within the policy.
    pub rule: String,
    /// The policy's tier.
    pub tier: Tier,
    /// What it does.
    pub action: RuleAction,
    /// The revision that last changed the policy.
    pub revision: u64,
    /// Whose rule it was in this case: `out` the sender's, `in` the receiver's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<RuleDirection>,
}

impl std::fmt::Display for RuleName {
    /// `shop/to-db (application, allow out)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.policy.is_empty() {
            return write!(f, "rule {} (gone)", self.id);
        }
        write!(f, "{}/{} ({}, {}", self.policy, self.rule, self.tier, self.action)?;
        if let Some(direction) = self.direction {
            write!(f, " {direction}")?;
        }
        f.write_str(")")
    }
}

/// A host that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Silent {
    /// The host.
    pub host: String,
    /// Why it does not answer, or what it refused.
    pub reason: String,
}
