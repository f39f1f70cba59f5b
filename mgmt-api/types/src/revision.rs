//! What changed when.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Kind;

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
