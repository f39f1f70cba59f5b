//! Software segmentation and checksum finishing, for receivers that did not negotiate what the sender asked for.
//!
//! What a guest says in `virtio_net_hdr` is compared with the frame and never believed: offsets are found again from
//! the headers, `hdr_len` is not looked at.

use core::ops::ControlFlow;

use crate::checksum::Sum;
use crate::ethernet;
use crate::ipv4::{self, Ipv4};
use crate::ipv6::{self, Ipv6};
use crate::tcp;
use crate::udp;
use crate::vnet::{self, OffloadError, VnetHeader};

/// Bytes of headers that are copied in front of each segment: as many as the pipeline looks at.
pub const MAX_HEADERS: usize = 192;
/// Segments of one TCP frame. 64 KiB make 122 segments at the smallest MSS that RFC 9293 lets a host assume (536) and
/// fewer than this at Linux's smallest (88); one frame may not keep a worker busy for longer.
pub const MAX_TCP_SEGMENTS: usize = 1024;
/// Segments of one UDP frame: Linux's `UDP_MAX_SEGMENTS`.
pub const MAX_UDP_SEGMENTS: usize = 128;

/// What becomes of the transport checksum of each segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Summed here: the receiver gets complete packets.
    Finish,
    /// Left as the pseudo header's sum: the receiver negotiated partial checksums.
    Partial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    V4 { header_len: usize, id: u16 },
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp { sequence: u32, flags: u8 },
    Udp,
}

/// A frame proven fit to be cut.
#[derive(Clone, Copy, Debug)]
pub struct Segmenter<'a> {
    headers: &'a [u8],
    payload: &'a [u8],
    size: usize,
    l3: usize,
    l4: usize,
    network: Network,
    transport: Transport,
    /// Addresses and protocol: the pseudo header without its length.
    pseudo: Sum,
}

impl<'a> Segmenter<'a> {
    /// Proves that `frame` (linear, from the Ethernet header on; up to two VLAN tags are carried along) is what `net`
    /// says: TCP or UDP over IPv4 or IPv6, not a fragment, with the transport's checksum left open.
    ///
    /// # Errors
    /// What does not fit.
    pub fn new(frame: &'a [u8], net: &VnetHeader) -> Result<Self, OffloadError> {
        let wrong = OffloadError::WrongProtocol { gso_type: net.gso_type };
        let kind = net.gso_kind();
        if !matches!(kind, vnet::GSO_TCPV4 | vnet::GSO_TCPV6 | vnet::GSO_UDP_L4) {
            return Err(OffloadError::UnknownType(net.gso_type));
        }
        if kind == vnet::GSO_UDP_L4 && net.gso_type & vnet::GSO_ECN != 0 {
            return Err(OffloadError::UnknownType(net.gso_type));
        }
        if net.gso_size == 0 {
            return Err(OffloadError::NoSize);
        }
        if !net.needs_csum() {
            return Err(OffloadError::NoChecksum);
        }
        let (ethertype, l3) = ethernet::payload(frame)?;
        let packet = frame.get(l3..).unwrap_or_default();
        let (network, protocol, l4, end) = match (ethertype, kind) {
            (ethernet::IPV4, vnet::GSO_TCPV4 | vnet::GSO_UDP_L4) => {
                let header = Ipv4::parse(packet, packet.len())?;
                if header.is_fragment() {
                    return Err(wrong);
                }
                let header_len = header.header_len();
                let network = Network::V4 { header_len, id: header.id() };
                (network, header.protocol(), l3 + header_len, l3 + header.total_len())
            }
            (ethernet::IPV6, vnet::GSO_TCPV6 | vnet::GSO_UDP_L4) => {
                let header = Ipv6::parse(packet, packet.len())?;
                let upper = ipv6::upper(packet.get(..header.total_len()).unwrap_or_default())?;
                if upper.fragment.is_some() {
                    return Err(wrong);
                }
                (Network::V6, upper.protocol, l3 + upper.offset, l3 + header.total_len())
            }
            _ => return Err(wrong),
        };
        let frame = frame.get(..end).unwrap_or_default();
        let segment = frame.get(l4..).unwrap_or_default();
        let short = |need| OffloadError::Truncated { need: l4 + need, have: end };
        let (transport, transport_len, checksum_offset) = match (protocol, kind) {
            (ipv4::TCP, vnet::GSO_TCPV4 | vnet::GSO_TCPV6) => {
                let header = segment.first_chunk::<{ tcp::HEADER_LEN }>().ok_or(short(tcp::HEADER_LEN))?;
                let len = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
                if len < tcp::HEADER_LEN || len > segment.len() {
                    return Err(short(len.max(tcp::HEADER_LEN)));
                }
                let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                let flags = header[tcp::FLAGS_OFFSET];
                (Transport::Tcp { sequence, flags }, len, tcp::CHECKSUM_OFFSET)
            }
            (ipv4::UDP, vnet::GSO_UDP_L4) => {
                if segment.len() < udp::HEADER_LEN {
                    return Err(short(udp::HEADER_LEN));
                }
                (Transport::Udp, udp::HEADER_LEN, udp::CHECKSUM_OFFSET)
            }
            _ => return Err(wrong),
        };
        if (usize::from(net.csum_start), usize::from(net.csum_offset)) != (l4, checksum_offset) {
            return Err(OffloadError::ChecksumElsewhere {
                start: net.csum_start,
                offset: net.csum_offset,
                want_start: l4,
                want_offset: checksum_offset,
            });
        }
        let headers_len = l4 + transport_len;
        if headers_len > MAX_HEADERS {
            return Err(OffloadError::HeadersTooLong { need: headers_len, most: MAX_HEADERS });
        }
        let (headers, payload) = frame.split_at_checked(headers_len).ok_or(short(transport_len))?;
        let addresses = match network {
            Network::V4 { .. } => {
                headers.get(l3 + ipv4::field::SOURCE.start..l3 + ipv4::field::DESTINATION.end)
            }
            Network::V6 => headers.get(l3 + ipv6::field::SOURCE.start..l3 + ipv6::field::DESTINATION.end),
        };
        let pseudo = Sum::ZERO.bytes(addresses.unwrap_or_default()).word(u16::from(protocol));
        let this =
            Self { headers, payload, size: usize::from(net.gso_size), l3, l4, network, transport, pseudo };
        let most = match transport {
            Transport::Tcp { .. } => MAX_TCP_SEGMENTS,
            Transport::Udp => MAX_UDP_SEGMENTS,
        };
        if this.count() > most {
            return Err(OffloadError::TooManySegments { segments: this.count(), most });
        }
        Ok(this)
    }

    /// How many segments [`Self::for_each`] makes: at least one.
    pub fn count(&self) -> usize {
        self.payload.len().div_ceil(self.size).max(1)
    }

    /// Bytes of the largest segment, from its Ethernet header on.
    pub fn largest(&self) -> usize {
        self.headers.len() + self.size.min(self.payload.len())
    }

    /// The header to put in front of every segment.
    pub fn net_header(&self, checksum: Checksum) -> VnetHeader {
        match checksum {
            Checksum::Finish => VnetHeader::default(),
            Checksum::Partial => VnetHeader {
                flags: vnet::NEEDS_CSUM,
                csum_start: self.l4 as u16,
                csum_offset: self.checksum_offset() as u16,
                ..VnetHeader::default()
            },
        }
    }

    /// Hands over each segment as its header bytes and its payload, in order, until `emit` breaks.
    ///
    /// As RFC 9293 and RFC 3168 ask of a sender that cuts for itself: sequence numbers and IPv4 identifications
    /// count up; FIN and PSH stay on the last segment alone, CWR on the first alone.
    pub fn for_each(
        &self,
        checksum: Checksum,
        mut emit: impl FnMut(&[u8], &'a [u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut room = [0; MAX_HEADERS];
        let Some(headers) = room.get_mut(..self.headers.len()) else { return ControlFlow::Break(()) };
        headers.copy_from_slice(self.headers);
        let last = self.count() - 1;
        for number in 0..=last {
            let rest = self.payload.get(number * self.size..).unwrap_or_default();
            let payload = rest.get(..self.size).unwrap_or(rest);
            self.network_header(headers, number, payload.len());
            self.transport_header(headers, number, last, payload, checksum);
            emit(headers, payload)?;
        }
        ControlFlow::Continue(())
    }

    fn checksum_offset(&self) -> usize {
        match self.transport {
            Transport::Tcp { .. } => tcp::CHECKSUM_OFFSET,
            Transport::Udp => udp::CHECKSUM_OFFSET,
        }
    }

    fn network_header(&self, headers: &mut [u8], number: usize, payload_len: usize) {
        let Some(header) = headers.get_mut(self.l3..) else { return };
        let total = header.len() + payload_len;
        match self.network {
            Network::V4 { header_len, id } => {
                put(header, ipv4::field::LENGTH.start, total as u16);
                put(header, ipv4::field::ID.start, id.wrapping_add(number as u16));
                put(header, ipv4::field::CHECKSUM.start, 0);
                let sum = Sum::ZERO.bytes(header.get(..header_len).unwrap_or_default()).checksum();
                put(header, ipv4::field::CHECKSUM.start, sum);
            }
            Network::V6 => put(header, ipv6::field::LENGTH.start, (total - ipv6::HEADER_LEN) as u16),
        }
    }

    fn transport_header(
        &self,
        headers: &mut [u8],
        number: usize,
        last: usize,
        payload: &[u8],
        checksum: Checksum,
    ) {
        let Some(header) = headers.get_mut(self.l4..) else { return };
        let len = header.len() + payload.len();
        match self.transport {
            Transport::Tcp { sequence, mut flags } => {
                if number > 0 {
                    flags &= !tcp::CWR;
                }
                if number < last {
                    flags &= !(tcp::FIN | tcp::PSH);
                }
                let sequence = sequence.wrapping_add((number * self.size) as u32);
                put(header, tcp::SEQUENCE_OFFSET, (sequence >> 16) as u16);
                put(header, tcp::SEQUENCE_OFFSET + 2, sequence as u16);
                if let Some(byte) = header.get_mut(tcp::FLAGS_OFFSET) {
                    *byte = flags;
                }
            }
            Transport::Udp => put(header, udp::LENGTH_OFFSET, len as u16),
        }
        let pseudo = self.pseudo.word(len as u16);
        let sum = match checksum {
            Checksum::Partial => pseudo.folded(),
            Checksum::Finish => {
                put(header, self.checksum_offset(), 0);
                // 0 and 0xffff are the same number in one's complement; in UDP only the latter is a checksum.
                pseudo.bytes(header).bytes(payload).udp_checksum()
            }
        };
        put(header, self.checksum_offset(), sum);
    }
}

/// Completes the checksum that `net` leaves open, in a linear frame. Does nothing when none is open.
///
/// # Errors
/// [`OffloadError::ChecksumOutside`]; the frame is unchanged.
pub fn finish_checksum(frame: &mut [u8], net: &VnetHeader) -> Result<(), OffloadError> {
    if !net.needs_csum() {
        return Ok(());
    }
    let len = frame.len();
    let outside = OffloadError::ChecksumOutside { start: net.csum_start, offset: net.csum_offset, len };
    let covered = frame.get_mut(usize::from(net.csum_start)..).ok_or(outside)?;
    let sum = Sum::ZERO.bytes(covered).udp_checksum();
    let place = covered.get_mut(usize::from(net.csum_offset)..).and_then(|rest| rest.first_chunk_mut::<2>());
    *place.ok_or(outside)? = sum.to_be_bytes();
    Ok(())
}

/// Writes a big-endian word. The offsets are those of fixed header fields whose room [`Segmenter::new`] proved.
#[inline]
fn put(header: &mut [u8], at: usize, word: u16) {
    if let Some(place) = header.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) {
        *place = word.to_be_bytes();
    }
}
