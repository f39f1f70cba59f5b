//! Joining TCP segments into one frame that its receiver's TCP takes in one go: what [`crate::gso`] does, backwards.
//!
//! Only what segmentation would give back byte for byte is joined, so that a receiver that takes no large frames gets
//! its segments as they were sent. One thing is not given back: IPv4 identifications that stayed the same count up
//! afterwards. They mean nothing in packets that may not be fragmented (RFC 6864, section 4.1), and in others they are
//! not joined.

use crate::checksum::Sum;
use crate::ethernet;
use crate::gso::MAX_HEADERS;
use crate::ipv4::{self, Ipv4};
use crate::ipv6::{self, Ipv6};
use crate::tcp;
use crate::vnet::{self, VnetHeader};

/// Segments of one frame at most: as many as Linux puts into one datagram burst (`UDP_MAX_SEGMENTS` before 6.9).
pub const MAX_SEGMENTS: usize = 64;

/// "May not be fragmented", in the word of flags and fragment offset.
const DONT_FRAGMENT: u16 = 0x4000;
/// The largest value of an IP length field.
const MAX_LENGTH: usize = 65_535;

/// Segments that follow each other in one connection.
#[derive(Debug)]
pub struct Run<'a> {
    first: Segment<'a>,
    /// Whether the first segment's checksum was found right: it is looked at when a second one comes.
    verified: bool,
    /// FIN and PSH of the last segment.
    last_flags: u8,
    /// No segment may follow a short one, or one that is pushed.
    closed: bool,
    payload_len: usize,
    parts: [&'a [u8]; MAX_SEGMENTS],
    count: usize,
}

/// A TCP segment that may be joined, checksums not yet looked at.
#[derive(Clone, Copy, Debug)]
struct Segment<'a> {
    frame: &'a [u8],
    v6: bool,
    l4: usize,
    payload_at: usize,
    sequence: u32,
    flags: u8,
}

impl<'a> Run<'a> {
    /// A run that begins with this frame (from its Ethernet header on, without tags). `None` when nothing can follow it:
    /// it is no TCP segment with data, it is pushed, or its headers have what segmentation does not make.
    #[inline]
    pub fn begin(frame: &'a [u8]) -> Option<Self> {
        let first = Segment::parse(frame)?;
        let plain = first.flags & !(tcp::ECE | tcp::CWR) == tcp::ACK;
        plain.then(|| {
            let mut parts: [&[u8]; MAX_SEGMENTS] = [&[]; MAX_SEGMENTS];
            parts[0] = first.payload();
            let payload_len = first.payload().len();
            Self { first, verified: false, last_flags: 0, closed: false, payload_len, parts, count: 1 }
        })
    }

    /// Adds the frame that came next. False, and nothing is changed, when it does not continue the run.
    #[inline]
    pub fn join(&mut self, frame: &'a [u8]) -> bool {
        if self.closed || self.count == MAX_SEGMENTS {
            return false;
        }
        let Some(next) = Segment::parse(frame) else { return false };
        let size = self.segment_size();
        let payload = next.payload();
        let expected = self.first.sequence.wrapping_add(self.payload_len as u32);
        let fits = payload.len() <= size
            && next.sequence == expected
            && self.first.is_like(&next, self.count)
            && self.headers_len() - ethernet::HEADER_LEN + self.payload_len + payload.len() <= MAX_LENGTH
            && (self.verified || self.first.is_intact())
            && next.is_intact();
        if !fits {
            return false;
        }
        let Some(part) = self.parts.get_mut(self.count) else { return false };
        *part = payload;
        self.verified = true;
        self.count += 1;
        self.payload_len += payload.len();
        self.last_flags = next.flags & (tcp::FIN | tcp::PSH);
        self.closed = payload.len() < size || self.last_flags != 0;
        true
    }

    /// How many segments were joined: at least one.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the whole frame, from its Ethernet header on.
    pub fn len(&self) -> usize {
        self.headers_len() + self.payload_len
    }

    /// Never: a run has a first segment.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The frame as it came, of a run of one.
    #[inline]
    pub fn only(&self) -> Option<&'a [u8]> {
        (self.count == 1).then_some(self.first.frame)
    }

    /// Payload of each segment, in order.
    #[inline]
    pub fn parts(&self) -> &[&'a [u8]] {
        self.parts.get(..self.count).unwrap_or_default()
    }

    /// Headers of the whole frame, written to `room`, and what to say of it: segments of this size, with the checksum
    /// left open.
    pub fn headers<'r>(&self, room: &'r mut [u8; MAX_HEADERS]) -> (&'r [u8], VnetHeader) {
        let Segment { frame, v6, l4, .. } = self.first;
        let len = self.headers_len();
        let (Some(headers), Some(source)) = (room.get_mut(..len), frame.get(..len)) else {
            return (&[], VnetHeader::default());
        };
        headers.copy_from_slice(source);
        let total = len - ethernet::HEADER_LEN + self.payload_len;
        let transport_len = (len - l4 + self.payload_len) as u16;
        let (addresses, gso_type) = if v6 {
            put(headers, ethernet::HEADER_LEN + ipv6::field::LENGTH.start, (total - ipv6::HEADER_LEN) as u16);
            (ipv6::field::SOURCE.start..ipv6::field::DESTINATION.end, vnet::GSO_TCPV6)
        } else {
            put(headers, ethernet::HEADER_LEN + ipv4::field::LENGTH.start, total as u16);
            put(headers, ethernet::HEADER_LEN + ipv4::field::CHECKSUM.start, 0);
            let sum = Sum::ZERO.bytes(headers.get(ethernet::HEADER_LEN..l4).unwrap_or_default()).checksum();
            put(headers, ethernet::HEADER_LEN + ipv4::field::CHECKSUM.start, sum);
            (ipv4::field::SOURCE.start..ipv4::field::DESTINATION.end, vnet::GSO_TCPV4)
        };
        let addresses = headers.get(ethernet::HEADER_LEN..).and_then(|packet| packet.get(addresses));
        let pseudo = Sum::ZERO.bytes(addresses.unwrap_or_default()).word(u16::from(ipv4::TCP));
        put(headers, l4 + tcp::CHECKSUM_OFFSET, pseudo.word(transport_len).folded());
        if let Some(flags) = headers.get_mut(l4 + tcp::FLAGS_OFFSET) {
            *flags |= self.last_flags;
        }
        let reduced = if self.first.flags & tcp::CWR == 0 { 0 } else { vnet::GSO_ECN };
        let net = VnetHeader {
            flags: vnet::NEEDS_CSUM,
            gso_type: gso_type | reduced,
            hdr_len: len as u16,
            gso_size: self.segment_size() as u16,
            csum_start: l4 as u16,
            csum_offset: tcp::CHECKSUM_OFFSET as u16,
            num_buffers: 0,
        };
        (headers, net)
    }

    fn headers_len(&self) -> usize {
        self.first.payload_at
    }

    fn segment_size(&self) -> usize {
        self.first.frame.len() - self.first.payload_at
    }
}

impl<'a> Segment<'a> {
    /// Proves: Ethernet without tags; IPv4 without options and not fragmented, or IPv6 without extension headers; TCP with
    /// at least one byte of data; nothing behind the packet; headers of at most [`MAX_HEADERS`] bytes.
    #[inline]
    fn parse(frame: &'a [u8]) -> Option<Self> {
        let packet = frame.get(ethernet::HEADER_LEN..)?;
        let (v6, network_len) = match (frame.get(12..14)?, packet) {
            ([0x08, 0x00], [0x45, ..]) => {
                let header = Ipv4::parse(packet, packet.len()).ok()?;
                let whole =
                    header.fragment_word() & !DONT_FRAGMENT == 0 && header.total_len() == packet.len();
                (whole && header.protocol() == ipv4::TCP).then_some((false, ipv4::HEADER_LEN))?
            }
            ([0x86, 0xdd], _) => {
                let header = Ipv6::parse(packet, packet.len()).ok()?;
                let whole = header.total_len() == packet.len();
                (whole && header.next_header() == ipv4::TCP).then_some((true, ipv6::HEADER_LEN))?
            }
            _ => return None,
        };
        let l4 = ethernet::HEADER_LEN + network_len;
        let header = frame.get(l4..)?.first_chunk::<{ tcp::HEADER_LEN }>()?;
        let len = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
        let payload_at = l4 + len;
        let fits = len >= tcp::HEADER_LEN && payload_at < frame.len() && payload_at <= MAX_HEADERS;
        fits.then_some(Self {
            frame,
            v6,
            l4,
            payload_at,
            sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            flags: header[tcp::FLAGS_OFFSET],
        })
    }

    #[inline]
    fn payload(&self) -> &'a [u8] {
        self.frame.get(self.payload_at..).unwrap_or_default()
    }

    /// Whether the headers of a segment `ahead` places later are those that segmentation would give it, but for its
    /// sequence number.
    #[inline]
    fn is_like(&self, later: &Segment<'_>, ahead: usize) -> bool {
        let same = |from: usize, to: usize| self.frame.get(from..to) == later.frame.get(from..to);
        let l3 = ethernet::HEADER_LEN;
        if self.v6 != later.v6 || self.payload_at != later.payload_at {
            return false;
        }
        let network = if self.v6 {
            same(0, l3 + ipv6::field::LENGTH.start) && same(l3 + ipv6::field::LENGTH.end, self.l4)
        } else {
            same(0, l3 + ipv4::field::LENGTH.start)
                && same(l3 + ipv4::field::FRAGMENT.start, l3 + ipv4::field::CHECKSUM.start)
                && same(l3 + ipv4::field::SOURCE.start, self.l4)
                && self.counts_up_to(later, ahead)
        };
        let expected = self.flags & !tcp::CWR;
        let l4 = self.l4;
        network
            && later.flags & !(tcp::FIN | tcp::PSH) == expected
            && same(l4, l4 + tcp::SEQUENCE_OFFSET)
            && same(l4 + tcp::ACKNOWLEDGEMENT_OFFSET, l4 + tcp::FLAGS_OFFSET)
            && same(l4 + tcp::FLAGS_OFFSET + 1, l4 + tcp::CHECKSUM_OFFSET)
            && same(l4 + tcp::CHECKSUM_OFFSET + 2, self.payload_at)
    }

    /// Whether the IPv4 identification counts up, or stays the same where it means nothing.
    #[inline]
    fn counts_up_to(&self, later: &Segment<'_>, ahead: usize) -> bool {
        let word = |segment: &Segment<'_>, at: usize| {
            let bytes = segment.frame.get(ethernet::HEADER_LEN + at..).and_then(|rest| rest.first_chunk());
            u16::from_be_bytes(bytes.copied().unwrap_or_default())
        };
        let (mine, its) = (word(self, ipv4::field::ID.start), word(later, ipv4::field::ID.start));
        let atomic = word(self, ipv4::field::FRAGMENT.start) & DONT_FRAGMENT != 0;
        its == mine.wrapping_add(ahead as u16) || (atomic && its == mine)
    }

    /// Whether the checksums are right: what is joined gets new ones, and damage would be covered up.
    #[inline]
    fn is_intact(&self) -> bool {
        let packet = self.frame.get(ethernet::HEADER_LEN..).unwrap_or_default();
        let segment = self.frame.get(self.l4..).unwrap_or_default();
        let addresses = if self.v6 {
            packet.get(ipv6::field::SOURCE.start..ipv6::field::DESTINATION.end)
        } else {
            packet.get(ipv4::field::SOURCE.start..ipv4::field::DESTINATION.end)
        };
        let pseudo = Sum::ZERO
            .bytes(addresses.unwrap_or_default())
            .word(u16::from(ipv4::TCP))
            .word(segment.len() as u16);
        let header = packet.get(..self.l4 - ethernet::HEADER_LEN).unwrap_or_default();
        (self.v6 || Sum::ZERO.bytes(header).checksum() == 0) && pseudo.bytes(segment).checksum() == 0
    }
}

/// Writes a big-endian word. The offsets are those of fixed header fields whose room [`Segment::parse`] proved.
#[inline]
fn put(header: &mut [u8], at: usize, word: u16) {
    if let Some(place) = header.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) {
        *place = word.to_be_bytes();
    }
}
