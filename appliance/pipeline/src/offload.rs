//! What the sender asks of checksum and segmentation fits the frame, and cannot change what was judged.
//!
//! A partial checksum is a write that somebody does later, at a place and with a value that the sender chose: if it
//! could hit a port number or a neighbour's address, the frame that arrives would not be the frame that was guarded.

use wire::gso::{MAX_TCP_SEGMENTS, MAX_UDP_SEGMENTS};
use wire::vnet::{self, VnetHeader};
use wire::{icmp, ipv4, ipv6, tcp, udp};

use crate::parse::{Fragment, Ip, Packet};
use crate::{DropReason, Frame, HEAD};

/// Bytes of an SCTP common header (RFC 9260, section 3.1).
const SCTP_HEADER_LEN: usize = 12;

/// What goes over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Packets that the frame is cut into; 1 for nearly all.
    pub(crate) packets: u32,
    /// Bytes of the largest of them, from the Ethernet header on.
    pub(crate) largest: u32,
    /// Bytes of all of them together.
    pub(crate) bytes: u32,
}

/// Checks the frame's `virtio_net_hdr` and leaves in it only what was proven.
#[inline(always)]
pub(crate) fn offload(frame: &mut Frame<'_>, packet: &Packet) -> Result<Cut, DropReason> {
    let asked = VnetHeader::from_bytes(frame.net);
    *frame.net = [0; vnet::LEN];
    let whole = Cut { packets: 1, largest: *frame.len, bytes: *frame.len };
    if !asked.needs_csum() && asked.gso_type == vnet::GSO_NONE {
        return Ok(whole);
    }
    let (proven, cut) = match packet {
        Packet::Ip(ip) if asked.gso_type == vnet::GSO_NONE => {
            (partial_checksum(frame.head, ip, &asked), whole)
        }
        Packet::Ip(ip) => segments(frame, ip, &asked).map_or((None, whole), |(net, cut)| (Some(net), cut)),
        Packet::Arp => (None, whole),
    };
    *frame.net = proven.ok_or(DropReason::BadOffload)?.to_bytes();
    Ok(cut)
}

/// Where a transport's header ends, as far as anybody looks at it, and where its checksum lies in it.
fn transport(head: &[u8; HEAD], ip: &Ip) -> (usize, Option<usize>) {
    let start = ip.transport();
    match ip.protocol {
        ipv4::TCP => {
            let words = head.get(start + tcp::DATA_OFFSET).map_or(0, |byte| usize::from(byte >> 4));
            (start + words * 4, Some(tcp::CHECKSUM_OFFSET))
        }
        ipv4::UDP => (start + udp::HEADER_LEN, Some(udp::CHECKSUM_OFFSET)),
        // All of a message is looked at. Nothing in it is anybody's checksum but its own.
        ipv4::ICMP | ipv6::ICMPV6 => (usize::MAX, Some(icmp::CHECKSUM_OFFSET)),
        // A CRC, not a sum.
        ipv4::SCTP => (start + SCTP_HEADER_LEN, None),
        // Opaque to us.
        _ => (start, None),
    }
}

/// The transport's own checksum, or one inside its payload (of a packet in a tunnel that the guest makes).
fn partial_checksum(head: &[u8; HEAD], ip: &Ip, asked: &VnetHeader) -> Option<VnetHeader> {
    let (start, offset) = (usize::from(asked.csum_start), usize::from(asked.csum_offset));
    let (header_end, own) = transport(head, ip);
    let is_own = start == ip.transport() && own == Some(offset);
    let is_inner = start >= ip.transport() && start + offset >= header_end;
    let fits = start + offset + 2 <= ip.end as usize;
    (ip.fragment == Fragment::Whole && fits && (is_own || is_inner)).then_some(VnetHeader {
        flags: vnet::NEEDS_CSUM,
        csum_start: asked.csum_start,
        csum_offset: asked.csum_offset,
        ..VnetHeader::default()
    })
}

/// TCP or UDP to be cut: the type fits the packet, the open checksum is the transport's own, and nothing lies behind the
/// packet that no segment would carry and nobody would count.
fn segments(frame: &Frame<'_>, ip: &Ip, asked: &VnetHeader) -> Option<(VnetHeader, Cut)> {
    let most = match (asked.gso_kind(), ip.protocol, ip.v6) {
        (vnet::GSO_TCPV4, ipv4::TCP, false) | (vnet::GSO_TCPV6, ipv4::TCP, true) => MAX_TCP_SEGMENTS,
        (vnet::GSO_UDP_L4, ipv4::UDP, _) if asked.gso_type == vnet::GSO_UDP_L4 => MAX_UDP_SEGMENTS,
        _ => return None,
    };
    let (header_end, own) = transport(frame.head, ip);
    let own_checksum = asked.needs_csum()
        && usize::from(asked.csum_start) == ip.transport()
        && Some(usize::from(asked.csum_offset)) == own;
    if ip.fragment != Fragment::Whole || !own_checksum || asked.gso_size == 0 || ip.end != *frame.len {
        return None;
    }
    let size = u32::from(asked.gso_size);
    let header_len = header_end as u32;
    let payload = ip.end.checked_sub(header_len)?;
    let packets = payload.div_ceil(size).max(1);
    if packets as usize > most {
        return None;
    }
    let cut = Cut { packets, largest: header_len + size.min(payload), bytes: packets * header_len + payload };
    let proven = VnetHeader { flags: vnet::NEEDS_CSUM, hdr_len: header_end as u16, num_buffers: 0, ..*asked };
    Some((proven, cut))
}
