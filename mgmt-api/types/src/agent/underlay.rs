//! What a host says about the network that carries its tunnels.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Counters;

/// UDP port of GENEVE (RFC 8926 section 3.3).
pub const GENEVE_PORT: u16 = 6081;

/// Where other hosts reach a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Underlay {
    /// Addresses it takes GENEVE on and sends it from, the preferred one first.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// UDP port on which it takes GENEVE.
    #[serde(default = "geneve_port")]
    pub port: u16,
    /// Largest IP packet of the interface that has these addresses, in bytes.
    pub mtu: u16,
}

fn geneve_port() -> u16 {
    GENEVE_PORT
}

/// What a host says about its way to another one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Name of the other host.
    pub host: String,
    /// Whether probes are answered; absent when it is not probed, as an external host is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// Since when that is so, in milliseconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The other host's address that is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Largest IP packet that was seen to arrive, outer headers included, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u16>,
    /// Time from a probe to its answer, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u32>,
    /// What was sent there: inner frames.
    #[serde(default)]
    pub tx: Counters,
    /// What came from there and was taken: inner frames.
    #[serde(default)]
    pub rx: Counters,
    /// What came from there or was to go there and did not go on, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<String, u64>,
}
