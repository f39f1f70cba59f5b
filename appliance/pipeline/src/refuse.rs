//! A refusal that is answered: the frame becomes a TCP reset, or an ICMP error that says that an administrator forbids
//! it, from the address that was asked; or one that says why it goes no further, from the gateway.

use core::net::IpAddr;

use wire::checksum::Sum;
use wire::vnet;
use wire::{ethernet, icmp, ipv4, ipv6, tcp};

use crate::header::{self, L3};
use crate::parse::{Fragment, Ip};
use crate::{Frame, HEAD};

/// Time to live of an answer.
const TTL: u8 = 64;
/// Bytes of the refused packet that an error quotes: RFC 792 asks for the header and 8 bytes, RFC 1812 and RFC 4443 for
/// as much as fits; this is what was looked at and leaves room for the error's own headers.
const QUOTED: usize = 96;

/// Turns the frame into the answer. False when there is none: errors are not answered to errors (RFC 1122, section
/// 3.2.2), to resets, to later fragments, or to what was sent from nobody's address.
pub(crate) fn refuse(frame: &mut Frame<'_>, ip: &Ip) -> bool {
    if matches!(ip.fragment, Fragment::Later(_)) || is_error(frame, ip) {
        return false;
    }
    if ip.protocol == ipv4::TCP && ip.fragment == Fragment::Whole {
        reset(frame, ip)
    } else {
        let prohibited = if ip.v6 {
            [icmp::v6::DESTINATION_UNREACHABLE, icmp::v6::PROHIBITED]
        } else {
            [icmp::v4::DESTINATION_UNREACHABLE, icmp::v4::PROHIBITED]
        };
        let (_, asked) = header::addresses(frame.head, ip.v6);
        error(frame, ip, asked, prohibited, 0)
    }
}

/// Why a packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Nobody knows a way to its destination.
    NoRoute,
    /// Its time to live is over.
    TtlExceeded,
    /// It is larger than this many bytes, which fit on the way.
    TooBig(u32),
}

/// Turns the frame into the gateway's word on what stands in its way (RFC 792, RFC 1191, RFC 4443), from `gateway`. False
/// when there is none, as for [`refuse`].
pub(crate) fn tell(frame: &mut Frame<'_>, ip: &Ip, gateway: IpAddr, obstacle: Obstacle) -> bool {
    if matches!(ip.fragment, Fragment::Later(_)) || is_error(frame, ip) {
        return false;
    }
    let (message, number) = match (obstacle, ip.v6) {
        (Obstacle::NoRoute, false) => ([icmp::v4::DESTINATION_UNREACHABLE, icmp::v4::NETWORK_UNREACHABLE], 0),
        (Obstacle::NoRoute, true) => ([icmp::v6::DESTINATION_UNREACHABLE, icmp::v6::NO_ROUTE], 0),
        (Obstacle::TtlExceeded, false) => ([icmp::v4::TIME_EXCEEDED, 0], 0),
        (Obstacle::TtlExceeded, true) => ([icmp::v6::TIME_EXCEEDED, 0], 0),
        (Obstacle::TooBig(mtu), false) => {
            ([icmp::v4::DESTINATION_UNREACHABLE, icmp::v4::FRAGMENTATION_NEEDED], mtu.min(u16::MAX.into()))
        }
        (Obstacle::TooBig(mtu), true) => ([icmp::v6::PACKET_TOO_BIG, 0], mtu),
    };
    error(frame, ip, gateway, message, number)
}

fn is_error(frame: &Frame<'_>, ip: &Ip) -> bool {
    let kind = (header::word(frame.head, ip.transport()) >> 8) as u8;
    match (ip.v6, ip.protocol) {
        (false, ipv4::ICMP) => icmp::v4::is_error(kind),
        (true, ipv6::ICMPV6) => icmp::v6::is_error(kind),
        _ => false,
    }
}

/// RFC 9293, section 3.10.7.1: an answer to a segment for a connection that does not exist.
fn reset(frame: &mut Frame<'_>, ip: &Ip) -> bool {
    let at = ip.transport();
    let Some(old) = frame.head.get(at..).and_then(|rest| rest.first_chunk::<{ tcp::HEADER_LEN }>()).copied()
    else {
        return false;
    };
    let flags = old[tcp::FLAGS_OFFSET];
    if flags & tcp::RST != 0 {
        return false;
    }
    let number =
        |place: usize| u32::from_be_bytes([old[place], old[place + 1], old[place + 2], old[place + 3]]);
    let header_len = u32::from(old[tcp::DATA_OFFSET] >> 4) * 4;
    let payload = ip.end.saturating_sub(u32::from(ip.transport)).saturating_sub(header_len);
    let (sequence, acknowledged, flags) = if flags & tcp::ACK != 0 {
        (number(tcp::ACKNOWLEDGEMENT_OFFSET), 0, tcp::RST)
    } else {
        let counted = payload + u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
        (0, number(tcp::SEQUENCE_OFFSET).wrapping_add(counted), tcp::RST | tcp::ACK)
    };
    let mut segment = [0; tcp::HEADER_LEN];
    segment[0..2].copy_from_slice(&old[2..4]);
    segment[2..4].copy_from_slice(&old[0..2]);
    segment[tcp::SEQUENCE_OFFSET..][..4].copy_from_slice(&sequence.to_be_bytes());
    segment[tcp::ACKNOWLEDGEMENT_OFFSET..][..4].copy_from_slice(&acknowledged.to_be_bytes());
    segment[tcp::DATA_OFFSET] = (tcp::HEADER_LEN as u8 / 4) << 4;
    segment[tcp::FLAGS_OFFSET] = flags;
    let (_, asked) = header::addresses(frame.head, ip.v6);
    answer(frame, ip, asked, ipv4::TCP, segment.len(), |message| {
        message.copy_from_slice(&segment);
        tcp::CHECKSUM_OFFSET
    })
}

/// An ICMP error of this type and code (of a refusal RFC 792, type 3 code 13, RFC 1812, section 5.2.7.1; RFC 4443, type 1
/// code 1), with this number in its header's second word.
fn error(frame: &mut Frame<'_>, ip: &Ip, from: IpAddr, [kind, code]: [u8; 2], number: u32) -> bool {
    let mut quoted = [0; QUOTED];
    let end = (ip.end as usize).min(usize::from(*frame.head_len));
    let Some(packet) = frame.head.get(L3..end) else { return false };
    let len = packet.len().min(QUOTED);
    quoted[..len].copy_from_slice(&packet[..len]);
    let protocol = if ip.v6 { ipv6::ICMPV6 } else { ipv4::ICMP };
    answer(frame, ip, from, protocol, icmp::HEADER_LEN + len, |message| {
        let (header, rest) = message.split_at_mut(icmp::HEADER_LEN);
        let [a, b, c, d] = number.to_be_bytes();
        header.copy_from_slice(&[kind, code, 0, 0, a, b, c, d]);
        rest.copy_from_slice(&quoted[..len]);
        icmp::CHECKSUM_OFFSET
    })
}

/// Writes the headers of an answer from `asked` whose message `write` fills; it says where the message's checksum lies.
fn answer(
    frame: &mut Frame<'_>,
    ip: &Ip,
    asked: IpAddr,
    protocol: u8,
    len: usize,
    write: impl FnOnce(&mut [u8]) -> usize,
) -> bool {
    let header_len = if ip.v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
    let (start, end) = (L3 + header_len, L3 + header_len + len);
    let (asker, _) = header::addresses(frame.head, ip.v6);
    let head: &mut [u8; HEAD] = frame.head;
    let (to, from) = head.split_at_mut(6);
    to.swap_with_slice(&mut from[..6]);
    let Some(message) = head.get_mut(start..end) else { return false };
    let at = write(message);
    let pseudo = match (asked, asker) {
        (IpAddr::V6(asked), IpAddr::V6(asker)) => Sum::pseudo_v6(asked, asker, protocol, len as u32),
        (IpAddr::V4(asked), IpAddr::V4(asker)) if protocol == ipv4::TCP => {
            Sum::pseudo_v4(asked, asker, protocol, len as u32)
        }
        // ICMP for IPv4 has no pseudo-header.
        _ => Sum::default(),
    };
    let checksum = pseudo.bytes(message).checksum();
    message[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    match (asked, asker) {
        (IpAddr::V6(asked), IpAddr::V6(asker)) => {
            let [high, low] = (len as u16).to_be_bytes();
            header::put(head, L3, &[0x60, 0, 0, 0, high, low, protocol, TTL]);
            header::put(head, L3 + ipv6::field::SOURCE.start, &asked.octets());
            header::put(head, L3 + ipv6::field::DESTINATION.start, &asker.octets());
        }
        (IpAddr::V4(asked), IpAddr::V4(asker)) => {
            let [high, low] = ((header_len + len) as u16).to_be_bytes();
            let mut ip = [0x45, 0, high, low, 0, 0, 0x40, 0, TTL, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            ip[ipv4::field::SOURCE].copy_from_slice(&asked.octets());
            ip[ipv4::field::DESTINATION].copy_from_slice(&asker.octets());
            let checksum = Sum::default().bytes(&ip).checksum();
            ip[ipv4::field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
            header::put(head, L3, &ip);
        }
        _ => return false,
    }
    *frame.head_len = end as u16;
    *frame.len = end as u32;
    *frame.net = [0; vnet::LEN];
    debug_assert!(end >= ethernet::HEADER_LEN);
    true
}
