//! What the appliance answers by itself, in place: the frame becomes its own answer.
//!
//! Neighbours are declared, so nobody needs to be asked: ARP and neighbour solicitations are answered from the
//! snapshot for every address of the network, and never travel. What a workload would learn from others' questions, or
//! could answer wrongly, does not exist.

use core::net::{IpAddr, Ipv6Addr};

use wire::arp;
use wire::checksum;
use wire::icmp;
use wire::vnet::{self, VnetHeader};
use wire::{ethernet, ipv4, ipv6, nd};

use crate::guard::message;
use crate::header::{self, L3};
use crate::parse::{self, Fragment, Ip, Message, Packet};
use crate::snapshot::{Next, mac_number};
use crate::{DropReason, Frame, Port, Snapshot};

/// Time to live of what the gateway sends: RFC 1700's default.
const TTL: u8 = 64;
/// Where an advertisement ends.
const ADVERTISEMENT_END: usize = L3 + ipv6::HEADER_LEN + nd::ADVERTISEMENT_LEN;
/// All nodes on the link (RFC 4291, section 2.7.1), and the MAC of that group (RFC 2464, section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Turns the frame into its answer (`true`), lets it go on (`false`), or drops what would be answered but has no answer.
#[inline(always)]
pub(crate) fn respond(
    snapshot: &Snapshot,
    port: &Port,
    frame: &mut Frame<'_>,
    packet: &Packet,
) -> Result<bool, DropReason> {
    match packet {
        Packet::Arp => answer_arp(snapshot, port, frame),
        Packet::Ip(ip) => match ip.message {
            Message::Other
            | Message::Echo
            | Message::NeighbourAdvertisement
            // The guard lets none of these through.
            | Message::DhcpReply
            | Message::Redirect
            | Message::RouterAdvertisement
            | Message::InverseNeighbour => answer_gateway(snapshot, port, frame, ip),
            Message::NeighbourSolicitation => answer_solicitation(snapshot, port, frame, ip),
            Message::RouterSolicitation => Err(DropReason::RouterSolicitation),
            Message::GroupMembership => Err(DropReason::GroupMembership),
            Message::DhcpRequest => Err(DropReason::NoDhcpServer),
        },
    }
}

#[cold]
fn answer_arp(snapshot: &Snapshot, port: &Port, frame: &mut Frame<'_>) -> Result<bool, DropReason> {
    let arp = parse::arp(frame)?;
    // An announcement (RFC 5227, section 2.3) claims only what is its own: it may go on and refresh caches.
    let announcement = arp.sender == arp.target && !arp.sender.is_unspecified();
    if arp.operation == arp::REPLY || announcement {
        return to_others(port, frame);
    }
    let neighbour =
        snapshot.neighbour(port.network(), IpAddr::V4(arp.target)).ok_or(DropReason::UnknownNeighbour)?;
    if mac_number(neighbour.mac) == port.mac_number() {
        return Err(DropReason::AddressProbe);
    }
    write_ethernet(frame, arp.sender_mac, neighbour.mac, ethernet::ARP);
    header::put(frame.head, L3, &arp.answer(neighbour.mac).to_bytes());
    complete(frame, L3 + arp::LEN);
    Ok(true)
}

#[cold]
fn answer_solicitation(
    snapshot: &Snapshot,
    port: &Port,
    frame: &mut Frame<'_>,
    ip: &Ip,
) -> Result<bool, DropReason> {
    let solicitation = message(frame, ip).and_then(|message| nd::Neighbour::parse(message).ok());
    let target = solicitation.ok_or(DropReason::MalformedNd)?.target;
    let neighbour =
        snapshot.neighbour(port.network(), IpAddr::V6(target)).ok_or(DropReason::UnknownNeighbour)?;
    if mac_number(neighbour.mac) == port.mac_number() {
        return Err(DropReason::AddressProbe);
    }
    let asker = Ipv6Addr::from_bits(header::ipv6_source(frame.head));
    let asker_mac = header::source_mac_octets(frame.head);
    let router = if neighbour.gateway { nd::ROUTER } else { 0 };
    // RFC 4861, section 7.2.4: a probe is answered to everybody, without the solicited flag.
    let (to, to_mac, solicited) = if asker.is_unspecified() {
        (ALL_NODES, ALL_NODES_MAC, 0)
    } else {
        (asker, asker_mac, nd::SOLICITED)
    };
    let advertisement = nd::advertisement(target, neighbour.mac, router | solicited | nd::OVERRIDE, to);
    write_ethernet(frame, to_mac, neighbour.mac, ethernet::IPV6);
    let [len_hi, len_lo] = (nd::ADVERTISEMENT_LEN as u16).to_be_bytes();
    header::put(frame.head, L3, &[0x60, 0, 0, 0, len_hi, len_lo, ipv6::ICMPV6, nd::HOP_LIMIT]);
    header::put(frame.head, L3 + ipv6::field::SOURCE.start, &target.octets());
    header::put(frame.head, L3 + ipv6::field::DESTINATION.start, &to.octets());
    header::put(frame.head, L3 + ipv6::HEADER_LEN, &advertisement);
    complete(frame, ADVERTISEMENT_END);
    Ok(true)
}

/// What is sent to the gateway's MAC ends there.
#[inline(always)]
fn answer_gateway(
    snapshot: &Snapshot,
    port: &Port,
    frame: &mut Frame<'_>,
    ip: &Ip,
) -> Result<bool, DropReason> {
    if header::destination_mac(frame.head) != port.gateway_mac_number() {
        return Ok(false);
    }
    if port.is_routed() && !may_be_ping(ip) {
        // Announcements are of one link.
        let on = ip.message != Message::NeighbourAdvertisement;
        return if on { Ok(false) } else { Err(DropReason::NoRoute) };
    }
    answer_ping(snapshot, port, frame, ip)
}

/// Whether it is an echo request, or a later fragment of what may be one.
#[inline(always)]
fn may_be_ping(ip: &Ip) -> bool {
    let icmp = if ip.v6 { ipv6::ICMPV6 } else { ipv4::ICMP };
    ip.message == Message::Echo || (ip.protocol == icmp && matches!(ip.fragment, Fragment::Later(_)))
}

/// The gateway answers ping at its own address, and at those of its router on other networks, and nothing else. All else
/// is its router's, if it has one.
#[cold]
fn answer_ping(snapshot: &Snapshot, port: &Port, frame: &mut Frame<'_>, ip: &Ip) -> Result<bool, DropReason> {
    let (_, destination) = header::addresses(frame.head, ip.v6);
    let own = snapshot.neighbour(port.network(), destination).is_some_and(|found| found.gateway);
    let router = snapshot.network(port.network()).router();
    let gateway = own || router.is_some_and(|router| snapshot.next(router, destination) == Next::Gateway);
    if !gateway && router.is_some() {
        return Ok(false);
    }
    // Fragments of a long ping are answered one by one: the checksum lies in the first, and changes by what the type
    // changes, whatever the others hold.
    if !gateway || !may_be_ping(ip) {
        return Err(DropReason::NoRoute);
    }
    echo(frame, ip);
    Ok(true)
}

/// Turns an echo request, or a later fragment of one, into the reply: addresses change places, which no checksum
/// notices, and the type changes, which the checksum is told without looking at the payload.
fn echo(frame: &mut Frame<'_>, ip: &Ip) {
    let head = &mut *frame.head;
    let (to, from) = head.split_at_mut(6);
    to.swap_with_slice(&mut from[..6]);
    if ip.v6 {
        let (source, destination) = head.split_at_mut(L3 + ipv6::field::DESTINATION.start);
        source[L3 + ipv6::field::SOURCE.start..].swap_with_slice(&mut destination[..16]);
        head[L3 + ipv6::field::HOP_LIMIT] = TTL;
    } else {
        let (source, destination) = head.split_at_mut(L3 + ipv4::field::DESTINATION.start);
        source[L3 + ipv4::field::SOURCE.start..].swap_with_slice(&mut destination[..4]);
        let (ttl, sum) = (L3 + ipv4::field::TTL, L3 + ipv4::field::CHECKSUM.start);
        let old = header::word(head, ttl);
        head[ttl] = TTL;
        let updated = checksum::update(header::word(head, sum), old, header::word(head, ttl));
        header::put(head, sum, &updated.to_be_bytes());
    }
    if ip.message != Message::Echo {
        return;
    }
    let old = header::word(head, ip.transport());
    let reply = if ip.v6 { icmp::v6::ECHO_REPLY } else { icmp::v4::ECHO_REPLY };
    header::put(head, ip.transport(), &[reply]);
    // A checksum that is still open covers the type when it is finished.
    if !VnetHeader::from_bytes(frame.net).needs_csum() {
        let sum = ip.transport() + icmp::CHECKSUM_OFFSET;
        let updated = checksum::update(header::word(head, sum), old, header::word(head, ip.transport()));
        header::put(head, sum, &updated.to_be_bytes());
    }
}

/// Nothing sent to the gateway's MAC goes on.
fn to_others(port: &Port, frame: &Frame<'_>) -> Result<bool, DropReason> {
    if header::destination_mac(frame.head) == port.gateway_mac_number() {
        return Err(DropReason::NoRoute);
    }
    Ok(false)
}

fn write_ethernet(frame: &mut Frame<'_>, destination: [u8; 6], source: [u8; 6], ethertype: u16) {
    header::put(frame.head, 0, &destination);
    header::put(frame.head, 6, &source);
    header::put(frame.head, 12, &ethertype.to_be_bytes());
}

/// The answer ends here, is complete in the head and asks for nothing.
fn complete(frame: &mut Frame<'_>, end: usize) {
    *frame.head_len = end as u16;
    *frame.len = end as u32;
    *frame.net = [0; vnet::LEN];
}
