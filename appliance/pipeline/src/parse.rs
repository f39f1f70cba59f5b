//! Where the headers are: offsets and lengths, proven once.

use wire::arp::Arp;
use wire::ethernet;
use wire::icmp;
use wire::ipv4::{self, Ipv4};
use wire::ipv6::{self, Ipv6};
use wire::{HeaderError, tcp, udp};

use crate::header::L3;
use crate::{DropReason, Frame, HEAD};

/// Bytes of an SCTP common header (RFC 9260).
const SCTP_HEADER_LEN: usize = 12;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// An ARP request or reply.
    Arp(Arp),
    /// An IPv4 or IPv6 packet.
    Ip(Ip),
}

/// An IP packet whose headers, up to and including the transport's, lie in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    /// IPv6, not IPv4.
    pub(crate) v6: bool,
    /// The transport protocol.
    pub(crate) protocol: u8,
    /// Whether the transport header is here, and the whole packet.
    pub(crate) fragment: Fragment,
    /// What the transport header says that guard and respond care for. `Other` in a later fragment.
    pub(crate) message: Message,
    /// Where the transport header starts in the frame; in a later fragment, the fragment's data.
    pub(crate) transport: u16,
    /// Where the packet ends in the frame. Bytes behind it are padding.
    pub(crate) end: u32,
}

/// Which part of a packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragment {
    /// All of it.
    Whole,
    /// The first fragment, with the transport header. IPv6 packets with a fragment header that are whole count as
    /// such: neighbour discovery may not have one at all (RFC 6980).
    First,
    /// A later fragment, that many units of 8 bytes into the data.
    Later(u16),
}

/// What kind of message the transport header starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Anything that belongs to workloads alone.
    Other,
    /// From a DHCPv4 or DHCPv6 client.
    DhcpRequest,
    /// From a DHCPv4 or DHCPv6 server or relay.
    DhcpReply,
    /// IGMP or MLD.
    GroupMembership,
    /// ICMP or ICMPv6 echo request.
    Echo,
    /// ICMP or ICMPv6 redirect.
    Redirect,
    /// ICMPv6 router solicitation.
    RouterSolicitation,
    /// ICMP or ICMPv6 router advertisement, router renumbering.
    RouterAdvertisement,
    /// Neighbour solicitation.
    NeighbourSolicitation,
    /// Neighbour advertisement.
    NeighbourAdvertisement,
    /// Inverse neighbour solicitation or advertisement.
    InverseNeighbour,
}

impl Ip {
    /// The transport header's offset in the head.
    #[inline]
    pub(crate) fn transport(&self) -> usize {
        usize::from(self.transport)
    }
}

/// Finds the headers of a frame.
#[inline]
pub(crate) fn parse(frame: &Frame<'_>) -> Result<Packet, DropReason> {
    let len = *frame.len as usize;
    let head = frame.head.get(..usize::from(*frame.head_len).min(len)).unwrap_or(frame.head);
    let Some((ethernet, packet)) = head.split_first_chunk::<L3>() else { return Err(DropReason::Truncated) };
    let packet_len = len - L3;
    match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        ethernet::IPV4 => parse_ipv4(packet, packet_len).map(Packet::Ip),
        ethernet::IPV6 => parse_ipv6(packet, packet_len).map(Packet::Ip),
        ethernet::ARP => match Arp::parse(packet) {
            Ok(arp) => Ok(Packet::Arp(arp)),
            Err(HeaderError::Short { .. }) => Err(DropReason::Truncated),
            Err(_) => Err(DropReason::MalformedArp),
        },
        tag if ethernet::is_tag(tag) => Err(DropReason::VlanTagged),
        _ => Err(DropReason::UnknownEthertype),
    }
}

#[inline]
fn parse_ipv4(packet: &[u8], packet_len: usize) -> Result<Ip, DropReason> {
    let header = Ipv4::parse(packet, packet_len)
        .map_err(|error| network_error(error, packet_len, DropReason::MalformedIpv4))?;
    let (offset, end) = (header.header_len(), header.total_len());
    if !header.options().is_empty() && header.has_source_route() {
        return Err(DropReason::SourceRoute);
    }
    let fragment = if header.is_fragment() {
        let word = header.fragment_word();
        let (units, more) = (word & ipv4::FRAGMENT_OFFSET, word & ipv4::MORE_FRAGMENTS != 0);
        fragment(units, more, end - offset).ok_or(DropReason::MalformedIpv4)?
    } else {
        Fragment::Whole
    };
    transport(packet, false, header.protocol(), fragment, offset, end)
}

#[inline]
fn parse_ipv6(packet: &[u8], packet_len: usize) -> Result<Ip, DropReason> {
    let header = Ipv6::parse(packet, packet_len)
        .map_err(|error| network_error(error, packet_len, DropReason::MalformedIpv6))?;
    let end = header.total_len();
    let upper = if ipv6::is_extension(header.next_header()) {
        // What lies behind the packet's end is not part of the chain.
        let chain = packet.get(..end).unwrap_or(packet);
        ipv6::upper(chain).map_err(|error| network_error(error, end, DropReason::MalformedIpv6))?
    } else {
        ipv6::Upper { protocol: header.next_header(), offset: ipv6::HEADER_LEN, fragment: None }
    };
    let fragment = match upper.fragment {
        None => Fragment::Whole,
        Some(word) => fragment(word >> 3, word & 1 != 0, end.saturating_sub(upper.offset))
            .ok_or(DropReason::MalformedIpv6)?,
    };
    transport(packet, true, upper.protocol, fragment, upper.offset, end)
}

/// The fragment's place, unless no honest sender cuts like this: a fragment that has others behind it carries a
/// multiple of 8 bytes, none is empty, and together they are no longer than 65535 bytes.
fn fragment(units: u16, more: bool, len: usize) -> Option<Fragment> {
    let end = usize::from(units) * 8 + len;
    if len == 0 || (more && !len.is_multiple_of(8)) || end > usize::from(u16::MAX) {
        return None;
    }
    Some(if units == 0 { Fragment::First } else { Fragment::Later(units) })
}

/// Measures the transport header at `offset` of a packet that ends at `end`; both from the network header on.
#[inline]
fn transport(
    packet: &[u8],
    v6: bool,
    protocol: u8,
    fragment: Fragment,
    offset: usize,
    end: usize,
) -> Result<Ip, DropReason> {
    // Of the bytes at hand those that belong to the packet.
    let at_hand = packet.get(..end).unwrap_or(packet).get(offset..).ok_or(DropReason::HeadersTooLong)?;
    let len = end - offset;
    let message = match (protocol, fragment) {
        // RFC 3128, and the same for IPv6: the first fragment must hold the TCP header, so a later one that starts
        // within it was made to replace what was looked at. Other headers end before the first later fragment can start.
        (ipv4::TCP, Fragment::Later(units)) if usize::from(units) * 8 < tcp::HEADER_LEN => {
            return Err(DropReason::MalformedTransport);
        }
        (_, Fragment::Later(_)) => Message::Other,
        (ipv4::UDP, _) => {
            let header = first::<{ udp::HEADER_LEN }>(at_hand, len)?;
            let says = usize::from(u16::from_be_bytes([header[4], header[5]]));
            if says < udp::HEADER_LEN || (fragment == Fragment::Whole && says > len) {
                return Err(DropReason::MalformedTransport);
            }
            let source = u16::from_be_bytes([header[0], header[1]]);
            let destination = u16::from_be_bytes([header[2], header[3]]);
            udp_message(v6, source, destination)
        }
        (ipv4::TCP, _) => {
            let header = first::<{ tcp::HEADER_LEN }>(at_hand, len)?;
            let header_len = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
            if header_len < tcp::HEADER_LEN || header_len > len {
                return Err(DropReason::MalformedTransport);
            }
            if header_len > at_hand.len() {
                return Err(DropReason::HeadersTooLong);
            }
            Message::Other
        }
        (ipv4::ICMP, _) if !v6 => icmp_message(first::<{ icmp::HEADER_LEN }>(at_hand, len)?[0]),
        (ipv6::ICMPV6, _) if v6 => icmpv6_message(first::<{ icmp::HEADER_LEN }>(at_hand, len)?[0]),
        (ipv4::IGMP, _) if !v6 => Message::GroupMembership,
        (ipv4::SCTP, _) => {
            first::<SCTP_HEADER_LEN>(at_hand, len)?;
            Message::Other
        }
        _ => Message::Other,
    };
    let (transport, end) = ((L3 + offset) as u16, (L3 + end) as u32);
    Ok(Ip { v6, protocol, fragment, message, transport, end })
}

/// A header of `N` bytes: malformed when the packet (of which `len` bytes are left) ends before it does, too long when
/// only the head does.
#[inline]
fn first<const N: usize>(at_hand: &[u8], len: usize) -> Result<&[u8; N], DropReason> {
    match at_hand.first_chunk::<N>() {
        Some(header) => Ok(header),
        None if len < N => Err(DropReason::MalformedTransport),
        None => Err(DropReason::HeadersTooLong),
    }
}

fn network_error(error: HeaderError, packet_len: usize, malformed: DropReason) -> DropReason {
    match error {
        HeaderError::Short { need, .. } if need > packet_len => DropReason::Truncated,
        HeaderError::Short { .. } => DropReason::HeadersTooLong,
        HeaderError::Extension(_) => DropReason::ExtensionHeader,
        HeaderError::Routing(_) => DropReason::SourceRoute,
        HeaderError::Field { .. } | HeaderError::Length { .. } => malformed,
    }
}

/// A client takes what reaches its port for a server's answer, whatever port it came from; a server or relay sends from
/// its own port.
#[inline]
fn udp_message(v6: bool, source: u16, destination: u16) -> Message {
    let (server, client) =
        if v6 { (udp::DHCPV6_SERVER, udp::DHCPV6_CLIENT) } else { (udp::DHCP_SERVER, udp::DHCP_CLIENT) };
    if destination == client || source == server {
        Message::DhcpReply
    } else if destination == server {
        Message::DhcpRequest
    } else {
        Message::Other
    }
}

fn icmp_message(kind: u8) -> Message {
    match kind {
        icmp::v4::ECHO_REQUEST => Message::Echo,
        icmp::v4::REDIRECT => Message::Redirect,
        icmp::v4::ROUTER_ADVERTISEMENT => Message::RouterAdvertisement,
        _ => Message::Other,
    }
}

fn icmpv6_message(kind: u8) -> Message {
    use icmp::v6;
    match kind {
        v6::ECHO_REQUEST => Message::Echo,
        v6::REDIRECT => Message::Redirect,
        v6::ROUTER_SOLICITATION => Message::RouterSolicitation,
        v6::ROUTER_ADVERTISEMENT | v6::ROUTER_RENUMBERING => Message::RouterAdvertisement,
        v6::NEIGHBOUR_SOLICITATION => Message::NeighbourSolicitation,
        v6::NEIGHBOUR_ADVERTISEMENT => Message::NeighbourAdvertisement,
        v6::INVERSE_SOLICITATION | v6::INVERSE_ADVERTISEMENT => Message::InverseNeighbour,
        v6::LISTENER_QUERY | v6::LISTENER_REPORT | v6::LISTENER_DONE | v6::LISTENER_REPORT_V2 => {
            Message::GroupMembership
        }
        _ => Message::Other,
    }
}

const _: () = assert!(HEAD > L3 + ipv6::HEADER_LEN + 60, "IPv6 with the longest TCP header fits the head");
