//! Tracked connections.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{RuleName, Silent};

/// Which flows, and whether to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowQuery {
    /// Only those of this workload, at either end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// At most this many from each host; 1000 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Tell of flows as they begin, end and are refused, instead of those that are.
    pub follow: bool,
}

/// Who talks to whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowId {
    /// The network.
    pub network: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Who began.
    pub source: FlowEnd,
    /// Who was asked.
    pub destination: FlowEnd,
}

/// One end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowEnd {
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its port; the identifier of an ICMP echo; 0 where a protocol has neither.
    pub port: u16,
    /// The workload's port that has the address, as `web-1.eth0`; absent when nobody declared it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
}

impl FlowId {
    /// The protocol in words, or its number.
    pub fn protocol_name(&self) -> String {
        match self.protocol {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "icmpv6".to_owned(),
            132 => "sctp".to_owned(),
            other => format!("proto-{other}"),
        }
    }

    fn has_ports(&self) -> bool {
        matches!(self.protocol, 6 | 17 | 132)
    }
}

impl fmt::Display for FlowId {
    /// `tcp web-1.eth0 10.0.1.11:40000 > db-1.eth0 10.0.1.21:5432`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.protocol_name())?;
        for (end, after) in [(&self.source, " > "), (&self.destination, "")] {
            if let Some(of) = &end.of {
                write!(f, "{of} ")?;
            }
            match (end.address, self.has_ports()) {
                (address, false) => write!(f, "{address}{after}")?,
                (IpAddr::V4(address), true) => write!(f, "{address}:{}{after}", end.port)?,
                (IpAddr::V6(address), true) => write!(f, "[{address}]:{}{after}", end.port)?,
            }
        }
        Ok(())
    }
}

/// A tracked connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowInfo {
    /// The host that tracks it.
    pub host: String,
    /// Who talks to whom.
    pub flow: FlowId,
    /// How far it has come: `established`, `syn-sent`, `udp-unreplied`, …
    pub state: String,
    /// When its first packet passed, in milliseconds since 1970-01-01 UTC.
    pub started: u64,
    /// When its last packet passed, likewise.
    pub last_seen: u64,
    /// Packets from who began, and back.
    pub packets: [u64; 2],
    /// Bytes of their frames.
    pub bytes: [u64; 2],
    /// The rules that admitted it, the sender's first.
    pub rules: Vec<RuleName>,
    /// The revision it was judged by last.
    pub revision: u64,
}

/// Flows of the hosts asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowList {
    /// In no order.
    pub flows: Vec<FlowInfo>,
    /// How many more there are.
    pub more: u64,
    /// Hosts that did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<Silent>,
}

/// What one host tells of its flows at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowTidings {
    /// Flows that are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<FlowInfo>,
    /// What happened, in order, when they are followed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<FlowEvent>,
    /// How many more there are, or how many events were lost.
    pub more: u64,
}

/// Something that happened to a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowEvent {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time: u64,
    /// What.
    #[serde(flatten)]
    pub update: FlowUpdate,
}

/// What can happen to a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum FlowUpdate {
    /// It was admitted.
    Started {
        /// The flow.
        flow: FlowInfo,
    },
    /// It is tracked no more.
    Ended {
        /// The flow, with its last numbers.
        flow: FlowInfo,
        /// `closed`, `timed-out`, `evicted` or `revoked`.
        why: String,
    },
    /// It was refused.
    Refused {
        /// What was refused.
        verdict: Box<super::Verdict>,
    },
    /// Hosts that cannot be listened to, or events that were lost.
    Missed {
        /// The host.
        host: String,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(address: &str, port: u16, of: Option<&str>) -> FlowEnd {
        FlowEnd { address: address.parse().expect("an address"), port, of: of.map(str::to_owned) }
    }

    #[test]
    fn a_flow_is_told_in_one_line() {
        let source = end("10.0.1.11", 40000, Some("web-1.eth0"));
        let mut flow =
            FlowId { network: "blue".into(), protocol: 6, source, destination: end("fd00::1", 443, None) };
        assert_eq!(flow.to_string(), "tcp web-1.eth0 10.0.1.11:40000 > [fd00::1]:443");
        flow.protocol = 47;
        assert_eq!(flow.to_string(), "proto-47 web-1.eth0 10.0.1.11 > fd00::1");
    }

    #[test]
    fn an_event_says_what_it_is_beside_its_time() {
        let update = FlowUpdate::Missed { host: "host-b".into(), reason: "it is silent".into() };
        let text = serde_json::to_string(&FlowEvent { time: 7, update }).expect("serialises");
        assert_eq!(text, r#"{"time":7,"event":"missed","host":"host-b","reason":"it is silent"}"#);
        assert!(serde_json::from_str::<FlowEvent>(&text).is_ok());
    }
}
