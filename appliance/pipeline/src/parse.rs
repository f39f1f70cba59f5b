//! Where the headers are: offsets and lengths, proven once.

use wire::arp::Arp;
use wire::ethernet;
use wire::icmp;
use wire::ipv4::{self, Ipv4};
use wire::ipv6::{self, Ipv6};
use wire::{HeaderError, sctp, tcp, udp};

use crate::header::L3;
use crate::{DropReason, Frame, HEAD};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// An ARP request or reply: [`arp`] reads it.
    Arp,
    /// An IPv4 or IPv6 packet.
    Ip(Ip),
}

/// An IP packet whose headers, up to and including the transport's, lie in the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fragment {
    /// All of it.
    #[default]
    Whole,
    /// The first fragment, with the transport header. IPv6 packets with a fragment header that are whole count as
    /// such: neighbour discovery may not have one at all (RFC 6980).
    First,
    /// A later fragment, that many units of 8 bytes into the data.
    Later(u16),
}

/// What kind of message the transport header starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Message {
    /// Anything that belongs to workloads alone.
    #[default]
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
#[inline(always)]
pub(crate) fn parse(frame: &Frame<'_>) -> Result<Packet, DropReason> {
    let len = *frame.len as usize;
    let head = frame.head.get(..usize::from(*frame.head_len).min(len)).unwrap_or(frame.head);
    let Some((ethernet, packet)) = head.split_first_chunk::<L3>() else { return Err(DropReason::Truncated) };
    let packet_len = len - L3;
    match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        ethernet::IPV4 => parse_ipv4(packet, packet_len).map(Packet::Ip),
        ethernet::IPV6 => parse_ipv6(packet, packet_len).map(Packet::Ip),
        other => parse_other(frame, other),
    }
}

#[cold]
fn parse_other(frame: &Frame<'_>, ethertype: u16) -> Result<Packet, DropReason> {
    match ethertype {
        ethernet::ARP => arp(frame).map(|_| Packet::Arp),
        tag if ethernet::is_tag(tag) => Err(DropReason::VlanTagged),
        _ => Err(DropReason::UnknownEthertype),
    }
}

/// The ARP request or reply in a frame that carries one.
pub(crate) fn arp(frame: &Frame<'_>) -> Result<Arp, DropReason> {
    let packet = frame.head.get(L3..usize::from(*frame.head_len)).unwrap_or_default();
    Arp::parse(packet).map_err(|error| match error {
        HeaderError::Short { .. } => DropReason::Truncated,
        _ => DropReason::MalformedArp,
    })
}

#[inline(always)]
fn parse_ipv4(packet: &[u8], packet_len: usize) -> Result<Ip, DropReason> {
    let header = Ipv4::parse(packet, packet_len)
        .map_err(|error| network_error(error, packet_len, DropReason::MalformedIpv4))?;
    let (offset, end) = (header.header_len(), header.total_len());
    let fragment = if header.is_fragment() || offset > ipv4::HEADER_LEN {
        unusual_ipv4(&header)?
    } else {
        Fragment::Whole
    };
    transport(packet, false, header.protocol(), fragment, offset, end)
}

/// Options and fragments.
#[cold]
fn unusual_ipv4(header: &Ipv4<'_>) -> Result<Fragment, DropReason> {
    if header.has_source_route() {
        return Err(DropReason::SourceRoute);
    }
    if !header.is_fragment() {
        return Ok(Fragment::Whole);
    }
    let word = header.fragment_word();
    let (units, more) = (word & ipv4::FRAGMENT_OFFSET, word & ipv4::MORE_FRAGMENTS != 0);
    fragment(units, more, header.total_len() - header.header_len()).ok_or(DropReason::MalformedIpv4)
}

#[inline(always)]
fn parse_ipv6(packet: &[u8], packet_len: usize) -> Result<Ip, DropReason> {
    let header = Ipv6::parse(packet, packet_len)
        .map_err(|error| network_error(error, packet_len, DropReason::MalformedIpv6))?;
    let end = header.total_len();
    let next = header.next_header();
    if ipv6::is_extension(next) {
        return parse_extensions(packet, end);
    }
    transport(packet, true, next, Fragment::Whole, ipv6::HEADER_LEN, end)
}

#[cold]
fn parse_extensions(packet: &[u8], end: usize) -> Result<Ip, DropReason> {
    // What lies behind the packet's end is not part of the chain.
    let chain = packet.get(..end).unwrap_or(packet);
    let upper = ipv6::upper(chain).map_err(|error| network_error(error, end, DropReason::MalformedIpv6))?;
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
// Inlined into its three callers: the result, passed through memory, would cost more than all the checks.
#[inline(always)]
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
        (ipv4::UDP, Fragment::Whole) => udp_message(v6, at_hand, len, len)?,
        (ipv4::TCP, Fragment::Whole) => tcp_message(at_hand, len)?,
        _ => other_message(v6, protocol, fragment, at_hand, len)?,
    };
    let (transport, end) = ((L3 + offset) as u16, (L3 + end) as u32);
    Ok(Ip { v6, protocol, fragment, message, transport, end })
}

#[cold]
fn other_message(
    v6: bool,
    protocol: u8,
    fragment: Fragment,
    at_hand: &[u8],
    len: usize,
) -> Result<Message, DropReason> {
    match (protocol, fragment) {
        // RFC 3128, and the same for IPv6: the first fragment must hold the TCP header, so a later one that starts
        // within it was made to replace what was looked at. Other headers end before the first later fragment can start.
        (ipv4::TCP, Fragment::Later(units)) if usize::from(units) * 8 < tcp::HEADER_LEN => {
            Err(DropReason::MalformedTransport)
        }
        (_, Fragment::Later(_)) => Ok(Message::Other),
        // The length is that of the whole datagram, of which this is a part.
        (ipv4::UDP, _) => udp_message(v6, at_hand, len, usize::MAX),
        (ipv4::TCP, _) => tcp_message(at_hand, len),
        (ipv4::ICMP, _) if !v6 => Ok(icmp_message(first::<{ icmp::HEADER_LEN }>(at_hand, len)?[0])),
        (ipv6::ICMPV6, _) if v6 => Ok(icmpv6_message(first::<{ icmp::HEADER_LEN }>(at_hand, len)?[0])),
        (ipv4::IGMP, _) if !v6 => Ok(Message::GroupMembership),
        (ipv4::SCTP, _) => first::<{ sctp::HEADER_LEN }>(at_hand, len).map(|_| Message::Other),
        _ => Ok(Message::Other),
    }
}

/// A header of `N` bytes: malformed when the packet (of which `len` bytes are left) ends before it does, too long when
/// only the head does.
#[inline(always)]
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

#[inline(always)]
fn tcp_message(at_hand: &[u8], len: usize) -> Result<Message, DropReason> {
    let header = first::<{ tcp::HEADER_LEN }>(at_hand, len)?;
    let header_len = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
    if header_len < tcp::HEADER_LEN || header_len > len {
        return Err(DropReason::MalformedTransport);
    }
    if header_len > at_hand.len() { Err(DropReason::HeadersTooLong) } else { Ok(Message::Other) }
}

/// `most` is the largest honest length field.
#[inline(always)]
fn udp_message(v6: bool, at_hand: &[u8], len: usize, most: usize) -> Result<Message, DropReason> {
    let header = first::<{ udp::HEADER_LEN }>(at_hand, len)?;
    let word = |at| u16::from_be_bytes([header[at], header[at + 1]]);
    let (source, destination, says) = (word(0), word(2), usize::from(word(udp::LENGTH_OFFSET)));
    if says < udp::HEADER_LEN || says > most {
        return Err(DropReason::MalformedTransport);
    }
    let (server, client) =
        if v6 { (udp::DHCPV6_SERVER, udp::DHCPV6_CLIENT) } else { (udp::DHCP_SERVER, udp::DHCP_CLIENT) };
    // A client takes what reaches its port for a server's answer, whatever port it came from; a server or relay sends
    // from its own port.
    Ok(if destination == client || source == server {
        Message::DhcpReply
    } else if destination == server {
        Message::DhcpRequest
    } else {
        Message::Other
    })
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
