//! Managers that share one state.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a manager knows about itself and the others that share its store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagerList {
    /// Name of the manager that answers.
    pub answering: String,
    /// Where it keeps its state.
    pub store: StoreKind,
    /// What it is among the others.
    pub role: ManagerRole,
    /// The newest revision it knows.
    pub revision: u64,
    /// Since when its store does not answer, RFC 3339 in UTC: it serves what it knows and refuses changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disconnected_since: Option<String>,
    /// Every manager that is alive, by name, the answering one among them.
    pub items: Vec<ManagerReport>,
}

/// One manager that is alive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagerReport {
    /// Its name: that of its machine, and something that tells it from others there.
    pub name: String,
    /// Where it can be reached, `https://host:port`.
    pub url: String,
    /// Its version.
    pub version: String,
    /// When it started, RFC 3339 in UTC.
    pub since: String,
    /// True when it does what one alone must do.
    #[serde(default)]
    pub leader: bool,
}

/// Where a manager keeps its state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In a file of its own.
    #[default]
    Redb,
    /// In etcd, with others.
    Etcd,
}

/// What a manager is among those that share its store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ManagerRole {
    /// It shares its store with nobody.
    #[default]
    Alone,
    /// It does what one alone must do, beside everything else.
    Leader,
    /// It does everything but that.
    Follower,
    /// Its store does not answer.
    Disconnected,
}

impl ManagerRole {
    /// As JSON and tables have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Disconnected => "disconnected",
        }
    }
}
