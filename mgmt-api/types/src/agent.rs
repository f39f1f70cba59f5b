//! What a host gets and what it says.
//!
//! The agent asks for its [`Slice`] as a stream, the first item the whole state at one revision and each further one a
//! [`SliceDelta`], and posts a [`HostStatus`] from time to time. Fields a version does not know are ignored, so that
//! manager and agents may be of different versions.

mod delta;
mod digest;
mod firewall;
mod sync;
mod underlay;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Attach, MacAddr, RateLimit};

pub use delta::{Changes, DeltaError, SealedSlice, SliceDelta, SliceState, SliceVersion};
pub use digest::{DigestParseError, SliceDigest};
pub use firewall::{
    FirewallSettings, FlowTimeouts, Peer, RuleStatus, ServiceMatch, SliceGroup, SliceIdentity, SlicePolicy,
    SliceRule,
};
pub use sync::SyncStatus;
pub use underlay::{GENEVE_PORT, PeerStatus, Underlay};

/// All one host needs at one revision: its networks and those its routers lead to, all ports on them, its own and
/// those of other hosts, these hosts, and the firewall policies that apply to its own ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Slice {
    /// The revision this is compiled from.
    pub revision: u64,
    /// The host it is for.
    pub host: String,
    /// Networks that have a port on this host, or had one that moved away a short while ago, and all networks of the
    /// routers these hang on, by name.
    pub networks: Vec<SliceNetwork>,
    /// Every port of these networks, by workload and name.
    pub ports: Vec<SlicePort>,
    /// Routers of these networks, by name; also those without a resource of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<SliceRouter>,
    /// This host and all that have one of these ports or had it a short while ago, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<SliceHost>,
    /// Groups that the policies name, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<SliceGroup>,
    /// Identities of the ports, by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<SliceIdentity>,
    /// Policies that apply to a local port, in order of judgement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<SlicePolicy>,
    /// How the host tracks flows.
    #[serde(default)]
    pub settings: FirewallSettings,
}

/// A network with everything filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceNetwork {
    /// Its name.
    pub name: String,
    /// GENEVE virtual network identifier.
    pub vni: u32,
    /// Its address ranges.
    #[schema(value_type = Vec<String>)]
    pub subnets: Vec<IpNet>,
    /// Addresses its gateway answers on.
    #[schema(value_type = Vec<String>)]
    pub gateways: Vec<IpAddr>,
    /// The gateway's MAC address, the same on every host.
    #[schema(value_type = String)]
    pub gateway_mac: MacAddr,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// The router it hangs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<String>,
    /// Whether the maximum segment size that TCP connections announce is cut to what the MTU carries.
    #[serde(default = "yes")]
    pub mss_clamp: bool,
}

/// A distributed router with everything filled in: each host routes between its networks for what is sent there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceRouter {
    /// Its name.
    pub name: String,
    /// Routes beside those to its networks' own subnets; the longest prefix counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<SliceRoute>,
}

/// A static route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceRoute {
    /// Where to.
    #[schema(value_type = String)]
    pub to: IpNet,
    /// The address of a port on one of the router's networks that takes it from there.
    #[schema(value_type = String)]
    pub via: IpAddr,
}

/// A host that this one exchanges packets with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceHost {
    /// Its name.
    pub name: String,
    /// Its addresses on the underlay, the preferred one first. Packets from other addresses are not taken for its own.
    /// Empty when it has not told any yet.
    #[schema(value_type = Vec<String>)]
    pub underlay: Vec<IpAddr>,
    /// UDP port on which it takes GENEVE.
    pub port: u16,
    /// Largest IP packet of its underlay interface, in bytes.
    pub mtu: u16,
    /// Whether it understands our GENEVE options, and must send them.
    pub options: bool,
    /// Somebody else's tunnel endpoint: it runs no agent, and answers no probes.
    #[serde(default)]
    pub external: bool,
}

/// A port with everything filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlicePort {
    /// Stable for the life of the port, never used again for another.
    pub id: u32,
    /// The workload it belongs to.
    pub workload: String,
    /// Its name within the workload.
    pub name: String,
    /// The network it is plugged into.
    pub network: String,
    /// The host it is on; equal to [`Slice::host`] when local.
    pub host: String,
    /// The host it was on until a short while ago. That one passes on what others still send there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
    /// Its MAC address.
    #[schema(value_type = String)]
    pub mac: MacAddr,
    /// The addresses it may use.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// How it is attached.
    pub attach: Attach,
    /// Queue pairs.
    pub queues: u16,
    /// Limit on what it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// [`SliceIdentity::id`] of its workload; 0 when the workload is in no group.
    #[serde(default)]
    pub identity: u32,
    /// False when nothing is enforced on it.
    #[serde(default = "yes")]
    pub firewall: bool,
}

fn yes() -> bool {
    true
}

/// What a host says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// Its name.
    pub host: String,
    /// Version of its agent.
    pub version: String,
    /// The newest revision it forwards by.
    pub revision: u64,
    /// Why it could not realise a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How it follows its manager.
    #[serde(default)]
    pub sync: SyncStatus,
    /// Its local ports.
    pub ports: Vec<PortStatus>,
    /// What its rules counted; those that nothing matched are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleStatus>,
    /// Where other hosts reach it; absent when it has not found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay: Option<Underlay>,
    /// How it fares with each host it exchanges packets with, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerStatus>,
}

/// What a host says about one local port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortStatus {
    /// [`SlicePort::id`].
    pub id: u32,
    /// The workload it belongs to.
    pub workload: String,
    /// Its name within the workload.
    pub port: String,
    /// Whether it carries traffic.
    pub link: Link,
    /// What is broken, in words.
    #[serde(default)]
    pub faults: Vec<String>,
    /// What the workload sent and was accepted.
    #[serde(default)]
    pub from_guest: Counters,
    /// What was delivered to the workload.
    #[serde(default)]
    pub to_guest: Counters,
    /// Dropped packets by reason.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// Further facts by name, such as negotiated features.
    #[serde(default)]
    pub details: BTreeMap<String, String>,
    /// True when the firewall decides about its frames.
    #[serde(default)]
    pub enforced: bool,
    /// Flows tracked for it now.
    #[serde(default)]
    pub flows: u64,
    /// Most flows it may have; 0 when its agent does not say.
    #[serde(default)]
    pub flow_limit: u64,
}

/// Whether a port carries traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// Attached, and the workload's driver is ready.
    Up,
    /// Attached, but the driver is not ready or something is broken.
    Down,
    /// Nothing is attached yet.
    #[default]
    Waiting,
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Waiting => "waiting",
        })
    }
}

/// Packets and bytes since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Packets; a TSO frame counts as one.
    #[serde(default)]
    pub packets: u64,
    /// Bytes of Ethernet frames, without FCS.
    #[serde(default)]
    pub bytes: u64,
}
