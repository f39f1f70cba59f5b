//! Services: a protocol and what is wanted of it, or a name for it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::agent::ServiceMatch;
use crate::text::{self, Expects};

/// A service, written `tcp/443`, `tcp/8443-8450`, `udp/53`, `tcp`, `sctp/2905`, `icmp/8`, `icmp/3/4`, `icmpv6/128`,
/// `proto/47`, or by one of the names of [`NAMED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// TCP, UDP or SCTP, to these destination ports, first and last; to all when `None`.
    Ports(Transport, Option<(u16, u16)>),
    /// ICMP of IPv4 or IPv6: of this type and code, of all when `None`.
    Icmp(Icmp, Option<(u8, Option<u8>)>),
    /// An IP protocol by its number.
    Protocol(u8),
    /// A name of [`NAMED`].
    Named(&'static NamedService),
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// RFC 9293
    Tcp,
    /// RFC 768
    Udp,
    /// RFC 9260
    Sctp,
}

/// A protocol with types and codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmp {
    /// RFC 792
    V4,
    /// RFC 4443
    V6,
}

/// A name for what would be written as one service or several.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedService {
    /// As written in a rule.
    pub name: &'static str,
    /// What it stands for.
    pub matches: &'static [ServiceMatch],
}

impl Transport {
    /// IP protocol number (IANA protocol numbers).
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl Icmp {
    /// IP protocol number (IANA protocol numbers).
    pub const fn protocol(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 58,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "icmp",
            Self::V6 => "icmpv6",
        }
    }
}

const fn ports(transport: Transport, first: u16, last: u16) -> ServiceMatch {
    ServiceMatch { protocol: Some(transport.protocol()), ports: Some((first, last)), icmp: None }
}

const fn tcp(port: u16) -> ServiceMatch {
    ports(Transport::Tcp, port, port)
}

const fn udp(port: u16) -> ServiceMatch {
    ports(Transport::Udp, port, port)
}

const fn icmp(version: Icmp, kind: u8) -> ServiceMatch {
    ServiceMatch { protocol: Some(version.protocol()), ports: None, icmp: Some((kind, None)) }
}

const fn protocol(number: u8) -> ServiceMatch {
    ServiceMatch { protocol: Some(number), ports: None, icmp: None }
}

const fn named(name: &'static str, matches: &'static [ServiceMatch]) -> NamedService {
    NamedService { name, matches }
}

/// Every named service, by name. Numbers are those of the IANA service name and port number registry, but for those
/// that software uses without having registered them.
pub static NAMED: &[NamedService] = &[
    named("ah", const { &[protocol(51)] }),
    named("amqp", const { &[tcp(5672)] }),
    named("bgp", const { &[tcp(179)] }),
    named("cassandra", const { &[tcp(9042)] }),
    named("dhcp", const { &[ports(Transport::Udp, 67, 68), ports(Transport::Udp, 546, 547)] }),
    named("dns", const { &[udp(53), tcp(53)] }),
    named("dns-over-tls", const { &[tcp(853)] }),
    named("elasticsearch", const { &[tcp(9200), tcp(9300)] }),
    named("esp", const { &[protocol(50)] }),
    named("etcd", const { &[ports(Transport::Tcp, 2379, 2380)] }),
    named("geneve", const { &[udp(6081)] }),
    named("gre", const { &[protocol(47)] }),
    named("http", const { &[tcp(80)] }),
    named("http3", const { &[udp(443)] }),
    named("https", const { &[tcp(443)] }),
    named("ike", const { &[udp(500), udp(4500)] }),
    named("imap", const { &[tcp(143)] }),
    named("imaps", const { &[tcp(993)] }),
    named("kafka", const { &[tcp(9092)] }),
    named("kerberos", const { &[tcp(88), udp(88)] }),
    named("ldap", const { &[tcp(389), udp(389)] }),
    named("ldaps", const { &[tcp(636)] }),
    named("memcached", const { &[tcp(11211)] }),
    named("mongodb", const { &[tcp(27017)] }),
    named("mqtt", const { &[tcp(1883)] }),
    named("mssql", const { &[tcp(1433)] }),
    named("mysql", const { &[tcp(3306)] }),
    named("nats", const { &[tcp(4222)] }),
    named("nfs", const { &[tcp(2049)] }),
    named("ntp", const { &[udp(123)] }),
    named("ping", const { &[icmp(Icmp::V4, 8), icmp(Icmp::V6, 128)] }),
    named("pop3", const { &[tcp(110)] }),
    named("pop3s", const { &[tcp(995)] }),
    named("postgres", const { &[tcp(5432)] }),
    named("prometheus", const { &[tcp(9090)] }),
    named("radius", const { &[ports(Transport::Udp, 1812, 1813)] }),
    named("rdp", const { &[tcp(3389), udp(3389)] }),
    named("redis", const { &[tcp(6379)] }),
    named("sip", const { &[tcp(5060), udp(5060)] }),
    named("smb", const { &[tcp(445)] }),
    named("smtp", const { &[tcp(25)] }),
    named("snmp", const { &[udp(161)] }),
    named("ssh", const { &[tcp(22)] }),
    named("submission", const { &[tcp(587), tcp(465)] }),
    named("syslog", const { &[udp(514)] }),
    named("telnet", const { &[tcp(23)] }),
    named("tftp", const { &[udp(69)] }),
    named("vxlan", const { &[udp(4789)] }),
    named("winrm", const { &[ports(Transport::Tcp, 5985, 5986)] }),
    named("wireguard", const { &[udp(51820)] }),
];

impl Service {
    /// What it means, names resolved; a frame is of this service when it fits one of these.
    pub fn matches(&self) -> Vec<ServiceMatch> {
        match *self {
            Self::Ports(transport, ports) => {
                vec![ServiceMatch { protocol: Some(transport.protocol()), ports, icmp: None }]
            }
            Self::Icmp(version, icmp) => {
                vec![ServiceMatch { protocol: Some(version.protocol()), ports: None, icmp }]
            }
            Self::Protocol(number) => vec![protocol(number)],
            Self::Named(service) => service.matches.to_vec(),
        }
    }
}

/// Why a text names no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// Neither a protocol nor a named service.
    #[error("there is no service or protocol {got:?}")]
    Unknown {
        /// The word, cut to 40 characters.
        got: String,
    },
    /// What stands behind the protocol is no port or range of ports.
    #[error("{got:?} is no port and no range of ports")]
    Ports {
        /// The text, cut to 40 characters.
        got: String,
    },
    /// The range ends before it begins.
    #[error("the range of ports begins with {first} and ends with {last}")]
    Backwards {
        /// As written.
        first: u16,
        /// As written.
        last: u16,
    },
    /// What stands behind `icmp` or `icmpv6` is no type and code.
    #[error("{got:?} is no ICMP type with a code")]
    Icmp {
        /// The text, cut to 40 characters.
        got: String,
    },
    /// What stands behind `proto` is no protocol number.
    #[error("{got:?} is no IP protocol number")]
    Number {
        /// The text, cut to 40 characters.
        got: String,
    },
}

impl Expects for ServiceError {
    fn expected(&self) -> String {
        match self {
            Self::Unknown { .. } => {
                "tcp, udp or sctp with ports, such as tcp/443 or tcp/8443-8450; icmp or icmpv6 with a type, such as \
                 icmp/8; proto with a number; or a name such as https, ssh, dns, ping, postgres"
                    .to_owned()
            }
            Self::Ports { .. } => "a port or a range of ports from 0 to 65535, such as tcp/443 or tcp/8443-8450".to_owned(),
            Self::Backwards { first, last } => format!("the lower port first: {last}-{first}"),
            Self::Icmp { .. } => {
                "a type and perhaps a code, each from 0 to 255, such as icmp/8 or icmp/3/4".to_owned()
            }
            Self::Number { .. } => "a protocol number from 0 to 255, such as proto/47".to_owned(),
        }
    }
}

impl FromStr for Service {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let cut = |text: &str| text.chars().take(40).collect::<String>();
        let (word, rest) = match text.split_once('/') {
            Some((word, rest)) => (word, Some(rest)),
            None => (text, None),
        };
        let with_ports = |transport| match rest {
            None => Ok(Self::Ports(transport, None)),
            Some(rest) => Ok(Self::Ports(transport, Some(port_range(rest)?))),
        };
        let with_type = |version| {
            let Some(rest) = rest else { return Ok(Self::Icmp(version, None)) };
            let (kind, code) = match rest.split_once('/') {
                Some((kind, code)) => (kind, Some(code)),
                None => (rest, None),
            };
            let parsed = decimal(kind).zip(code.map_or(Some(None), |code| decimal(code).map(Some)));
            let wanted = parsed.ok_or_else(|| ServiceError::Icmp { got: cut(rest) })?;
            Ok(Self::Icmp(version, Some(wanted)))
        };
        match word {
            "tcp" => with_ports(Transport::Tcp),
            "udp" => with_ports(Transport::Udp),
            "sctp" => with_ports(Transport::Sctp),
            "icmp" => with_type(Icmp::V4),
            "icmpv6" => with_type(Icmp::V6),
            "proto" => {
                let number = rest.and_then(decimal);
                let got = || ServiceError::Number { got: cut(rest.unwrap_or_default()) };
                number.map(Self::Protocol).ok_or_else(got)
            }
            _ => {
                let found = NAMED.iter().find(|named| named.name == text);
                found.map(Self::Named).ok_or_else(|| ServiceError::Unknown { got: cut(text) })
            }
        }
    }
}

fn port_range(text: &str) -> Result<(u16, u16), ServiceError> {
    let wrong = || ServiceError::Ports { got: text.chars().take(40).collect() };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = decimal(first).zip(decimal(last)).ok_or_else(wrong)?;
    if first <= last { Ok((first, last)) } else { Err(ServiceError::Backwards { first, last }) }
}

/// A number in plain decimal: `parse` alone would also take a sign.
fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(transport, None) => f.write_str(transport.as_str()),
            Self::Ports(transport, Some((first, last))) if first == last => {
                write!(f, "{}/{first}", transport.as_str())
            }
            Self::Ports(transport, Some((first, last))) => write!(f, "{}/{first}-{last}", transport.as_str()),
            Self::Icmp(version, None) => f.write_str(version.as_str()),
            Self::Icmp(version, Some((kind, None))) => write!(f, "{}/{kind}", version.as_str()),
            Self::Icmp(version, Some((kind, Some(code)))) => write!(f, "{}/{kind}/{code}", version.as_str()),
            Self::Protocol(number) => write!(f, "proto/{number}"),
            Self::Named(service) => f.write_str(service.name),
        }
    }
}

impl Serialize for Service {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, "a service, such as tcp/443, icmp/8 or https")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_written_in_one_way_and_means_numbers() {
        let one = |protocol, ports, icmp| vec![ServiceMatch { protocol: Some(protocol), ports, icmp }];
        for (text, meaning) in [
            ("tcp", one(6, None, None)),
            ("tcp/443", one(6, Some((443, 443)), None)),
            ("tcp/8443-8450", one(6, Some((8443, 8450)), None)),
            ("udp/53", one(17, Some((53, 53)), None)),
            ("sctp/2905", one(132, Some((2905, 2905)), None)),
            ("icmp", one(1, None, None)),
            ("icmp/8", one(1, None, Some((8, None)))),
            ("icmp/3/4", one(1, None, Some((3, Some(4))))),
            ("icmpv6/128", one(58, None, Some((128, None)))),
            ("proto/47", one(47, None, None)),
            ("https", one(6, Some((443, 443)), None)),
        ] {
            let service: Service = text.parse().unwrap();
            assert_eq!(service.matches(), meaning, "{text}");
            assert_eq!(service.to_string(), text);
        }
        assert_eq!("tcp/80-80".parse::<Service>().unwrap().to_string(), "tcp/80");
        let dns: Service = "dns".parse().unwrap();
        assert_eq!(dns.matches(), [udp(53), tcp(53)]);
    }

    #[test]
    fn what_is_no_service_is_told_what_would_be_right() {
        for (text, right) in [
            ("tcp/65536", "from 0 to 65535"),
            ("tcp/", "from 0 to 65535"),
            ("tcp/-1", "from 0 to 65535"),
            ("tcp/+1", "from 0 to 65535"),
            ("tcp/1-2-3", "from 0 to 65535"),
            ("udp/20-10", "10-20"),
            ("icmp/256", "icmp/3/4"),
            ("icmp/3/4/5", "icmp/3/4"),
            ("icmp/", "icmp/3/4"),
            ("proto", "proto/47"),
            ("proto/300", "proto/47"),
            ("TCP/80", "tcp/443"),
            ("https/443", "https"),
            ("gopher", "postgres"),
            ("", "postgres"),
        ] {
            let error = text.parse::<Service>().unwrap_err();
            assert!(error.expected().contains(right), "{text}: {}", error.expected());
        }
    }

    #[test]
    fn the_table_of_names_is_sorted_and_no_name_is_a_protocol() {
        assert!(NAMED.windows(2).all(|pair| pair[0].name < pair[1].name));
        for service in NAMED {
            assert_eq!(service.name.parse::<Service>().unwrap(), Service::Named(service));
            assert!(!service.matches.is_empty());
        }
    }
}
