//! What changed when.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Kind, Resource};

/// The outcome of an apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The revision that holds all of it; the one before when nothing changed or nothing was to be written.
    pub revision: u64,
    /// True when it was only checked.
    pub dry_run: bool,
    /// Each resource in the order it was sent.
    pub results: Vec<Outcome>,
    /// What it would do to connections that are alive, host by host; only of a dry run, and only when hosts were asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<FlowImpact>,
}

/// What a change would do to the live connections of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowImpact {
    /// The host.
    pub host: String,
    /// Why it could not say; then the rest is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How many live connections would be cut.
    pub count_cut: u64,
    /// Some of those, at most 100.
    pub flows_cut: Vec<CutFlow>,
    /// How many that were refused lately would be allowed.
    pub flows_allowed: u64,
}

/// A live connection that a change would cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CutFlow {
    /// The network it is in.
    pub network: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Who opened it: address and port, as `10.0.1.11:40000` or `[fd00:1::11]:40000`.
    pub source: String,
    /// To whom.
    pub destination: String,
    /// The rule that would refuse it, as `POLICY/RULE`; absent when none would allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// The outcome of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The revision that holds it: above every one that was ever given.
    pub revision: u64,
    /// The revision that the backup was made of.
    pub backup_revision: u64,
    /// When the backup was made, RFC 3339 in UTC.
    pub backup_time: String,
}

/// What became of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub change: Change,
}

/// What happened to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Created,
    /// It was there and is different now.
    Configured,
    /// It was there and is the same.
    Unchanged,
    /// It is gone.
    Deleted,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        })
    }
}

/// One revision: what one transaction changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its number; each is one more than the one before.
    pub revision: u64,
    /// When it was made, RFC 3339 in UTC.
    pub time: String,
    /// Name of the token that made it.
    pub author: String,
    /// What it changed, in the order it was asked for.
    pub changes: Vec<Diff>,
    /// The hosts that have something to do because of it.
    pub hosts: Vec<String>,
}

/// One changed resource, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub change: Change,
    /// As it was; absent when it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Resource>,
    /// As it is; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Resource>,
}

/// How far a revision has come, per host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Realised {
    /// The revision asked about.
    pub revision: u64,
    /// True when every host that has something to do for it has done so.
    pub done: bool,
    /// Each host that has something to do for it.
    pub hosts: Vec<RealisedHost>,
}

/// How far a revision has come on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealisedHost {
    /// The host's name.
    pub host: String,
    /// How far it is.
    pub state: RealisedState,
    /// Why, when it is not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How far a host is with a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RealisedState {
    /// It forwards by this revision or a newer one.
    Applied,
    /// It has not said so yet.
    Pending,
    /// It tried and could not.
    Failed,
}

impl std::fmt::Display for RealisedState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Failed => "failed",
        })
    }
}
