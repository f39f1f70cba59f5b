//! A machine that ports are on: one that runs the appliance, or somebody else's tunnel endpoint.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::agent::PeerStatus;
use crate::{Labels, Mistake, Mtu, labels, name, text};

/// One host of the mesh. One that runs an agent appears when its machine joins; an external one is declared.
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

/// What is wanted of a host. What is given here wins over what its agent says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSpec {
    /// Who carries packets there.
    #[serde(default, skip_serializing_if = "HostKind::is_agent")]
    pub kind: HostKind,
    /// Its addresses on the underlay, the preferred one first; what its agent says when not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "text::addresses")]
    #[schema(value_type = Vec<String>, max_items = 16, example = json!(["192.0.2.11"]))]
    pub underlay: Vec<IpAddr>,
    /// UDP port on which it takes GENEVE; what its agent says when not given, else 6081 (RFC 8926 section 3.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub geneve_port: Option<u16>,
    /// Largest IP packet its underlay carries, in bytes; what its agent says when not given, else 1500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1280)]
    pub underlay_mtu: Option<u16>,
    /// Whether an external host understands our GENEVE options, and sends them; no when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<bool>,
}

/// Who carries packets on a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// Our agent.
    #[default]
    Agent,
    /// Somebody else's tunnel endpoint: declared, never heard of, given no state; nothing is enforced there.
    External,
}

impl HostKind {
    /// True for a host that runs our agent.
    pub fn is_agent(&self) -> bool {
        *self == Self::Agent
    }
}

/// Most underlay addresses of one host.
pub const MAX_UNDERLAY: usize = 16;

/// True when a host can have this address on the underlay. A link-local one means nothing to other links.
pub fn is_underlay_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() || v4.is_link_local())
        }
        IpAddr::V6(v6) => {
            !(v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some())
        }
    }
}

/// What is known about a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostReport {
    /// Who carries packets there.
    #[serde(default)]
    pub kind: HostKind,
    /// How it is; an external host counts as ready.
    #[serde(default)]
    pub state: HostState,
    /// Why it is not ready, the most important reason first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// True when it spoke within the last 15 seconds; an external host never does.
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
    /// The underlay addresses in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub underlay: Vec<IpAddr>,
    /// The UDP port on which it takes GENEVE.
    #[serde(default)]
    pub geneve_port: u16,
    /// Largest IP packet its underlay carries, in bytes.
    #[serde(default)]
    pub underlay_mtu: u16,
    /// How many hosts it exchanges packets with and probes.
    #[serde(default)]
    pub peers: u32,
    /// How many of these answer its probes.
    #[serde(default)]
    pub peers_up: u32,
    /// How it fares with each host it exchanges packets with, by name; left out in a list of hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PeerStatus>,
    /// What somebody should look at, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How a host is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// It speaks, and nothing is wrong with it.
    Ready,
    /// It speaks, and something is wrong with it.
    Degraded,
    /// It is silent. What it does goes on by what it was told last.
    #[default]
    Unreachable,
}

impl std::fmt::Display for HostState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Unreachable => "unreachable",
        })
    }
}

impl Host {
    /// What is wrong within this resource alone; empty when nothing is.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        Mistake::check_name(&mut found, "name", name::check(&self.name), &self.name);
        labels::check(&self.labels, &mut found);
        self.spec.check(&mut found);
        found
    }
}

impl HostSpec {
    fn check(&self, found: &mut Vec<Mistake>) {
        let Self { kind, underlay, geneve_port, underlay_mtu, options } = self;
        if underlay.len() > MAX_UNDERLAY {
            let got = format!("{} addresses", underlay.len());
            found.push(
                Mistake::new("spec.underlay", got, format!("at most {MAX_UNDERLAY}"))
                    .detail("a host has too many underlay addresses"),
            );
        }
        for (index, address) in underlay.iter().enumerate() {
            let wrong = if !is_underlay_address(*address) {
                Some((
                    "the address cannot be a host's on the underlay",
                    "a unicast address that is not link-local",
                ))
            } else if underlay.iter().take(index).any(|other| other == address) {
                Some(("the address is listed twice", "each address once"))
            } else {
                None
            };
            if let Some((reason, expected)) = wrong {
                let field = format!("spec.underlay[{index}]");
                found.push(Mistake::new(field, address, expected).detail(reason));
            }
        }
        if *geneve_port == Some(0) {
            found.push(
                Mistake::new("spec.genevePort", 0, "1 to 65535").detail("the UDP port is out of range"),
            );
        }
        if let Some(mtu) = underlay_mtu
            && *mtu < Mtu::MIN
        {
            found.push(
                Mistake::new("spec.underlayMtu", mtu, format!("{} to 65535 bytes", Mtu::MIN))
                    .detail("the MTU is out of range"),
            );
        }
        if *kind == HostKind::External && underlay.is_empty() {
            found.push(
                Mistake::new("spec.underlay", "none", "at least one address")
                    .detail("an external host does not say by itself where it is"),
            );
        }
        if *kind == HostKind::Agent
            && let Some(options) = options
        {
            found.push(
                Mistake::new("spec.options", options, "nothing, or kind: external")
                    .detail("a host that runs an agent understands our options"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(spec: &str) -> Host {
        serde_json::from_str(&format!(r#"{{"name":"a","spec":{spec}}}"#)).unwrap()
    }

    #[test]
    fn a_host_runs_an_agent_unless_it_is_declared_external() {
        assert_eq!(host("{}").spec, HostSpec::default());
        assert_eq!(serde_json::to_string(&HostSpec::default()).unwrap(), "{}");
        let external = host(r#"{"kind":"external","underlay":["192.0.2.9"],"options":true}"#);
        assert!(external.mistakes().is_empty() && external.spec.kind == HostKind::External);
    }

    #[test]
    fn each_mistake_names_its_field() {
        for (spec, field) in [
            (r#"{"kind":"external"}"#, "spec.underlay"),
            (r#"{"options":false}"#, "spec.options"),
            (r#"{"genevePort":0}"#, "spec.genevePort"),
            (r#"{"underlayMtu":1279}"#, "spec.underlayMtu"),
            (r#"{"underlay":["192.0.2.1","224.0.0.1"]}"#, "spec.underlay[1]"),
            (r#"{"underlay":["0.0.0.0"]}"#, "spec.underlay[0]"),
            (r#"{"underlay":["fe80::1"]}"#, "spec.underlay[0]"),
            (r#"{"underlay":["::ffff:192.0.2.1"]}"#, "spec.underlay[0]"),
            (r#"{"underlay":["2001:db8::1","192.0.2.1","2001:db8::1"]}"#, "spec.underlay[2]"),
        ] {
            let found = host(spec).mistakes();
            let fields: Vec<_> = found.iter().filter_map(|mistake| mistake.field.as_deref()).collect();
            assert_eq!(fields, [field], "{spec}");
        }
        let many = format!(
            r#"{{"underlay":[{}]}}"#,
            (1..=17).map(|n| format!(r#""192.0.2.{n}""#)).collect::<Vec<_>>().join(",")
        );
        assert_eq!(host(&many).mistakes()[0].field.as_deref(), Some("spec.underlay"));
    }

    #[test]
    fn an_unknown_kind_says_which_there_are() {
        let error = serde_json::from_str::<HostSpec>(r#"{"kind":"foreign"}"#).unwrap_err().to_string();
        assert!(error.contains("agent") && error.contains("external"), "{error}");
    }
}
