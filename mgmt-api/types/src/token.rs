//! Who may do what.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What whoever asks may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, users and the joining of hosts included.
    Admin,
    /// Reads and changes resources.
    Operator,
    /// Reads resources.
    Viewer,
    /// A host, known by its certificate: gets its slice and posts its status; nothing else. No user has it.
    Agent,
}

impl Role {
    /// As written in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Agent => "agent",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "admin" => Ok(Self::Admin),
            "operator" => Ok(Self::Operator),
            "viewer" => Ok(Self::Viewer),
            "agent" => Ok(Self::Agent),
            _ => Err(format!("there is no role {text:?}; there are admin, operator, viewer and agent")),
        }
    }
}

/// A wish for a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewUser {
    /// DNS label, at most 63 characters; the author of changes in the audit log.
    pub name: String,
    /// What the user may do: not `agent`.
    pub role: Role,
}

/// A wish to change a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserChange {
    /// What the user may do from now on: not `agent`.
    pub role: Role,
}

/// A person or a program that is let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// How many tokens it has, expired ones included.
    pub tokens: u32,
}

/// All users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserList {
    /// The users, by name.
    pub items: Vec<User>,
}

/// A wish for a token: for a `user` that there is, or with a `role` for a user that is made with it and named like it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewToken {
    /// DNS label, at most 63 characters; unique among all tokens.
    pub name: String,
    /// Whose token it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What its holder may do, when the user is made with it: not `agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// For how many seconds it is valid, at most ten years; for ever when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// What is known about a token; its secret is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenInfo {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// What its holder may do.
    pub role: Role,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// Until when it is valid, RFC 3339 in UTC; absent when for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// All tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenList {
    /// The tokens, by name.
    pub items: Vec<TokenInfo>,
}

/// A token just made: the only time its secret is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenSecret {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// What its holder may do.
    pub role: Role,
    /// Until when it is valid, RFC 3339 in UTC; absent when for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What to send as `Authorization: Bearer <secret>`.
    pub secret: String,
}
