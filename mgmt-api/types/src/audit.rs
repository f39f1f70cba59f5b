//! Who did what, and who was not let.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Outcome, Role};

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Its number; each is greater than the one before.
    pub id: u64,
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// Name of the token; absent when there was no valid one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Role of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Address the request came from; absent for what the manager does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Method and path of the request, cut to 200 characters.
    pub action: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// The revision it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// What it changed; the diff is in `/v1/revisions/{revision}`. At most 100 are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Outcome>,
    /// Why it was refused, or what else is worth knowing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How many refusals were not written before this one, because there were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A page of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditList {
    /// The entries, newest first.
    pub items: Vec<AuditEntry>,
}
