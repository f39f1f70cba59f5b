//! A machine that runs the appliance.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Labels, Mistake, labels, name};

/// One host of the mesh. Read-mostly: it appears when its agent first speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Host {
    /// DNS label, at most 63 characters; unique among hosts.
    #[schema(max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "host-a")]
    pub name: String,
    /// Free key-value pairs to select by.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// What is wanted.
    #[serde(default)]
    pub spec: HostSpec,
    /// What is. Written by the manager; ignored in what a client sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub status: Option<HostReport>,
    /// The revision that last changed this resource. Written by the manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub revision: Option<u64>,
}

/// What is wanted of a host: nothing but that it exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSpec {}

/// What is known about a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostReport {
    /// True when it spoke within the last 15 seconds.
    pub connected: bool,
    /// When it last spoke, RFC 3339 in UTC; absent when never since the manager started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// Version of its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The newest revision it forwards by.
    pub revision: u64,
    /// The newest revision that changed what it has to do: it is up to date when `revision` is no less.
    pub wanted: u64,
    /// Why it could not realise a newer revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How many ports it has.
    pub ports: u32,
    /// How many of its ports carry traffic.
    pub ports_up: u32,
}

impl Host {
    /// What is wrong within this resource alone; empty when nothing is.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        Mistake::check_name(&mut found, "name", name::check(&self.name), &self.name);
        labels::check(&self.labels, &mut found);
        found
    }
}
