//! The way of a packet that nobody sent.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::{RuleName, Silent};

/// From whom to whom, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TraceRequest {
    /// A workload, or one of its ports: `web-1` or `web-1.eth0`.
    #[schema(example = "web-1")]
    pub source: String,
    /// A workload, one of its ports, or an address.
    #[schema(example = "db-1")]
    pub destination: String,
    /// What is wanted: `tcp/5432`, `udp/53`, `sctp/2905`, `icmp/8/0`, `icmpv6/128/0`, `ping`, `proto/47`.
    #[schema(value_type = String, example = "tcp/5432")]
    pub service: Probe,
    /// Source port; 49152 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
}

/// One concrete packet's protocol and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Probe {
    /// A TCP segment that opens a connection to a port.
    Tcp(u16),
    /// A UDP datagram to a port.
    Udp(u16),
    /// An SCTP packet that opens an association to a port.
    Sctp(u16),
    /// An echo request of the addresses' IP version.
    Ping,
    /// An ICMP message of this type and code.
    Icmp(u8, u8),
    /// An ICMPv6 message of this type and code.
    Icmpv6(u8, u8),
    /// A packet of another IP protocol, without content.
    Protocol(u8),
}

/// Why a text names no packet that could be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} names no packet: {}", Probe::EXPECTED)]
pub struct ProbeError {
    /// The text, cut to 40 characters.
    pub got: String,
}

impl Probe {
    /// What to write.
    const EXPECTED: &'static str = "a protocol with a port, such as tcp/5432 or udp/53, or ping, icmp/TYPE/CODE, \
                                    icmpv6/TYPE/CODE, proto/NUMBER";

    /// IP protocol number, for packets of this IP version.
    pub const fn protocol(self, v6: bool) -> u8 {
        match self {
            Self::Tcp(_) => 6,
            Self::Udp(_) => 17,
            Self::Sctp(_) => 132,
            Self::Ping if v6 => 58,
            Self::Ping | Self::Icmp(..) => 1,
            Self::Icmpv6(..) => 58,
            Self::Protocol(number) => number,
        }
    }

    /// The IP version that it can travel by alone: true for IPv6, `None` when either will do.
    pub const fn needs_v6(self) -> Option<bool> {
        match self {
            Self::Icmp(..) | Self::Protocol(1) => Some(false),
            Self::Icmpv6(..) | Self::Protocol(58) => Some(true),
            Self::Tcp(_) | Self::Udp(_) | Self::Sctp(_) | Self::Ping | Self::Protocol(_) => None,
        }
    }
}

impl FromStr for Probe {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, ProbeError> {
        let mut parts = text.splitn(3, '/');
        let (word, first, second) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let probe = match (word, first, second) {
            ("tcp", Some(port), None) => decimal(port).map(Self::Tcp),
            ("udp", Some(port), None) => decimal(port).map(Self::Udp),
            ("sctp", Some(port), None) => decimal(port).map(Self::Sctp),
            ("ping", None, None) => Some(Self::Ping),
            ("icmp", None, None) => Some(Self::Icmp(8, 0)),
            ("icmpv6", None, None) => Some(Self::Icmpv6(128, 0)),
            ("icmp", Some(kind), code) => icmp(kind, code).map(|(kind, code)| Self::Icmp(kind, code)),
            ("icmpv6", Some(kind), code) => icmp(kind, code).map(|(kind, code)| Self::Icmpv6(kind, code)),
            ("proto", Some(number), None) => decimal(number).map(Self::Protocol),
            _ => None,
        };
        probe.ok_or_else(|| ProbeError { got: text.chars().take(40).collect() })
    }
}

fn icmp(kind: &str, code: Option<&str>) -> Option<(u8, u8)> {
    Some((decimal(kind)?, code.map_or(Some(0), decimal)?))
}

/// A number in plain decimal: `parse` alone would also take a sign.
fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::Sctp(port) => write!(f, "sctp/{port}"),
            Self::Ping => f.write_str("ping"),
            Self::Icmp(kind, code) => write!(f, "icmp/{kind}/{code}"),
            Self::Icmpv6(kind, code) => write!(f, "icmpv6/{kind}/{code}"),
            Self::Protocol(number) => write!(f, "proto/{number}"),
        }
    }
}

impl Serialize for Probe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Probe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Probe;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Probe::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Probe, E> {
                text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// What the hosts concerned say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceAnswer {
    /// Whether the packet would arrive; false when a host that has a say in it is silent.
    pub delivered: bool,
    /// One for each host it passes, the source's first.
    pub traces: Vec<Trace>,
    /// Hosts that did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<Silent>,
}

/// The way of a packet through one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// The host.
    pub host: String,
    /// The revision it judged by.
    pub revision: u64,
    /// Who sends.
    pub source: TraceEnd,
    /// Who is meant.
    pub destination: TraceEnd,
    /// The network they are on.
    pub network: String,
    /// The packet.
    #[schema(value_type = String)]
    pub service: Probe,
    /// Every stage it came to, in order.
    pub steps: Vec<TraceStep>,
    /// What became of it here.
    pub outcome: TraceOutcome,
}

/// One end of the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceEnd {
    /// The port, as `web-1.eth0`; absent when nobody declared the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Its host, when it is a declared port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The address used.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Groups it is in.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceStep {
    /// The stage: `parse`, `guard`, … `deliver`.
    pub stage: String,
    /// What became of the packet there.
    pub outcome: TraceOutcome,
    /// Why it ended, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same or more, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Rules that decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleName>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TraceOutcome {
    /// It goes on to the next stage.
    Passed,
    /// It ends here, silently.
    Dropped,
    /// It ends here, and its sender is told.
    Rejected,
    /// The appliance answers it by itself.
    Answered,
    /// It is given to its destination.
    Delivered,
}

impl TraceOutcome {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Dropped => "dropped",
            Self::Rejected => "rejected",
            Self::Answered => "answered",
            Self::Delivered => "delivered",
        }
    }

    /// Whether whoever sent it got what it wanted.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Passed | Self::Answered | Self::Delivered)
    }
}

impl fmt::Display for TraceOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_written_as_it_is_read() {
        for (text, probe) in [
            ("tcp/5432", Probe::Tcp(5432)),
            ("udp/53", Probe::Udp(53)),
            ("sctp/2905", Probe::Sctp(2905)),
            ("ping", Probe::Ping),
            ("icmp/3/4", Probe::Icmp(3, 4)),
            ("icmpv6/128/0", Probe::Icmpv6(128, 0)),
            ("proto/47", Probe::Protocol(47)),
        ] {
            assert_eq!(text.parse(), Ok(probe));
            assert_eq!(probe.to_string(), text);
        }
        assert_eq!("icmp/8".parse(), Ok(Probe::Icmp(8, 0)));
        assert_eq!("icmp".parse(), Ok(Probe::Icmp(8, 0)));
    }

    #[test]
    fn a_text_that_is_no_packet_says_what_would_be_one() {
        for text in
            ["", "tcp", "tcp/", "tcp/65536", "tcp/+1", "tcp/1/2", "http", "icmp/256", "icmp/1/2/3", "proto"]
        {
            let error = text.parse::<Probe>().expect_err(text);
            assert!(error.to_string().contains("tcp/5432"), "{error}");
        }
        let error = serde_json::from_str::<Probe>("\"tcp\"").expect_err("no port");
        assert!(error.to_string().contains("tcp/5432"), "{error}");
    }
}
