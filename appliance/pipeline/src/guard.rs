//! The port may speak only for itself (R23).
//!
//! What is checked here is who a frame claims to be from, in every place where it says so: the Ethernet source, the IP
//! source, the sender of ARP, the target and the link-layer options of neighbour discovery; and that it does not play a
//! part that belongs to the network: DHCP server, router.

use core::net::Ipv6Addr;

use wire::arp;
use wire::checksum::Sum;
use wire::vnet::NEEDS_CSUM;
use wire::{ipv6, nd, udp};

use crate::parse::{self, Fragment, Ip, Message, Packet};
use crate::snapshot::mac_number;
use crate::{DropReason, Frame, HEAD, Port, header};

/// 127.0.0.0/8.
const LOOPBACK_V4: u32 = 127;
const BROADCAST_V4: u32 = u32::MAX;
const UNSPECIFIED_V4: u32 = 0;
const UNSPECIFIED_V6: u128 = 0;
const LOOPBACK_V6: u128 = 1;

/// Checks every claim of the frame against its port.
#[inline(always)]
pub(crate) fn guard(port: &Port, frame: &Frame<'_>, packet: &Packet) -> Result<(), DropReason> {
    if header::source_mac(frame.head) != port.mac_number() {
        return Err(DropReason::SpoofedMac);
    }
    match packet {
        Packet::Ip(ip) => guard_ip(port, frame, ip),
        Packet::Arp => guard_arp(port, frame),
    }
}

/// Of an IP packet alone, whatever the frame around it says.
#[inline(always)]
pub(crate) fn guard_ip(port: &Port, frame: &Frame<'_>, ip: &Ip) -> Result<(), DropReason> {
    if ip.v6 { guard_ipv6(port, frame, ip) } else { guard_ipv4(port, frame.head, ip) }
}

#[inline(always)]
fn guard_ipv4(port: &Port, head: &[u8; HEAD], ip: &Ip) -> Result<(), DropReason> {
    let (source, destination) = (header::ipv4_source(head), header::ipv4_destination(head));
    if !port.has_ipv4(source) && !has_no_address_yet(head, ip, source, destination) {
        return Err(DropReason::SpoofedIpv4);
    }
    if destination >> 24 == LOOPBACK_V4 {
        return Err(DropReason::LoopbackDestination);
    }
    match ip.message {
        Message::Other => Ok(()),
        message => part_of_the_network(message),
    }
}

/// What a host without an address may send from 0.0.0.0: a DHCP client's broadcast (RFC 2131, section 4.1), an IGMPv3
/// report (RFC 3376, section 4.2.13). Both end in the respond stage.
#[cold]
fn has_no_address_yet(head: &[u8; HEAD], ip: &Ip, source: u32, destination: u32) -> bool {
    match ip.message {
        _ if source != UNSPECIFIED_V4 => false,
        Message::GroupMembership => true,
        Message::DhcpRequest => {
            ip.fragment == Fragment::Whole
                && destination == BROADCAST_V4
                && header::word(head, ip.transport()) == udp::DHCP_CLIENT
        }
        _ => false,
    }
}

#[inline(always)]
fn guard_ipv6(port: &Port, frame: &Frame<'_>, ip: &Ip) -> Result<(), DropReason> {
    let (source, destination) = (header::ipv6_source(frame.head), header::ipv6_destination(frame.head));
    if !port.has_ipv6(source) && !answered_here(source, ip.message) {
        return Err(DropReason::SpoofedIpv6);
    }
    if destination == LOOPBACK_V6 {
        return Err(DropReason::LoopbackDestination);
    }
    match ip.message {
        Message::Other => Ok(()),
        Message::NeighbourSolicitation | Message::NeighbourAdvertisement => {
            guard_nd(port, frame, ip, source, destination)
        }
        message => part_of_the_network(message),
    }
}

/// Messages that never reach another workload: the respond stage answers or drops each of them. They may come from the
/// unspecified address where their RFC says so, and from a link-local address that does not follow from the MAC (RFC
/// 7217, RFC 8981): nobody but the sender itself is told of it.
#[cold]
fn answered_here(source: u128, message: Message) -> bool {
    let unspecified = source == UNSPECIFIED_V6;
    let link_local = Ipv6Addr::from_bits(source).is_unicast_link_local();
    match message {
        // RFC 4861, sections 4.1 and 4.3; RFC 3810, section 5.2.13.
        Message::NeighbourSolicitation | Message::RouterSolicitation | Message::GroupMembership => {
            unspecified || link_local
        }
        // RFC 8415, section 17.
        Message::DhcpRequest => link_local,
        _ => false,
    }
}

/// Roles that belong to the appliance.
#[cold]
fn part_of_the_network(message: Message) -> Result<(), DropReason> {
    match message {
        Message::DhcpReply => Err(DropReason::RogueDhcpServer),
        Message::RouterAdvertisement => Err(DropReason::RogueRouter),
        Message::Redirect => Err(DropReason::RogueRedirect),
        // RFC 3122 is for frame relay; on Ethernet it could only claim what neighbour discovery may not.
        Message::InverseNeighbour => Err(DropReason::SpoofedNd),
        Message::Other
        | Message::DhcpRequest
        | Message::GroupMembership
        | Message::Echo
        | Message::RouterSolicitation
        | Message::NeighbourSolicitation
        | Message::NeighbourAdvertisement => Ok(()),
    }
}

#[cold]
fn guard_arp(port: &Port, frame: &Frame<'_>) -> Result<(), DropReason> {
    let arp = parse::arp(frame)?;
    // RFC 5227, section 2.1: a probe is a request from 0.0.0.0.
    let probe = arp.operation == arp::REQUEST && arp.sender.is_unspecified();
    let own = port.has_ipv4(arp.sender.to_bits()) || probe;
    if own && mac_number(arp.sender_mac) == port.mac_number() { Ok(()) } else { Err(DropReason::SpoofedArp) }
}

#[cold]
fn guard_nd(
    port: &Port,
    frame: &Frame<'_>,
    ip: &Ip,
    source: u128,
    destination: u128,
) -> Result<(), DropReason> {
    let malformed = DropReason::MalformedNd;
    // RFC 4861, sections 7.1.1 and 7.1.2: not routed. RFC 6980: not fragmented, not even in one fragment.
    if header::hop_limit(frame.head) != nd::HOP_LIMIT || ip.fragment != Fragment::Whole {
        return Err(malformed);
    }
    // All of it must be seen: an option beyond the head could say anything.
    let message = message(frame, ip).ok_or(malformed)?;
    let neighbour = nd::Neighbour::parse(message).map_err(|_| malformed)?;
    if neighbour.link_layer.is_some_and(|mac| mac_number(mac) != port.mac_number()) {
        return Err(DropReason::SpoofedNd);
    }
    if ip.message == Message::NeighbourAdvertisement {
        let own = port.has_ipv6(neighbour.target.to_bits());
        return if own { Ok(()) } else { Err(DropReason::SpoofedNd) };
    }
    let [source, destination] = [source, destination].map(Ipv6Addr::from_bits);
    let finished = frame.net[0] & NEEDS_CSUM == 0;
    let sum = Sum::pseudo_v6(source, destination, ipv6::ICMPV6, message.len() as u32).bytes(message);
    if finished && sum.checksum() != 0 {
        return Err(malformed);
    }
    let probe = source.is_unspecified();
    if probe && (neighbour.link_layer.is_some() || destination != nd::solicited_node(neighbour.target)) {
        return Err(malformed);
    }
    Ok(())
}

/// The transport's bytes, if all of them lie in the head.
pub(crate) fn message<'a>(frame: &'a Frame<'_>, ip: &Ip) -> Option<&'a [u8]> {
    let end = ip.end as usize;
    if end > usize::from(*frame.head_len) { None } else { frame.head.get(ip.transport()..end) }
}
