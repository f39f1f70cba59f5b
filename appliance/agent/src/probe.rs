//! The packet of a trace, as its workload would send it. Pure.

use std::net::IpAddr;

use mgmt_types::agent::SlicePort;
use mgmt_types::question::{Probe, TraceRequest};
use pipeline::{NetworkIndex, PortIndex, link_local};
use wire::arp::{self, Arp};
use wire::checksum::Sum;
use wire::icmp::v6::NEIGHBOUR_SOLICITATION;
use wire::{ethernet, ipv4, ipv6, nd, vnet};

use crate::directory::{Directory, full_name};

/// Where a client's port comes from when nobody says: the first of the dynamic ones (RFC 6335, section 6).
const SOURCE_PORT: u16 = 49152;
/// A usual time to live.
const TTL: u8 = 64;
/// TCP's SYN flag.
const SYN: u8 = 0x02;
/// SCTP's INIT chunk (RFC 9260, section 3.2).
const INIT: u8 = 1;

/// A frame that nobody sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeFrame {
    /// Who would send it; on this host or another.
    pub(crate) port: PortIndex,
    /// The network.
    pub(crate) network: NetworkIndex,
    /// Its addresses.
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// The frame, and the net header before it.
    pub(crate) bytes: Vec<u8>,
    pub(crate) net: [u8; vnet::LEN],
}

/// A trace that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProbeFailure {
    #[error("no port of {name} is known on this host; it is on none of the networks that have ports here")]
    UnknownSource { name: String },
    #[error(
        "{name} is neither an address nor a workload with a port on a network of {source_name}, or on one that a router joins to it"
    )]
    UnknownDestination { name: String, source_name: String },
    #[error("{source_name} has no {version} address to reach {destination} from")]
    NoAddress { source_name: String, version: &'static str, destination: String },
    #[error("{source_name} and {destination} have no addresses of one IP version that {probe} can use")]
    NoVersion { source_name: String, destination: String, probe: Probe },
    #[error("{probe} is for {version}, {destination} is not")]
    Family { probe: Probe, version: &'static str, destination: String },
}

impl ProbeFrame {
    /// Makes the packet that was asked for, by the names of one configuration.
    pub(crate) fn new(directory: &Directory, request: &TraceRequest) -> Result<Self, ProbeFailure> {
        let (port, network, target) = ends(directory, request)?;
        let sender = directory
            .port(port)
            .ok_or_else(|| ProbeFailure::UnknownSource { name: request.source.clone() })?;
        let (source, destination) = addresses(request, sender, &target)?;
        let own = sender.mac.octets();
        let bytes = match directory.snapshot.neighbour(network, destination) {
            Some(neighbour) => frame(own, neighbour.mac, (source, destination), request),
            // Before anything else, a workload asks who has an address that is near.
            None if is_near(directory, sender, destination) => question(own, source, destination),
            // What is far goes to the gateway, as a workload with a default route would have it.
            None => {
                let gateway = directory.snapshot.network(network).gateway_mac();
                frame(own, gateway, (source, destination), request)
            }
        };
        Ok(Self { port, network, source, destination, bytes, net: [0; vnet::LEN] })
    }
}

/// Who is meant.
enum Target<'a> {
    Address(IpAddr),
    Port(&'a SlicePort),
}

/// The sending port, its network, and who is meant: of several ports of a workload those that share a network, or else a
/// router.
fn ends<'a>(
    directory: &'a Directory,
    request: &TraceRequest,
) -> Result<(PortIndex, NetworkIndex, Target<'a>), ProbeFailure> {
    let slice = &directory.slice;
    let of = |name: &str| -> Vec<(PortIndex, &'a SlicePort)> {
        let fits = |port: &SlicePort| port.workload == name || full_name(port) == name;
        (0..).map(PortIndex).zip(&slice.ports).filter(|(_, port)| fits(port)).collect()
    };
    let senders = of(&request.source);
    let first =
        *senders.first().ok_or_else(|| ProbeFailure::UnknownSource { name: request.source.clone() })?;
    let network_of = |port: PortIndex| directory.snapshot.port(port).network();
    if let Ok(address) = request.destination.parse::<IpAddr>() {
        let near = senders.iter().find(|(_, port)| is_near(directory, port, address));
        let (port, _) = near.copied().unwrap_or(first);
        return Ok((port, network_of(port), Target::Address(address)));
    }
    let targets = of(&request.destination);
    let domain_of = |port: PortIndex| directory.snapshot.network(network_of(port)).domain();
    let pair = |meet: &dyn Fn(PortIndex, PortIndex) -> bool| {
        senders.iter().find_map(|(port, _)| {
            let (_, target) = targets.iter().find(|(other, _)| other != port && meet(*port, *other))?;
            Some((*port, *target))
        })
    };
    let near = pair(&|one, other| network_of(one) == network_of(other));
    let both = near.or_else(|| pair(&|one, other| domain_of(one) == domain_of(other)));
    let (port, target) = both.ok_or_else(|| ProbeFailure::UnknownDestination {
        name: request.destination.clone(),
        source_name: request.source.clone(),
    })?;
    Ok((port, network_of(port), Target::Port(target)))
}

/// Whether an address is on a subnet of the port's network.
fn is_near(directory: &Directory, port: &SlicePort, address: IpAddr) -> bool {
    let network = directory.slice.networks.iter().find(|network| network.name == port.network);
    network.is_some_and(|network| network.subnets.iter().any(|subnet| subnet.contains(&address)))
}

/// Who has the destination? By ARP (RFC 826) or a neighbour solicitation (RFC 4861, section 4.3).
fn question(own: [u8; 6], source: IpAddr, destination: IpAddr) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(sender), IpAddr::V4(target)) => {
            let (operation, target_mac) = (arp::REQUEST, [0; 6]);
            let arp = Arp { operation, sender_mac: own, sender, target_mac, target };
            [&ethernet::BROADCAST[..], &own, &ethernet::ARP.to_be_bytes(), &arp.to_bytes()].concat()
        }
        (source, IpAddr::V6(target)) => {
            let group = nd::solicited_node(target);
            let [.., a, b, c] = group.octets();
            let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
            message.extend(target.octets());
            message.extend([nd::SOURCE_LINK_LAYER, 1]);
            message.extend(own);
            let ends = (source, IpAddr::V6(group));
            packet(own, [0x33, 0x33, 0xff, a, b, c], ends, ipv6::ICMPV6, nd::HOP_LIMIT, message, Some(2))
        }
        // Both are of one version.
        (IpAddr::V6(_), IpAddr::V4(_)) => Vec::new(),
    }
}

/// Addresses of one version: IPv4 where both have it and the packet may be IPv4.
fn addresses(
    request: &TraceRequest,
    sender: &SlicePort,
    target: &Target<'_>,
) -> Result<(IpAddr, IpAddr), ProbeFailure> {
    let version = |v6: bool| if v6 { "IPv6" } else { "IPv4" };
    let own = |v6: bool| {
        let declared = sender.addresses.iter().copied().find(|address| address.is_ipv6() == v6);
        declared.or_else(|| v6.then(|| IpAddr::V6(link_local(sender.mac.octets()))))
    };
    match *target {
        Target::Address(destination) => {
            let v6 = destination.is_ipv6();
            if let Some(needed) = request.service.needs_v6().filter(|needed| *needed != v6) {
                let (probe, version) = (request.service, version(needed));
                return Err(ProbeFailure::Family { probe, version, destination: destination.to_string() });
            }
            let local = matches!(destination, IpAddr::V6(address) if address.is_unicast_link_local());
            let source = if local { Some(IpAddr::V6(link_local(sender.mac.octets()))) } else { own(v6) };
            let source = source.ok_or_else(|| ProbeFailure::NoAddress {
                source_name: request.source.clone(),
                version: version(v6),
                destination: destination.to_string(),
            })?;
            Ok((source, destination))
        }
        Target::Port(port) => {
            let families = match request.service.needs_v6() {
                Some(v6) => vec![v6],
                None => vec![false, true],
            };
            let pair = families.iter().find_map(|&v6| {
                let declared =
                    |port: &SlicePort| port.addresses.iter().copied().find(|address| address.is_ipv6() == v6);
                Some((declared(sender)?, declared(port)?))
            });
            pair.ok_or_else(|| ProbeFailure::NoVersion {
                source_name: request.source.clone(),
                destination: full_name(port),
                probe: request.service,
            })
        }
    }
}

fn frame(
    from: [u8; 6],
    to: [u8; 6],
    ends: (IpAddr, IpAddr),
    TraceRequest { service, source_port, .. }: &TraceRequest,
) -> Vec<u8> {
    let v6 = ends.1.is_ipv6();
    let transport = transport(*service, v6, source_port.unwrap_or(SOURCE_PORT));
    packet(from, to, ends, service.protocol(v6), TTL, transport, checksum_place(*service))
}

/// Ethernet and IP around a packet whose checksum, at this place, is still zero.
fn packet(
    from: [u8; 6],
    to: [u8; 6],
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    ttl: u8,
    mut transport: Vec<u8>,
    checksum: Option<usize>,
) -> Vec<u8> {
    if let Some(place) = checksum {
        let len = transport.len() as u32;
        let sum = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) if protocol != ipv4::ICMP => {
                Sum::pseudo_v4(source, destination, protocol, len)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Sum::pseudo_v6(source, destination, protocol, len)
            }
            _ => Sum::default(),
        };
        let sum = sum.bytes(&transport).checksum();
        transport[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut frame = [to, from].concat();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [hi, lo] = ((ipv4::HEADER_LEN + transport.len()) as u16).to_be_bytes();
            let mut header = [0x45, 0, hi, lo, 0, 0, 0x40, 0, ttl, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header[ipv4::field::SOURCE].copy_from_slice(&source.octets());
            header[ipv4::field::DESTINATION].copy_from_slice(&destination.octets());
            let sum = Sum::default().bytes(&header).checksum();
            header[ipv4::field::CHECKSUM].copy_from_slice(&sum.to_be_bytes());
            frame.extend(ethernet::IPV4.to_be_bytes());
            frame.extend(header);
        }
        (source, destination) => {
            let [hi, lo] = (transport.len() as u16).to_be_bytes();
            frame.extend(ethernet::IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0, hi, lo, protocol, ttl]);
            for address in [source, destination] {
                if let IpAddr::V6(address) = address {
                    frame.extend(address.octets());
                }
            }
        }
    }
    frame.extend(transport);
    frame
}

/// The packet behind its IP header, its checksum still zero.
fn transport(probe: Probe, v6: bool, source_port: u16) -> Vec<u8> {
    let ports = |port: u16| [source_port.to_be_bytes(), port.to_be_bytes()].concat();
    match probe {
        // Sequence number 1, no acknowledgement, five words, a window.
        Probe::Tcp(port) => {
            let mut segment = ports(port);
            segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0xff, 0xff, 0, 0, 0, 0]);
            segment
        }
        Probe::Udp(port) => {
            let mut datagram = ports(port);
            datagram.extend([0, 8, 0, 0]);
            datagram
        }
        // No verification tag, no checksum (nobody here looks at it), one INIT chunk of 20 bytes.
        Probe::Sctp(port) => {
            let mut packet = ports(port);
            packet.extend([0; 8]);
            packet.extend([INIT, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1]);
            packet
        }
        Probe::Ping => vec![if v6 { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1],
        Probe::Icmp(kind, code) | Probe::Icmpv6(kind, code) => vec![kind, code, 0, 0, 0, 1, 0, 1],
        Probe::Protocol(_) => Vec::new(),
    }
}

fn checksum_place(probe: Probe) -> Option<usize> {
    match probe {
        Probe::Tcp(_) => Some(16),
        Probe::Udp(_) => Some(6),
        Probe::Ping | Probe::Icmp(..) | Probe::Icmpv6(..) => Some(2),
        Probe::Sctp(_) | Probe::Protocol(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use mgmt_types::agent::{Slice, SliceRouter};
    use pipeline::HashKey;

    use super::*;
    use crate::compile::tests::{slice, vm_port};
    use crate::compile::{Known, compile};

    /// web-1 has 10.0.1.11 and fd00:1::11, db-1 10.0.1.12 and fd00:1::12.
    fn two() -> Slice {
        let mut slice = slice(vec![vm_port(1, "web-1"), vm_port(2, "db-1")]);
        slice.networks[0].subnets.push("fd00:1::/64".parse().expect("a net"));
        for port in &mut slice.ports {
            port.addresses.push(format!("fd00:1::{}", 10 + port.id).parse().expect("an address"));
        }
        slice
    }

    fn directory(slice: Slice) -> Directory {
        let compiled = compile(&slice, "here", Path::new("/run/palisade"), HashKey([1, 2]), Known::default());
        Directory::new(Arc::new(slice), Arc::new(compiled.expect("compiles").snapshot))
    }

    fn probe(
        slice: Slice,
        source: &str,
        destination: &str,
        service: &str,
    ) -> Result<ProbeFrame, ProbeFailure> {
        let request = TraceRequest {
            source: source.into(),
            destination: destination.into(),
            service: service.parse().expect("a probe"),
            source_port: None,
        };
        ProbeFrame::new(&directory(slice), &request)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// scapy's bytes for the same packets, such as `Ether(src=..,dst=..)/IP(src="10.0.1.11",dst="10.0.1.12",id=0,flags="DF")/
    /// TCP(sport=49152,dport=5432,flags="S",seq=1,window=65535)`.
    #[test]
    fn probes_are_the_packets_that_scapy_makes() {
        let ethernet = "020000000002020000000001";
        let v4 = "0a00010b0a00010c";
        let v6 = "fd000001000000000000000000000011fd000001000000000000000000000012";
        let golden = [
            (
                "db-1",
                "tcp/5432",
                format!("08004500002800004000400624ba{v4}c000153800000001000000005002ffffc4920000"),
            ),
            ("db-1.eth0", "udp/53", format!("08004500001c00004000401124bb{v4}c000003500082992")),
            ("10.0.1.12", "ping", format!("08004500001c00004000400124cb{v4}0800f7fd00010001")),
            ("db-1", "proto/47", format!("08004500001400004000402f24a5{v4}")),
            (
                "fd00:1::12",
                "tcp/5432",
                format!("86dd6000000000140640{v6}c000153800000001000000005002ffffe0820000"),
            ),
            ("fd00:1::12", "udp/53", format!("86dd6000000000081140{v6}c000003500084582")),
            ("db-1", "icmpv6/128", format!("86dd6000000000083a40{v6}8000859400010001")),
            // But for the checksum, which is no part of what is judged.
            (
                "db-1",
                "sctp/2905",
                format!(
                    "08004500003400004000408424300a00010b0a00010cc0000b5900000000{:08x}01000014000000010000ffff0001000100000001",
                    0
                ),
            ),
        ];
        for (destination, service, bytes) in golden {
            let probe = probe(two(), "web-1", destination, service).expect("a probe");
            assert_eq!(hex(&probe.bytes), format!("{ethernet}{bytes}"), "{service} to {destination}");
        }
    }

    /// scapy's bytes again, such as `Ether(..)/ARP(op=1,hwsrc=..,psrc="10.0.1.11",pdst="10.0.1.99")`.
    #[test]
    fn for_an_address_that_is_near_and_nobodys_the_question_is_sent() {
        let asked = probe(two(), "web-1", "10.0.1.99", "tcp/1").expect("a probe");
        let arp = "ffffffffffff020000000001080600010800060400010200000000010a00010b0000000000000a000163";
        assert_eq!(hex(&asked.bytes), arp);
        let asked = probe(two(), "web-1", "fd00:1::99", "tcp/1").expect("a probe");
        let solicitation = "3333ff00009902000000000186dd6000000000203afffd000001000000000000000000000011\
                            ff0200000000000000000001ff00009987007c5700000000fd0000010000000000000000\
                            000000990101020000000001";
        assert_eq!(hex(&asked.bytes), solicitation);
        let far = probe(two(), "web-1", "192.0.2.1", "tcp/1").expect("a probe");
        assert_eq!(far.bytes[..6], [2, 0, 0, 0, 1, 1], "not to the gateway");
    }

    #[test]
    fn of_several_ports_those_that_share_a_network_are_taken() {
        let mut slice = two();
        slice.networks.push(slice.networks[0].clone());
        slice.networks[1].vni = 200;
        (slice.networks[1].name, slice.networks[1].subnets) =
            ("green".into(), vec!["10.0.2.0/24".parse().expect("a net")]);
        let mut green = vm_port(3, "db-1");
        (green.name, green.network, green.addresses) =
            ("eth1".into(), "green".into(), vec!["10.0.2.3".parse().expect("an address")]);
        slice.ports.insert(0, green);
        let there = probe(slice.clone(), "web-1", "db-1", "ping").expect("a probe");
        assert_eq!((there.port, there.destination), (PortIndex(1), IpAddr::from([10, 0, 1, 12])));
        let back = probe(slice.clone(), "db-1", "10.0.2.9", "ping").expect("a probe");
        assert_eq!((back.port, back.source), (PortIndex(0), IpAddr::from([10, 0, 2, 3])));
        let error = probe(slice.clone(), "web-1", "db-1.eth1", "ping").expect_err("another network");
        assert!(matches!(error, ProbeFailure::UnknownDestination { .. }), "{error}");
        // Once a router joins the two, it goes to the gateway.
        slice.routers = vec![SliceRouter { name: "core".into(), routes: Vec::new() }];
        slice.networks[1].gateways.clear();
        slice.networks.iter_mut().for_each(|network| network.router = Some("core".into()));
        let routed = probe(slice, "web-1", "db-1.eth1", "ping").expect("a probe");
        assert_eq!((routed.port, routed.destination), (PortIndex(1), IpAddr::from([10, 0, 2, 3])));
        assert_eq!(routed.bytes[..6], [2, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn what_cannot_be_sent_is_said_in_words() {
        for (source, destination, service, says) in [
            ("web-9", "db-1", "ping", "no port of web-9"),
            ("web-1", "db-9", "ping", "db-9 is neither"),
            ("web-1", "10.0.1.12", "icmpv6/128", "is for IPv6"),
            ("web-1", "web-1", "ping", "web-1 is neither"),
        ] {
            let error = probe(two(), source, destination, service).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
        let mut slice = two();
        slice.ports[0].addresses.truncate(1);
        slice.ports[1].addresses.remove(0);
        let error =
            probe(slice.clone(), "web-1", "db-1", "tcp/1").expect_err("no common version").to_string();
        assert!(error.contains("one IP version"), "{error}");
        slice.ports[0].addresses.clear();
        let error = probe(slice, "web-1", "10.0.1.12", "tcp/1").expect_err("no address").to_string();
        assert!(error.contains("no IPv4 address"), "{error}");
    }
}
