//! How a host follows its manager.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What became of what the manager sent, since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncStatus {
    /// Whole slices that were taken.
    pub whole: u64,
    /// Deltas that were applied.
    pub deltas: u64,
    /// How often it turned out that the host had the newest slice already.
    pub unchanged: u64,
    /// Slices and deltas that were refused whole; after each, the host asks for a whole slice.
    pub refused: u64,
    /// Why the last of them was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}
